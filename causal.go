package kvstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.com/kvstore/crdt"
	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
	"example.com/kvstore/ring"
	"example.com/kvstore/vclock"
)

// This file coordinates causal writes: those that supersede what their author has
// seen, and nothing else.

// Limits of the siblings of one key. A causal write that would go beyond them,
// and leaves the key with no fewer siblings than before, gets ErrTooManySiblings.
const (
	MaxSiblings     = 100
	MaxSiblingBytes = 1 << 20 // of their values together; one value alone may be larger
)

// A causalWrite is a causal Put, Delete or Update on its way.
type causalWrite struct {
	op, key string
	level   Consistency
	seen    vclock.Version
	value   vclock.Sibling // its dot is given by whoever coordinates
	// sole refuses the write, with a ConflictError, if another value is there that
	// seen does not cover.
	sole bool
	// sloppy: hints may count.
	sloppy bool
	// mutation, if not nil, makes the value, of all that the coordinator holds joined
	// with base; the write supersedes that.
	mutation *crdt.Mutation
	base     replica.Record
	// from is the address of the node that forwarded it, or "".
	from string
}

// A causalResult is what a causal write has made.
type causalResult struct {
	// version is what the author has seen then.
	version vclock.Version
	// held joins what the owners that answered hold.
	held replica.Record
}

// A refusal says that one coordinator did nothing, for a reason that another one
// may not have.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// refused makes err a refusal, unless it is the caller's time that is over.
func refused(err error) error {
	if isAny(err, ErrTimeout, context.Canceled) {
		return err
	}
	return refusal{err}
}

// writeCausal finds an owner that coordinates w: this node if it is one, else
// another, and the next one when that refuses. A sole write goes to the first
// live owner from everywhere, so that there is an order between such writes as
// long as nothing fails: at a level of this data centre, to the first one there. So does
// a mutation, which then meets what earlier ones made.
func (db *DB) writeCausal(ctx context.Context, w *causalWrite) (causalResult, error) {
	qe := QuorumError{Op: w.op, Key: w.key, Level: w.level, outcome: NotApplied, sloppy: w.sloppy}
	deadline, err := db.deadline(ctx)
	if err != nil {
		return causalResult{}, qe.fail(err)
	}
	var room [replica.MaxOwners]target
	for range maxAttempts {
		v, err := db.serving()
		if err != nil {
			return causalResult{}, qe.fail(err)
		}
		if err := v.checkSloppy(w.sloppy); err != nil {
			return causalResult{}, err
		}
		targets, _, err := v.enough(w.key, w.level, &qe, room[:0])
		if err != nil {
			return causalResult{}, err
		}
		if w.level.local() { // what is local is the coordinator's data centre
			targets = slices.DeleteFunc(targets, func(t target) bool { return !t.near })
		}
		if w.sole || w.mutation != nil {
			v.firstOwnersFirst(targets, v.ring.Partition(ring.Token(w.key)))
		}
		qe.Replicas = nil
		epoch := v.epoch.Number
		for i := range targets {
			t := &targets[i]
			if t.dead {
				qe.Replicas = append(qe.Replicas, ReplicaError{Node: t.id, Err: errDown})
				continue
			}
			started := now()
			var out causalResult
			if t.peer == nil {
				out, err = db.coordinate(ctx, v, w, deadline)
			} else {
				out, epoch, err = db.forward(ctx, v, t, w, deadline, epoch)
			}
			var no refusal
			if !errors.As(err, &no) || !defences.NextOwner {
				return out, err
			}
			qe.Replicas = append(qe.Replicas, ReplicaError{Node: t.id, Err: no.error, Took: now().Sub(started)})
		}
		if epoch = max(epoch, db.view.Load().epoch.Number); epoch <= v.epoch.Number {
			return causalResult{}, qe.fail(ErrPartial)
		}
		if err := db.awaitEpoch(ctx, epoch, deadline); err != nil {
			return causalResult{}, qe.fail(err)
		}
	}
	return causalResult{}, qe.fail(fmt.Errorf("%w: it met a newer epoch %d times in a row", ErrNotReady, maxAttempts))
}

// coordinate carries out a causal write at this node, an owner.
func (db *DB) coordinate(ctx context.Context, v *view, w *causalWrite, deadline time.Time) (causalResult, error) {
	if !w.sole {
		return db.storeCausal(ctx, v, w, deadline)
	}
	if err := db.precedence.await(ctx, w.key, w.from, deadline); err != nil {
		qe := QuorumError{Op: w.op, Key: w.key, Level: w.level, outcome: NotApplied}
		return causalResult{}, qe.fail(err)
	}
	out, err := db.storeCausal(ctx, v, w, deadline)
	if errors.Is(err, ErrConflict) {
		db.precedence.stay(w.key, w.from)
	} else {
		db.precedence.leave(w.key, w.from)
	}
	return out, err
}

// storeCausal stores a causal write in this node's log first, and once it is synced
// there, at the other owners (rule: causal-chain).
func (db *DB) storeCausal(ctx context.Context, v *view, w *causalWrite, deadline time.Time) (causalResult, error) {
	qe := QuorumError{Op: w.op, Key: w.key, Level: w.level, outcome: NotApplied, sloppy: w.sloppy}
	if err := v.checkSloppy(w.sloppy); err != nil {
		return causalResult{}, err
	}
	if _, _, err := v.enough(w.key, w.level, &qe, nil); err != nil {
		return causalResult{}, err
	}
	seen, above := w.seen, vclock.Dot{}
	for attempt := range maxAttempts {
		c := db.writes.get()
		if c == nil {
			return causalResult{}, qe.fail(fmt.Errorf("%w: %d writes are in flight", ErrOverloaded, maxInFlight))
		}
		db.sweeper.wake()
		step, err := db.applyCausal(ctx, v, w, seen, above, deadline)
		if err != nil {
			db.writes.put(c)
			if step.unknown {
				qe.outcome = Unknown
			}
			var conflict *ConflictError
			var no refusal
			switch {
			case errors.As(err, &conflict):
				conflict.outcome = qe.outcome
				return causalResult{}, err
			case errors.Is(err, errBehind) && attempt == 0:
				continue // a horizon moved meanwhile, which it does seldom
			case errors.As(err, &no) && qe.outcome == NotApplied:
				return causalResult{}, err
			}
			return causalResult{}, qe.fail(err)
		}
		qe.outcome = Unknown // until enough others have it too
		out, err := db.spread(ctx, v, c, w, step.record, &qe, deadline)
		if err != nil {
			return causalResult{}, err
		}
		held, err := replica.Join(step.record, out.beside)
		if err != nil {
			return causalResult{}, qe.fail(err)
		}
		if above, err = shadow(held, step.dot); err != nil {
			return causalResult{}, qe.fail(err)
		}
		if above.IsZero() || !defences.Restamp {
			return causalResult{version: step.version, held: held}, nil
		}
		// The next attempt supersedes this one.
		db.metrics.restamps.Add(1)
		seen = step.version
		if w.mutation != nil { // which that plain write has superseded already
			next := *w
			next.base, w = held, &next
		}
	}
	return causalResult{}, qe.fail(fmt.Errorf("%w: it was superseded %d times in a row", ErrTimeout, maxAttempts))
}

// shadow gives a dot that a new attempt must be stamped above, or zero if there
// is no need. A plain write that this node had not heard of supersedes all that
// is stamped below it, so a causal write that began after it would vanish. An
// owner that has acknowledged that write is among those that have answered.
func shadow(held replica.Record, dot vclock.Dot) (vclock.Dot, error) {
	set, err := held.Set()
	if err != nil || set.Floor.Less(dot) {
		return vclock.Dot{}, err
	}
	return set.Max(), nil
}

// A causalStep is one attempt of a causal write in the own log.
type causalStep struct {
	dot     vclock.Dot
	version vclock.Version
	record  replica.Record // to be sent
	unknown bool           // it failed, and may be in the log all the same
}

// applyCausal gives the write a dot, joins it with what this node holds, and
// returns when that is synced. An error leaves nothing behind, unless the step is
// unknown.
func (db *DB) applyCausal(ctx context.Context, v *view, w *causalWrite, seen vclock.Version, above vclock.Dot, deadline time.Time) (causalStep, error) {
	unlock := func() {}
	if defences.KeyLocks {
		var err error
		if unlock, err = db.keys.lock(ctx, w.key, deadline); err != nil {
			return causalStep{}, err
		}
		if db.expired(deadline) { // both came at once
			unlock()
			return causalStep{}, ErrTimeout
		}
	}
	p := v.ring.Partition(ring.Token(w.key))
	recorded := db.horizons.of(v).at(p).Recorded
	step, err := db.nextCausal(ctx, v, w, seen, recorded, above, deadline)
	var rec lsm.Record
	if err == nil {
		rec, err = engineRecord(bytesOf(w.key), step.record)
	}
	if err != nil {
		unlock()
		return causalStep{}, err
	}
	// The key is free when the log has answered, which may be after the caller is
	// gone.
	synced := make(chan error, 1)
	turn := db.horizons.passing.enter()
	// What was read may have been deleted and forgotten since, if the horizon moved.
	horizon := db.horizons.of(v).at(p)
	late := defences.Late && (step.dot.Stamp <= horizon.Promised || horizon.Recorded != recorded)
	if !late {
		db.tree.SubmitHere([]lsm.Record{rec}, func(err error) {
			unlock()
			synced <- err
		})
	}
	db.horizons.passing.leave(turn)
	if late {
		unlock()
		return causalStep{}, refusal{errBehind}
	}
	timeout := time.NewTimer(deadline.Sub(now()))
	defer timeout.Stop()
	select {
	case err = <-synced:
	case <-ctx.Done():
		return causalStep{unknown: true}, contextError(ctx)
	case <-timeout.C:
		return causalStep{unknown: true}, ErrTimeout
	}
	switch {
	case err == nil, !defences.SyncFirst:
		return step, nil
	case errorStatus(err) == replica.Uncertain:
		// The log takes nothing more, so this start's actors end here.
		return causalStep{unknown: true}, engineError(err)
	}
	return causalStep{}, refused(engineError(err))
}

// nextCausal makes the record of a causal write, while the horizon is recorded. The key is
// locked.
func (db *DB) nextCausal(ctx context.Context, v *view, w *causalWrite, seen vclock.Version, recorded uint64, above vclock.Dot, deadline time.Time) (causalStep, error) {
	if err := db.fence.await(ctx, deadline); err != nil {
		return causalStep{}, refused(err)
	}
	if !db.acceptData(v) {
		return causalStep{}, refusal{errStale}
	}
	set, err := db.readOwn(ctx, w.key, deadline)
	if err != nil {
		return causalStep{}, err
	}
	if w.mutation != nil {
		return db.nextMutation(ctx, v, w, set, recorded, above, deadline)
	}
	if w.sole {
		for i := range set.Siblings {
			if !seen.Contains(set.Siblings[i].Dot) {
				return causalStep{}, db.conflict(w.key, replica.FromSet(set), NotApplied)
			}
		}
	}
	for _, d := range []vclock.Dot{seen.Max(), set.Max()} {
		if above.Less(d) {
			above = d
		}
	}
	stamp, err := db.stamp(ctx, v, above.Stamp, deadline)
	if err != nil {
		return causalStep{}, refused(err)
	}
	// The actor is read after the record: whoever may have lost records replaces
	// the actor before anybody can read what is left.
	if !defences.KeepUnseen {
		seen = vclock.Version{Past: set.History}
	}
	value := w.value
	value.Dot = vclock.Dot{Stamp: stamp, Actor: db.causal.Load()}
	next, version := set.Replace(seen, value)
	if err := checkSiblings(set, next); err != nil {
		return causalStep{}, err
	}
	return causalStep{dot: value.Dot, version: version, record: replica.FromSet(next)}, nil
}

// conflict is the error of a write that met what it had not seen.
func (db *DB) conflict(key string, held replica.Record, left Outcome) error {
	it, err := db.opts.Conflicts.newItem(key, held, db.opts.Clock())
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return &ConflictError{Item: it, outcome: left, held: held}
}

// checkSiblings refuses what makes the siblings of a key too many. A write that
// reduces them passes, and so does a value that stays alone.
func checkSiblings(before, after vclock.Set) error {
	n := len(after.Siblings)
	if n < 2 || n < len(before.Siblings) || !defences.SiblingLimit {
		return nil
	}
	bytes := 0
	for i := range after.Siblings {
		bytes += len(after.Siblings[i].Value)
	}
	if n > MaxSiblings || bytes > MaxSiblingBytes {
		return fmt.Errorf("%w: %d with %d bytes; at most %d with %d bytes may stand beside each other: read the key, merge them, and put the result with Replaces",
			ErrTooManySiblings, n, bytes, MaxSiblings, MaxSiblingBytes)
	}
	return nil
}

// readOwn reads this node's own copy of a key. A damaged one is a refusal: such an
// owner coordinates no causal write of the key.
func (db *DB) readOwn(ctx context.Context, key string, deadline time.Time) (vclock.Set, error) {
	rec, err := db.readOwnRecord(ctx, key, deadline)
	if err != nil {
		return vclock.Set{}, err
	}
	return rec.Set()
}

// readOwnRecord waits for the disk no longer than the caller does.
func (db *DB) readOwnRecord(ctx context.Context, key string, deadline time.Time) (replica.Record, error) {
	var own []byte
	rec, certain := db.readMemory(bytesOf(key), &own)
	if !certain {
		type answer struct {
			rec replica.Record
			err error
		}
		read := make(chan answer, 1)
		if !db.readers.run(func() {
			var own []byte
			rec, err := db.readLocal(bytesOf(key), &own)
			read <- answer{rec, err}
		}) {
			return replica.Record{}, refusal{ErrOverloaded}
		}
		timeout := time.NewTimer(deadline.Sub(now()))
		defer timeout.Stop()
		select {
		case a := <-read:
			if a.err != nil {
				return replica.Record{}, refusal{a.err}
			}
			rec = a.rec
		case <-ctx.Done():
			return replica.Record{}, contextError(ctx)
		case <-timeout.C:
			return replica.Record{}, ErrTimeout
		}
	}
	return rec, nil
}

// spread sends the record of a causal write that is synced here to the other
// owners, again if it meets a newer epoch, until the level is met. It releases c.
func (db *DB) spread(ctx context.Context, v *view, c *writeCall, w *causalWrite, rec replica.Record, qe *QuorumError, deadline time.Time) (verdict, error) {
	var room [replica.MaxOwners]target
	for {
		targets, need, err := v.enough(w.key, w.level, qe, room[:0])
		if err != nil {
			db.writes.put(c)
			return verdict{}, err
		}
		out := c.write(v, bytesOf(w.key), rec, targets, need, false, deadline, ctx.Done())
		if out.Verdict == replica.Done {
			c.release()
			return out, nil
		}
		qe.Received, qe.Replicas = out.acked, c.errors()
		c.release()
		if out.epoch <= v.epoch.Number {
			return out, qe.fail(waitError(ctx, out.Verdict))
		}
		if err := db.awaitEpoch(ctx, out.epoch, deadline); err != nil {
			return out, qe.fail(err)
		}
		if c = db.writes.get(); c == nil {
			return out, qe.fail(fmt.Errorf("%w: %d writes are in flight", ErrOverloaded, maxInFlight))
		}
		v = db.view.Load()
	}
}
