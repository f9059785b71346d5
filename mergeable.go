package kvstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/kvstore/crdt"
	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// This file changes and reads values that merge by themselves: Counter, Set and Map.
// The state of one (package crdt) is the value of its key. A change is a causal write
// whose value its coordinator makes, with the write's own dot, of everything it holds; so
// an owner's changes of a key are one after the other, as crdt wants them, and
// states that were changed apart are siblings until the next change merges them.

// A place is where such a value is: a key, or a field of the map at a key.
type place struct {
	db    *DB
	key   string
	kind  crdt.Kind
	field crdt.Field
}

// fieldOf gives the place of a map's field.
func (p place) fieldOf(name string, k crdt.Kind) place {
	p.field = crdt.Field{Name: name, Kind: k}
	return p
}

// change applies m, which has no place yet, at a level.
func (p place) change(ctx context.Context, m crdt.Mutation, level Consistency) error {
	m.Kind, m.Field = p.kind, p.field
	if level == Default {
		level = p.db.opts.Write
	}
	return p.db.mutate(ctx, p.key, &m, level)
}

// read gives the state at a place; one that was never changed where there is nothing.
func (p place) read(ctx context.Context, opts []GetOption) (crdt.State, error) {
	it, err := p.db.Get(ctx, p.key, opts...)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return crdt.State{}, err
	}
	s, err := it.state()
	if err == nil && s.Kind() != 0 && s.Kind() != p.kind {
		err = fmt.Errorf("%w: a %v, not a %v", crdt.ErrKind, s.Kind(), p.kind)
	}
	if err != nil {
		return crdt.State{}, typeError(p.key, err)
	}
	if p.field != (crdt.Field{}) {
		s, _ = s.Field(p.field)
	}
	return s, nil
}

// state gives the state in an item; one that was never changed if it is not Found.
func (it *Item) state() (crdt.State, error) {
	switch {
	case it.siblings != nil:
		return mergeStates(it.siblings)
	case it.found:
		return crdt.Decode(it.Value)
	}
	return crdt.State{}, nil
}

// mergeStates gives the state of values that merge by themselves.
func mergeStates(values []Item) (crdt.State, error) {
	var all crdt.State
	for i := range values {
		s, err := crdt.Decode(values[i].Value)
		if err == nil {
			all, err = all.Merge(s)
		}
		if err != nil {
			return crdt.State{}, err
		}
	}
	return all, nil
}

// typeError is the error of a call that met something else at its key than it wants.
func typeError(key string, err error) error {
	switch {
	case errors.Is(err, crdt.ErrOverflow):
		return fmt.Errorf("%w: key %q", ErrOverflow, key)
	case errors.Is(err, crdt.ErrLimit):
		return invalid("%v", err)
	}
	return fmt.Errorf("%w: key %q: %v", ErrWrongType, key, err)
}

// levelOf gives the level among options of a change.
func levelOf(opts []ChangeOption) (level Consistency) {
	for _, o := range opts {
		if c, ok := o.(Consistency); ok && c != Default {
			level = c
		}
	}
	return level
}

// mutate reads key at Options.Read, and has an owner apply m to that and to what it
// holds itself. So m meets all that was done before, also where that owner missed it: what
// was removed by a Delete stays away, and what a set lost was in it.
func (db *DB) mutate(ctx context.Context, key string, m *crdt.Mutation, level Consistency) error {
	if err := db.checkKey(key); err != nil {
		return err
	}
	if err := m.Check(); err != nil {
		return invalid("%v", err)
	}
	if n := len(m.Append(nil)); n > db.opts.MaxValueBytes {
		return fmt.Errorf("%w: a change of %d bytes; Options.MaxValueBytes is %d", ErrValueTooLarge, n, db.opts.MaxValueBytes)
	}
	if err := db.enter(ctx); err != nil {
		return err
	}
	defer db.gate.leave()
	db.metrics.updates.Add(1)
	ctx, cancel := context.WithDeadline(ctx, now().Add(db.opts.MaxRequest))
	defer cancel()
	var base replica.Record
	out := causalResult{}
	_, err := db.read(ctx, key, db.opts.Read, &base)
	if err == nil || errors.Is(err, ErrNotFound) {
		out, err = db.writeCausal(ctx, &causalWrite{op: opUpdate, key: key, level: level, mutation: m, base: base})
	}
	if err != nil {
		db.metrics.failedWrites.Add(1)
		var q *QuorumError
		if errors.As(err, &q) {
			q.Op = opUpdate
		}
		return err
	}
	if s := sessionOf(ctx); s != nil {
		s.note(key, out.version)
	}
	return nil
}

// nextMutation makes the record of a mutation, of which the coordinator holds set, while
// its horizon is recorded. The key is locked.
func (db *DB) nextMutation(ctx context.Context, v *view, w *causalWrite, set vclock.Set, recorded uint64, above vclock.Dot, deadline time.Time) (causalStep, error) {
	read := w.base
	// What this node has not got behind its horizon was deleted and forgotten. An owner
	// that was asked at a low level may not have known that yet.
	lost, lose, err := replica.Forgotten(read, replica.FromSet(set), horizonDot(recorded))
	if err == nil && lose && defences.ForgottenBase {
		read, err = replica.Join(read, lost)
	}
	base, baseErr := read.Set()
	if err = cmp.Or(err, baseErr); err != nil {
		return causalStep{}, invalid("what was read of key %q: %v", w.key, err)
	}
	set = vclock.Join(set, base)
	it, err := KeepSiblings.view(w.key, set, db.opts.Clock())
	if err != nil && !errors.Is(err, ErrNotFound) {
		return causalStep{}, err
	}
	before, err := it.state()
	if err != nil {
		return causalStep{}, typeError(w.key, err)
	}
	for _, d := range []vclock.Dot{set.Max(), before.Context().Max()} {
		if above.Less(d) {
			above = d
		}
	}
	stamp, err := db.stamp(ctx, v, above.Stamp, deadline)
	if err != nil {
		return causalStep{}, refused(err)
	}
	// The actor is read after the record, as in nextCausal.
	dot := vclock.Dot{Stamp: stamp, Actor: db.causal.Load()}
	after, err := before.See(set.History).Apply(*w.mutation, dot)
	if err != nil {
		return causalStep{}, typeError(w.key, err)
	}
	value := after.Append(nil)
	// What two sides have made too large together may be made smaller.
	if n := len(value); n > hardValueBytes || n > db.opts.MaxValueBytes && n > len(before.Append(nil)) {
		return causalStep{}, fmt.Errorf("%w: a %v of %d bytes; Options.MaxValueBytes is %d", ErrValueTooLarge, after.Kind(), n, db.opts.MaxValueBytes)
	}
	next, version := set.Replace(vclock.Version{Past: set.History}, vclock.Sibling{Dot: dot, Value: value})
	return causalStep{dot: dot, version: version, record: replica.FromSet(next)}, nil
}
