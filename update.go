package kvstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// maxReruns is how often Update runs its function again.
const maxReruns = 8

// Update reads key at Options.Read, lets fn make a new value of it, and writes
// that with Replaces of what was read, at the level in opts, else Options.Write.
// It returns the item that it wrote, which has no TTL unless opts give one. fn gets an item that is not Found when the
// key has no value. An error of fn ends Update: errors.Is finds it in Update's, and
// OutcomeOf says whether what an earlier run of fn gave may still be seen.
//
// Updates of a key through one node take turns, each with its read, fn and write, so
// fn runs once for each unless others write the key. Those who wait give up with
// ErrTimeout at their own deadline; the turn of one whose fn is slow ends at its
// deadline, at most MaxRequest after its beginning. fn may call the DB, but an Update
// of the same key in it waits in vain.
//
// While nothing fails, updates of a key through all nodes have an order, that of its
// first owner, so that each sees the one before: increments add up. At LocalOne and
// LocalQuorum that is the first owner in the data centre of the node that is asked.
// In a partition both sides may succeed, and so may two data centres at those levels;
// what they wrote are siblings then, which Options.Conflicts resolves.
//
// A write that meets values that fn has not seen is refused, or taken back, and fn
// runs again, up to 8 times, with those and what it saw before, among which may be
// values that the new ones were made of; then Update gives ErrConflict, and a
// ConflictError with the current Item. The owner lets a node that it refused be the
// next, if that is back within 100 ms: so where nodes compete for a key fn runs
// about twice for each Update, and a slower one than that may end in ErrConflict. fn
// should have no other effects.
func (db *DB) Update(ctx context.Context, key string, fn func(Item) ([]byte, error), opts ...PutOption) (Item, error) {
	if err := db.checkKey(key); err != nil {
		return Item{Key: key}, err
	}
	switch {
	case ctx == nil:
		return Item{Key: key}, errNoContext
	case fn == nil:
		return Item{Key: key}, invalid("Update's function is nil")
	}
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
	leave, err := u.turn(ctx)
	if err != nil {
		return Item{Key: key}, err
	}
	defer leave()
	for range 1 + maxReruns {
		it, err := u.read(ctx)
		if err != nil {
			return Item{Key: key}, u.fail(err)
		}
		value, err := fn(it)
		if err != nil {
			return it, u.end(err)
		}
		w := pendingWrite{level: db.opts.Write, rec: replica.Record{Value: value}}
		if err := db.checkPut(&w, opts); err != nil {
			return it, u.end(err)
		}
		if w.replaces {
			return it, u.end(invalid("Update replaces what it has read; leave Replaces out"))
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

// turn waits until the updates of the key that came before through this node are
// over. The turn ends with leave, or with ctx: a function that hangs holds up others
// no longer than it may take itself.
func (u *updating) turn(ctx context.Context) (leave func(), err error) {
	deadline, _ := ctx.Deadline()
	unlock, err := u.db.turns.lock(ctx, u.key, deadline)
	if err != nil {
		qe := QuorumError{Op: opUpdate, Key: u.key, Level: u.db.opts.Write, outcome: NotApplied, cause: errTurn}
		return nil, qe.fail(err)
	}
	unlock = sync.OnceFunc(unlock)
	stop := context.AfterFunc(ctx, unlock)
	return func() { stop(); unlock() }, nil
}

// read gives what fn is to see: all values but the one of an earlier attempt, and those
// that it superseded, with a version that covers that too. Of the latter some may have
// been superseded by others as well, which cannot be told any more.
func (u *updating) read(ctx context.Context) (Item, error) {
	if !u.db.gate.enter() {
		return Item{}, ErrClosed
	}
	defer u.db.gate.leave()
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
	if !u.db.gate.enter() {
		return Item{}, false, ErrClosed
	}
	defer u.db.gate.leave()
	out, err := u.db.writeCausal(ctx, &causalWrite{op: opUpdate, key: u.key, level: w.level, seen: it.Version.seen, sole: true, sloppy: w.sloppy,
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

// An updateError ends an Update because of its function or its value. It matches the
// error that it wraps.
type updateError struct {
	error
	outcome Outcome // Unknown if an attempt was stored and not taken back
}

// Error is that of the function; one line that ends with the outcome if that is
// Unknown.
func (e updateError) Error() string {
	if e.outcome == NotApplied {
		return e.error.Error()
	}
	return fmt.Sprintf("%v; what Update wrote before it ran again was not taken back; outcome: %v", e.error, e.outcome)
}

func (e updateError) Unwrap() error { return e.error }

// end gives the error of the whole call for one of its function or its value.
func (u *updating) end(err error) error {
	if u.own.IsZero() {
		return updateError{err, NotApplied}
	}
	return updateError{err, Unknown}
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
