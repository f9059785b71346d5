package kvstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// maxAttempts bounds how often one call is sent again: under a higher stamp
// because an owner held a newer write, or in a newer epoch.
const maxAttempts = 16

const (
	opGet    = "get"
	opPut    = "put"
	opDelete = "delete"
	opUpdate = "update"
	opScan   = "scan"
)

// Get returns the key's value at the level in opts, else Options.Read. At
// Quorum and above the joined answer of the owners asked is held by a quorum of
// owners before Get returns, so no later read at Quorum goes back in time.
//
// The error is ErrNotFound for a key without a value; the Item then carries the
// Version of the tombstone, if there is one.
func (db *DB) Get(ctx context.Context, key string, opts ...GetOption) (Item, error) {
	level := db.opts.Read
	for _, o := range opts {
		if c, ok := o.(Consistency); ok && c != Default {
			level = c
		}
	}
	if err := db.checkKey(key); err != nil {
		return Item{Key: key}, err
	}
	if err := db.enter(ctx); err != nil {
		return Item{Key: key}, err
	}
	defer db.gate.leave()
	db.metrics.gets.Add(1)
	it, err := db.read(ctx, key, level, nil)
	if err != nil && !errors.Is(err, ErrNotFound) {
		db.metrics.failedGets.Add(1)
	}
	return it, err
}

// Put stores value under key at the level in opts, else Options.Write, and
// returns the version it became. value is not kept.
//
// Without Replaces, and under LastWriterWins, it is a plain write: it supersedes
// whatever was stamped before it. With Replaces it supersedes what that version
// has seen; what it has not seen stays beside it, see Item.Siblings.
//
// A nil error says that the level's number of owners have it durably (under
// SyncAlways). For any other ask OutcomeOf.
func (db *DB) Put(ctx context.Context, key string, value []byte, opts ...PutOption) (Version, error) {
	w := pendingWrite{op: opPut, key: key, level: db.opts.Write, causal: db.opts.Conflicts.causal(), rec: replica.Record{Value: value}}
	if err := db.checkPut(&w, opts); err != nil {
		return Version{}, err
	}
	return db.write(ctx, &w)
}

// checkPut takes in the options of a Put or an Update, and checks its value.
func (db *DB) checkPut(w *pendingWrite, opts []PutOption) error {
	for _, o := range opts {
		switch o := o.(type) {
		case Consistency:
			if o != Default {
				w.level = o
			}
		case ttlOption:
			if time.Duration(o) < time.Millisecond {
				return invalid("TTL is %v; use at least 1ms", time.Duration(o))
			}
			w.rec.Deadline = db.opts.Clock().Add(time.Duration(o)).UnixMilli()
		case sloppyOption:
			w.sloppy = true
		case replacesOption:
			w.causal, w.replaces, w.seen = true, true, o.version.seen
		}
	}
	if n := len(w.rec.Value); n > db.opts.MaxValueBytes {
		return fmt.Errorf("%w: %d bytes; Options.MaxValueBytes is %d", ErrValueTooLarge, n, db.opts.MaxValueBytes)
	}
	return nil
}

// Delete removes the key's value at the level in opts, else Options.Write. It
// succeeds whether or not there was one. With Replaces it deletes what that
// version has seen, and a value written concurrently stays.
func (db *DB) Delete(ctx context.Context, key string, opts ...DeleteOption) error {
	w := pendingWrite{op: opDelete, key: key, level: db.opts.Write, causal: db.opts.Conflicts.causal(), rec: replica.Record{Tombstone: true}}
	w.deleteOptions(opts)
	_, err := db.write(ctx, &w)
	return err
}

// deleteOptions takes in the options of a Delete.
func (w *pendingWrite) deleteOptions(opts []DeleteOption) {
	for _, o := range opts {
		switch o := o.(type) {
		case Consistency:
			if o != Default {
				w.level = o
			}
		case sloppyOption:
			w.sloppy = true
		case replacesOption:
			w.causal, w.replaces, w.seen = true, true, o.version.seen
		}
	}
}

// A pendingWrite is a Put or Delete on its way.
type pendingWrite struct {
	op, key string
	level   Consistency
	rec     replica.Record
	// causal: it supersedes seen and nothing else. replaces: the caller said what
	// that is.
	causal, replaces bool
	seen             vclock.Version
	above            vclock.Dot // a plain write is stamped above it
	tried            bool       // owners may have it under an earlier dot
	sloppy           bool       // hints may count
}

// enter begins a caller's call. db.gate.leave must follow, unless it fails.
func (db *DB) enter(ctx context.Context) error {
	if ctx == nil {
		return errNoContext
	}
	if !db.gate.enter() {
		return ErrClosed
	}
	return nil
}

func (db *DB) checkKey(key string) error {
	switch {
	case key == "":
		return invalid("empty key")
	case len(key) > db.opts.MaxKeyBytes:
		return fmt.Errorf("%w: %d bytes; Options.MaxKeyBytes is %d", ErrKeyTooLarge, len(key), db.opts.MaxKeyBytes)
	}
	return nil
}

func invalid(format string, a ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, a...)...)
}

// bytesOf views a key's bytes. They must not be modified.
func bytesOf(key string) []byte { return unsafe.Slice(unsafe.StringData(key), len(key)) }

func (db *DB) write(ctx context.Context, w *pendingWrite) (Version, error) {
	if err := db.checkKey(w.key); err != nil {
		return Version{}, err
	}
	if err := db.enter(ctx); err != nil {
		return Version{}, err
	}
	defer db.gate.leave()
	return db.perform(ctx, w)
}

// perform carries out a write of which the key was checked. The caller is inside
// the gate.
func (db *DB) perform(ctx context.Context, w *pendingWrite) (Version, error) {
	if !w.tried {
		db.countWrite(w.op)
	}
	var v Version
	var err error
	s := sessionOf(ctx)
	if s != nil {
		w.level = s.level(w.key, w.level, db.replicas())
		if defences.SessionFloor {
			w.above = s.max(w.key)
		}
	}
	if w.causal {
		v, err = db.writeSeen(ctx, w)
	} else {
		v, err = db.writeAll(ctx, w)
	}
	if err != nil {
		db.metrics.failedWrites.Add(1)
	} else if s != nil {
		s.note(w.key, v.seen)
	}
	return v, err
}

func (db *DB) countWrite(op string) {
	if op == opPut {
		db.metrics.puts.Add(1)
	} else {
		db.metrics.deletes.Add(1)
	}
}

// writeSeen carries out a causal Put or Delete. A Delete that does not say what it
// deletes reads first.
func (db *DB) writeSeen(ctx context.Context, w *pendingWrite) (Version, error) {
	if w.rec.Tombstone && !w.replaces {
		it, err := db.read(ctx, w.key, db.opts.Read, nil)
		if err != nil && !errors.Is(err, ErrNotFound) {
			var q *QuorumError
			if errors.As(err, &q) {
				q.Op = opDelete
			}
			return Version{}, err
		}
		if it.Version.Equal(Version{}) {
			return Version{}, nil // never written
		}
		w.seen = it.Version.seen
	}
	out, err := db.writeCausal(ctx, &causalWrite{op: w.op, key: w.key, level: w.level, seen: w.seen, sloppy: w.sloppy,
		value: vclock.Sibling{Tombstone: w.rec.Tombstone, Deadline: w.rec.Deadline, Value: w.rec.Value}})
	return Version{out.version}, err
}

// writeAll sends the write until it is acknowledged under one dot.
func (db *DB) writeAll(ctx context.Context, w *pendingWrite) (Version, error) {
	qe := QuorumError{Op: w.op, Key: w.key, Level: w.level, outcome: NotApplied, sloppy: w.sloppy}
	deadline, err := db.deadline(ctx)
	if err != nil {
		return Version{}, qe.fail(err)
	}
	if w.tried {
		qe.outcome = Unknown
	}
	key := bytesOf(w.key)
	var room [replica.MaxOwners]target
	above := w.above.Stamp
	restamp := true
	for range maxAttempts {
		v, err := db.serving()
		if err != nil {
			return Version{}, qe.fail(err)
		}
		if err := v.checkSloppy(w.sloppy); err != nil {
			return Version{}, err
		}
		targets, need, err := v.enough(w.key, w.level, &qe, room[:0])
		if err != nil {
			return Version{}, err
		}
		if restamp {
			stamp, err := db.stamp(ctx, v, above, deadline)
			if err != nil {
				return Version{}, qe.fail(err)
			}
			w.rec.Dot = vclock.Dot{Stamp: stamp, Actor: db.actor}
		}
		c := db.writes.get()
		if c == nil {
			return Version{}, qe.fail(fmt.Errorf("%w: %d writes are in flight", ErrOverloaded, maxInFlight))
		}
		db.sweeper.wake()
		out := c.write(v, key, w.rec, targets, need, false, deadline, ctx.Done())
		if out.Verdict == replica.Done {
			c.release()
			return plainVersion(w.rec.Dot), nil
		}
		qe.Received, qe.Replicas = out.acked, c.errors()
		c.release()
		restamp = out.Verdict == replica.Restamp
		if restamp || out.outcome == Unknown {
			qe.outcome = Unknown // also an owner that knows a newer dot may keep the older
		}
		switch {
		case restamp:
			db.metrics.restamps.Add(1)
			above = out.newer.Stamp
		case out.epoch > v.epoch.Number:
			if err := db.awaitEpoch(ctx, out.epoch, deadline); err != nil {
				return Version{}, qe.fail(err)
			}
		default:
			return Version{}, qe.fail(waitError(ctx, out.Verdict))
		}
	}
	return Version{}, qe.fail(fmt.Errorf("%w: it was superseded or met a newer epoch %d times in a row", ErrTimeout, maxAttempts))
}

// get reads a key. raw, if not nil, is given a copy of what was read.
func (db *DB) get(ctx context.Context, key string, level Consistency, raw *replica.Record) (Item, error) {
	none := Item{Key: key}
	qe := QuorumError{Op: opGet, Key: key, Level: level, outcome: NotApplied}
	deadline, err := db.deadline(ctx)
	if err != nil {
		return none, qe.fail(err)
	}
	var room [replica.MaxOwners]target
	digests := true
	for range maxAttempts {
		v, err := db.serving()
		if err != nil {
			return none, qe.fail(err)
		}
		if err := db.fence.await(ctx, deadline); err != nil {
			return none, qe.fail(err)
		}
		targets, need, err := v.enough(key, level, &qe, room[:0])
		if err != nil {
			return none, err
		}
		if qe.Required == 1 && targets[0].peer == nil {
			// The disk may not answer, and the caller not wait for ever.
			it, certain, err := db.getLocal(key, raw, len(targets) == 1 && ctx.Done() == nil)
			if certain && (err == nil || errors.Is(err, ErrNotFound)) {
				return it, err
			} // else another owner may do better
		}
		c := db.reads.get()
		if c == nil {
			return none, qe.fail(fmt.Errorf("%w: %d reads are in flight", ErrOverloaded, maxInFlight))
		}
		db.sweeper.wake()
		out := c.read(v, bytesOf(key), targets, need, digests, deadline, ctx.Done())
		if out.Verdict == replica.Done && !out.settled && defences.Digests {
			c.release()
			db.metrics.digestMisses.Add(1)
			digests = false
			continue
		}
		if out.Verdict == replica.Done {
			var it Item
			epoch, err := db.writeBack(ctx, v, c, &out, qe, deadline)
			if err == nil {
				keep(raw, out.joined)
				it, err = db.opts.Conflicts.newItem(key, out.joined, db.opts.Clock())
				it.forgotten = out.forgotten()
			}
			c.release()
			if out.epoch = epoch; err == nil || errors.Is(err, ErrNotFound) || epoch <= v.epoch.Number {
				return it, err
			}
		} else {
			qe.Received, qe.Replicas = out.answers, c.errors()
			c.release()
		}
		switch {
		case out.epoch > v.epoch.Number:
			if err := db.awaitEpoch(ctx, out.epoch, deadline); err != nil {
				return none, qe.fail(err)
			}
		case out.damaged:
			return none, qe.fail(ErrDataLoss)
		default:
			return none, qe.fail(waitError(ctx, out.Verdict))
		}
	}
	return none, qe.fail(fmt.Errorf("%w: it met a newer epoch %d times in a row", ErrTimeout, maxAttempts))
}

// writeBack makes a quorum of owners hold what a read joined, before the read
// returns (I4): without it a write that reached too few owners could be seen by
// one read and not by the next. Reads below a quorum promise no such thing.
// Owners beyond the quorum that answered with less are repaired without waiting.
// When it fails it gives the newest epoch that an owner named.
func (db *DB) writeBack(ctx context.Context, v *view, c *readCall, out *readResult, qe QuorumError, deadline time.Time) (epoch uint64, err error) {
	quorum := len(c.targets)/2 + 1
	if !defences.WriteBack || !out.joined.Found() || out.agreed && (out.count >= quorum || qe.Required < quorum) {
		return 0, nil
	}
	var room [replica.MaxOwners]target
	rest := room[:0]
	for i, t := range c.targets {
		if out.holders>>i&1 == 0 && !t.dead {
			rest = append(rest, t)
		}
	}
	need := max(quorum-out.count, 0)
	if qe.Required < quorum || !defences.WaitBack {
		need = 0 // repair only
	}
	if need > len(rest) {
		qe.Replicas = deadTargets(c.targets)
		return 0, qe.fail(ErrUnavailable)
	}
	if !defences.ReadRepair {
		rest = rest[len(rest)-need:]
	}
	w := db.writes.get()
	switch {
	case w == nil && need == 0:
		return 0, nil // the next read repairs
	case w == nil:
		return 0, qe.fail(fmt.Errorf("%w: %d writes are in flight", ErrOverloaded, maxInFlight))
	}
	defer w.release()
	db.metrics.writeBacks.Add(1)
	got := w.write(v, c.key, out.joined, rest, replica.Need{Count: need}, true, deadline, ctx.Done())
	if got.Verdict == replica.Done {
		return 0, nil
	}
	qe.Received, qe.Replicas = out.count+got.acked, w.errors()
	return got.epoch, qe.fail(waitError(ctx, got.Verdict))
}

// deadline is when the call must be over: the context's deadline or MaxRequest
// from now, whichever is sooner.
func (db *DB) deadline(ctx context.Context) (time.Time, error) {
	d := now().Add(db.opts.MaxRequest)
	if ctx.Done() == nil {
		return d, nil
	}
	if ctx.Err() != nil {
		return d, contextError(ctx)
	}
	if t, ok := ctx.Deadline(); ok && t.Before(d) {
		d = t
	}
	return d, nil
}

// getLocal is a read of which this node's copy is enough. It reads the disk only when
// it is told to; otherwise it is certain only of what memory knows.
func (db *DB) getLocal(key string, raw *replica.Record, disk bool) (it Item, certain bool, err error) {
	buf := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	horizon := db.horizons.covers(lsm.Token(bytesOf(key))).Stamp // as it was before the read
	rec, certain := db.readMemory(bytesOf(key), buf)
	if !certain && disk {
		certain = true
		rec, err = db.readLocal(bytesOf(key), buf)
	}
	if !certain || err != nil {
		return Item{Key: key}, certain, err
	}
	keep(raw, rec)
	it, err = db.opts.Conflicts.newItem(key, rec, db.opts.Clock())
	it.forgotten = readResult{joined: rec, horizon: horizon}.forgotten()
	return it, true, err
}

// keep copies a record whose memory will be re-used, if somebody wants it.
func keep(raw *replica.Record, rec replica.Record) {
	if raw != nil {
		rec.Value = bytes.Clone(rec.Value)
		*raw = rec
	}
}

// readMemory reads this node's own copy if the disk is not needed for that. The
// record's value is in *buf's memory, which grows as needed.
func (db *DB) readMemory(key []byte, buf *[]byte) (rec replica.Record, certain bool) {
	r, ok, certain := db.tree.ReadMemory(lsm.Token(key), key, (*buf)[:0])
	if !certain || !ok {
		return replica.Record{}, certain
	}
	if cap(r.Value) > cap(*buf) && cap(r.Value) <= keepValueBytes {
		*buf = r.Value
	}
	return fromEngine(r), true
}

// readLocal reads this node's own copy. The record's value is in *buf's memory,
// or the caller's own.
func (db *DB) readLocal(key []byte, buf *[]byte) (replica.Record, error) {
	if rec, certain := db.readMemory(key, buf); certain {
		return rec, nil
	}
	r, ok, err := db.tree.Read(key)
	if err != nil || !ok {
		return replica.Record{}, engineError(err)
	}
	return fromEngine(r), nil
}
