package kvstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// maxReruns is how often Update runs its function again.
const maxReruns = 8

// Update reads key at Options.Read, lets fn make a new value of it, and writes
// that with Replaces of what was read, at the level in opts, else Options.Write.
// It returns the item that it wrote. fn gets an item that is not Found when the
// key has no value. An error of fn ends Update and is returned as it is, or wrapped
// where it ended a later run: what an earlier one gave may still be seen then, and
// OutcomeOf says so.
//
// When the write meets values that fn has not seen, Update takes it back and runs
// fn again, up to 8 times, with those and what it saw before, among which may be
// values that the new ones were made of; then it gives ErrConflict, and a
// ConflictError with the current Item. fn should have no other effects.
//
// While nothing fails, updates of a key through all nodes take turns at its first
// owner, so that each sees the one before: increments add up. At LocalOne and
// LocalQuorum that is the first owner in the data centre of the node that is asked.
// In a partition both sides may succeed, and so may two data centres at those levels;
// what they wrote are siblings then, which Options.Conflicts resolves.
func (db *DB) Update(ctx context.Context, key string, fn func(Item) ([]byte, error), opts ...PutOption) (Item, error) {
	if err := db.checkKey(key); err != nil {
		return Item{Key: key}, err
	}
	if !db.gate.enter() {
		return Item{Key: key}, ErrClosed
	}
	defer db.gate.leave()
	db.metrics.updates.Add(1)
	it, err := db.update(ctx, key, fn, opts)
	if err != nil {
		db.metrics.failedWrites.Add(1)
	}
	return it, err
}

func (db *DB) update(ctx context.Context, key string, fn func(Item) ([]byte, error), opts []PutOption) (Item, error) {
	ctx, cancel := context.WithDeadline(ctx, now().Add(db.opts.MaxRequest))
	defer cancel()
	u := updating{db: db, key: key}
	for range 1 + maxReruns {
		it, err := u.read(ctx)
		if err != nil {
			return Item{Key: key}, u.fail(err)
		}
		value, err := fn(it)
		if err != nil {
			return it, u.stray(err)
		}
		w := pendingWrite{level: db.opts.Write, rec: replica.Record{Value: value}}
		if err := db.checkPut(&w, opts); err != nil {
			return it, u.stray(err)
		}
		if w.replaces {
			return it, invalid("Update replaces what it has read; leave Replaces out")
		}
		wrote, alone, err := u.write(ctx, it, &w)
		if err != nil {
			return Item{Key: key}, u.fail(err)
		}
		if alone {
			if s := sessionOf(ctx); s != nil {
				s.note(key, wrote.Version.seen)
			}
			return wrote, nil
		}
		db.metrics.reruns.Add(1)
	}
	return Item{Key: key}, u.fail(db.conflict(key, u.held, NotApplied))
}

// An updating is an Update between its attempts.
type updating struct {
	db  *DB
	key string
	// held is what owners were last seen to hold; fresh says that it has been read.
	held  replica.Record
	fresh bool
	// own is the dot of the last attempt that was stored: it is taken back, so fn
	// must not see its value. Zero if there is none.
	own vclock.Dot
	// shown are the values that fn has seen in its last run, and replaced those that
	// stored attempts have superseded: it must see them again, for what was made of
	// them is taken back.
	shown, replaced []vclock.Sibling
}

// read gives what fn is to see: all values but the one of an earlier attempt, and those
// that it superseded, with a version that covers that too. Of the latter some may have
// been superseded by others as well, which cannot be told any more.
func (u *updating) read(ctx context.Context) (Item, error) {
	if !u.fresh {
		if _, err := u.db.read(ctx, u.key, u.db.opts.Read, &u.held); err != nil && !errors.Is(err, ErrNotFound) {
			return Item{}, err
		}
	}
	set, err := u.held.Set()
	if err != nil {
		return Item{}, err
	}
	if !u.own.IsZero() {
		all := append(slices.Clone(set.Siblings), u.replaced...)
		slices.SortFunc(all, func(a, b vclock.Sibling) int { return b.Dot.Compare(a.Dot) })
		all = slices.CompactFunc(all, func(a, b vclock.Sibling) bool { return a.Dot == b.Dot })
		set.Siblings = slices.DeleteFunc(all, func(s vclock.Sibling) bool { return s.Dot == u.own })
	}
	u.shown = set.Siblings
	it, err := u.db.opts.Conflicts.view(u.key, set, u.db.opts.Clock())
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Item{}, err
	}
	return it, nil
}

// write makes one attempt, and reports whether its value stands alone.
func (u *updating) write(ctx context.Context, it Item, w *pendingWrite) (wrote Item, alone bool, err error) {
	out, err := u.db.writeCausal(ctx, &causalWrite{op: opUpdate, key: u.key, level: w.level, seen: it.Version.seen, sole: true,
		value: vclock.Sibling{Deadline: w.rec.Deadline, Value: w.rec.Value}})
	var conflict *ConflictError
	if errors.As(err, &conflict) && conflict.outcome == NotApplied {
		// With what was read before, that is as good as another read.
		u.held, err = replica.Join(u.held, conflict.held)
		u.fresh = true
		return Item{}, false, err
	}
	if err != nil {
		return Item{}, false, err
	}
	set, err := out.held.Set()
	if err != nil {
		return Item{}, false, err
	}
	u.held, u.fresh, u.own, u.replaced = out.held, true, out.version.Max(), u.shown
	// A value that is gone already was seen by the one who replaced it.
	stands := slices.ContainsFunc(set.Siblings, func(s vclock.Sibling) bool { return s.Dot == u.own })
	if stands && slices.ContainsFunc(set.Siblings, func(s vclock.Sibling) bool { return s.Dot != u.own && !s.Tombstone }) {
		return Item{}, false, nil
	}
	return Item{Key: u.key, Value: bytes.Clone(w.rec.Value), found: true, Version: Version{out.version},
		Modified: vclock.StampTime(u.own.Stamp), Expires: deadlineTime(w.rec.Deadline)}, true, nil
}

// A strayError ends an Update of which an attempt was stored and not taken back. It
// matches the error that it wraps.
type strayError struct{ error }

// Error is one line that ends with the outcome.
func (e strayError) Error() string {
	return fmt.Sprintf("%v; what Update wrote before it ran again was not taken back; outcome: %v", e.error, Unknown)
}

func (e strayError) Unwrap() error { return e.error }

// stray gives the error of the whole call for one of its function or its value.
func (u *updating) stray(err error) error {
	if u.own.IsZero() {
		return err
	}
	return strayError{err}
}

// fail gives the error of the whole call: an attempt that was stored and not taken
// back leaves the outcome unknown.
func (u *updating) fail(err error) error {
	e := QuorumError{Op: opUpdate, Key: u.key, Level: u.db.opts.Write}
	var q *QuorumError
	if errors.As(err, &q) {
		e, err = *q, q.kind
		e.Op = opUpdate
	}
	var conflict *ConflictError
	switch {
	case errors.As(err, &conflict):
		if !u.own.IsZero() {
			conflict.outcome = Unknown
		}
		return err
	case !u.own.IsZero():
		e.outcome = Unknown
		return e.fail(err)
	case q != nil:
		return &e
	}
	return err
}
