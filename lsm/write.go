package lsm

import (
	"errors"
	"fmt"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/wal"
	"example.com/kvstore/vclock"
)

// A waiter is what a synchronous writer waits on. It is reused.
type waiter struct {
	batch [1]Record
	err   error
	ready chan struct{} // capacity 1, never closed
	done  func(error)   // complete, bound once
	park  *wal.Parker
}

func newWaiter() any {
	w := &waiter{ready: make(chan struct{}, 1), park: wal.NewParker()}
	w.done = w.complete
	return w
}

// complete runs where the group is committed; there is room in the channel.
func (w *waiter) complete(err error) {
	w.err = err
	w.ready <- struct{}{}
}

// Put writes a value under the tree's own clock. On return it is visible, and
// durable as Options.Sync says. Key and value are copied. After an
// ErrUncertain the outcome is unknown; after any other error nothing was written.
func (t *Tree) Put(key, value []byte) error {
	return t.write(Record{Kind: Value, Key: key, Value: value})
}

// Delete writes a tombstone, like Put. The key need not exist.
func (t *Tree) Delete(key []byte) error {
	return t.write(Record{Kind: Tombstone, Key: key})
}

// write stamps r and applies it, again while the key may hold a newer dot, from
// Apply or from before the clock was set back.
func (t *Tree) write(r Record) error {
	w := t.waiters.Get().(*waiter)
	var above uint64
	var err error
	applied := false
	for {
		var stamp uint64
		if stamp, err = t.clock.Next(above); err != nil {
			err = fmt.Errorf("lsm: stamping a write: %w", err)
			break
		}
		r.Token = base.Token(r.Key)
		r.Max = vclock.Dot{Stamp: stamp, Actor: LocalActor}
		r.Min = r.Max
		w.batch[0] = r
		if err = t.apply(w.batch[:], false, w); err != nil || w.batch[0].Newer.IsZero() || !base.Defences.Restamp {
			break
		}
		above, applied = w.batch[0].Newer.Stamp, true
	}
	if err != nil && applied {
		// An attempt is in the tree; what it met may only have seemed newer.
		err = fmt.Errorf("%w: %w", ErrUncertain, err)
	}
	w.batch[0] = Record{}
	t.waiters.Put(w)
	return err
}

// Apply joins records that carry their dots, in any order, any number of times.
// On return they are visible, and durable as Options.Sync says. Keys and values
// are copied; a token is taken as it is. The records are brought into normal form in place: bounds of
// causal ones are computed, and a causal one that is what a plain write makes
// becomes that. Newer is set as Record describes. Errors are as for Put, and
// hold for the whole batch.
func (t *Tree) Apply(batch []Record) error { return t.applyBatch(batch, false) }

// ApplySync is Apply, durable on return under every policy.
func (t *Tree) ApplySync(batch []Record) error { return t.applyBatch(batch, true) }

func (t *Tree) applyBatch(batch []Record, sync bool) error {
	w := t.waiters.Get().(*waiter)
	err := t.apply(batch, sync, w)
	t.waiters.Put(w)
	return err
}

// Submit is Apply without waiting: done gets the outcome, once, on the goroutine
// that commits the group, and must not block. Keys and values are copied before Submit
// returns; batch itself must stay as it is until done is called. Submit never
// blocks: what it refuses (ErrClosed, ErrOverloaded, ErrReadOnly, an invalid
// record) it refuses by calling done itself, before it returns.
func (t *Tree) Submit(batch []Record, done func(error)) {
	size, err := t.check(batch)
	if err != nil {
		done(err)
		return
	}
	if t.refusing.Load() {
		done(errLogFull)
		return
	}
	if err := t.queue.Append(wal.Entry{Batch: batch, Done: done}); err != nil {
		done(err)
		return
	}
	t.load.unpaced.Add(int64(size))
}

// SubmitHere is Submit for whom it does not matter on which goroutine done is called:
// under a lazy policy there is nothing to wait for, and done is called before it returns.
// When the log is behind it is Submit, so that who waits for done goes no faster.
func (t *Tree) SubmitHere(batch []Record, done func(error)) {
	if !t.o.Sync.lazy || !t.queue.Spare() {
		t.Submit(batch, done)
		return
	}
	size, err := t.check(batch)
	switch {
	case err != nil:
	case t.refusing.Load():
		err = errLogFull
	default:
		if err = t.appendLazy(wal.Entry{Batch: batch}); err == nil {
			t.load.unpaced.Add(int64(size))
		}
	}
	done(err)
}

var errLogFull = fmt.Errorf("lsm: the log has no room for what was accepted before: %w", ErrNoSpace)

// apply writes a batch and waits on w as far as the policy asks for.
func (t *Tree) apply(batch []Record, sync bool, w *waiter) error {
	size, err := t.check(batch)
	if err != nil {
		return err
	}
	t.slowDown(size)
	lazy := t.o.Sync.lazy && !sync
	e := wal.Entry{Batch: batch, Sync: sync}
	for {
		if t.refusing.Load() {
			return errLogFull
		}
		var err error
		leads := false
		if lazy {
			err = t.appendLazy(e)
		} else {
			e.Done = w.done
			if t.o.Sync.lazy {
				err = t.queue.Append(e) // the log's goroutine may have to wait for space
			} else {
				leads, err = t.queue.Lead(e)
			}
		}
		switch {
		case errors.Is(err, ErrOverloaded):
			t.stats.stalls.Add(1)
			t.queue.WaitRoom(w.park)
			continue
		case err != nil || lazy:
			return err
		}
		if leads {
			t.lead()
		}
		<-w.ready
		return w.err
	}
}

// lead stands in for the log's goroutine. A panic of what the user hung in, which the
// writer may recover from, ends all writing, and the rest of the group is told that
// nobody knows how far it came.
func (t *Tree) lead() {
	done := false
	defer func() {
		if !done {
			err := t.fail(errors.New("lsm: a writer panicked while it committed a group"))
			t.completeRest(fmt.Errorf("%w: %w", ErrUncertain, err))
		}
		t.queue.HandBack(!t.company)
	}()
	t.commitNext()
	done = true
}

// appendLazy hands a batch to the log and shows it at once, so that its writer
// need not wait for anybody.
//
// Invariant: the memtable is entered before the batch is in the buffer, so that
// the batch goes to this memtable's segments or to later ones, never to earlier
// ones, which are released sooner.
func (t *Tree) appendLazy(e wal.Entry) error {
	e.Applied = true
	m := t.enter()
	err := t.queue.Append(e)
	if err == nil {
		slot := 0
		if len(e.Batch) > 0 {
			slot = int(e.Batch[0].Token % readSlots)
		}
		if v := t.acquire(slot); v != nil {
			for i := range e.Batch {
				r := &e.Batch[i]
				newer := m.Apply(r)
				t.showCached(r)
				if d := v.newer(t, r); newer.Less(d) {
					newer = d
				}
				r.Newer = newer
			}
			t.release(v, slot)
		}
	}
	t.leave(m)
	return err
}

// enter announces a writer to the active memtable.
func (t *Tree) enter() *mem {
	for {
		m := t.active.Load()
		if m.Enter() {
			return m
		}
		t.leave(m)
	}
}

func (t *Tree) leave(m *mem) {
	if m.Leave() {
		kick(t.flushKick)
	}
}

// check verifies a batch, brings it into normal form, and gives its size in the
// log.
func (t *Tree) check(batch []Record) (size int, err error) {
	for i := range batch {
		r := &batch[i]
		r.Newer = vclock.Dot{}
		switch {
		case len(r.Key) == 0:
			return 0, fmt.Errorf("%w: empty key", ErrInvalid)
		case len(r.Key) > MaxKeyBytes:
			return 0, fmt.Errorf("%w: %d", ErrKeyTooLarge, len(r.Key))
		case len(r.Value) > MaxValueBytes:
			return 0, fmt.Errorf("%w: %d", ErrValueTooLarge, len(r.Value))
		case r.Kind == Causal:
			if err := t.normalize(r); err != nil {
				return 0, fmt.Errorf("%w: causal record: %w", ErrInvalid, err)
			}
		case r.Kind != Value && r.Kind != Tombstone:
			return 0, fmt.Errorf("%w: record of kind %d", ErrInvalid, r.Kind)
		case r.Max.IsZero() || r.Min != r.Max:
			return 0, fmt.Errorf("%w: a plain record has one dot, in both Min and Max", ErrInvalid)
		case r.Kind == Tombstone && len(r.Value) != 0:
			return 0, fmt.Errorf("%w: a tombstone with a value", ErrInvalid)
		}
		size += base.EncodedLen(r)
	}
	if size > MaxBatchBytes {
		return 0, fmt.Errorf("%w: a batch of %d bytes, the limit is %d", ErrInvalid, size, MaxBatchBytes)
	}
	return size, nil
}
