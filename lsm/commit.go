package lsm

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/wal"
)

// maxSegments bounds the log segments behind one memtable: each Open adds one.
const maxSegments = 8

// A rotation asks logLoop to seal the active memtable.
type rotation struct {
	force bool          // also if the memtable is empty
	m     *mem          // the newest sealed one; nil when everything is in tables
	err   error         // set before ready is closed, like m
	ready chan struct{} // closed by logLoop
}

// A syncTimer tells logLoop when SyncEvery asks for a sync.
type syncTimer struct {
	timer *time.Timer // nil unless the policy is SyncEvery
	armed bool
	due   atomic.Bool // set by the timer
}

// logLoop is the log's goroutine: it takes whatever was submitted, writes and
// syncs it as one group, shows it, and completes it. The log's Writer and the
// active memtable's place in the log are its own, but while a lone writer stands
// in for it.
func (t *Tree) logLoop() {
	defer t.background.Done()
	for {
		if !t.closing.Load() {
			t.queue.Wait(!t.company)
		}
		if t.company {
			// The writers that the last group woke are about to submit again:
			// let them, one sync then serves them all.
			runtime.Gosched()
			runtime.Gosched()
		}
		last := t.closing.Load()
		if some := t.commitNext(); last && !some || t.failure() != nil {
			break
		}
	}
	// Nothing is appended any more: Close and fail close the queue before they
	// say so. Only a failure leaves something in it.
	t.queue.Take()
	t.completeRest(t.failure())
	if t.sync.timer != nil {
		t.sync.timer.Stop()
	}
	if err := t.log.Close(); err != nil && t.failure() == nil {
		t.fail(err)
	}
	t.mu.Lock()
	t.mu.logDone = true
	t.mu.Unlock()
	err := t.failure()
	if err == nil {
		err = ErrClosed
	}
	t.answerRotations(nil, err)
}

// commitNext commits what was submitted since the last call, if anything.
func (t *Tree) commitNext() (some bool) {
	t.regulate()
	refused := t.rotateIfDue()
	for t.waitForSpace(&wal.Group{}, refused) {
		refused = t.rotateIfDue()
	}
	g := t.queue.Take()
	t.company = len(g.Entries) > 1
	t.commit(g, refused)
	return len(g.Entries) > 0
}

// waitForSpace is for a lazy policy, under which what was accepted cannot be refused any
// more: where that finds the volume full, g or what is still in the queue, it waits for
// room. Whoever writes or flushes meanwhile is refused, and so is who waits for the group.
// It reports whether to try again.
func (t *Tree) waitForSpace(g *wal.Group, err error) bool {
	full := t.o.Sync.lazy && errors.Is(err, ErrNoSpace) && t.log.Err() == nil && t.failure() == nil && !t.closing.Load()
	if full != t.refusing.Load() {
		t.refusing.Store(full)
		if full {
			t.noSpace("group of the log", err)
		}
	}
	if !full {
		return false
	}
	for _, e := range append(g.Drop(), t.queue.Drop()...) {
		complete(&e, errLogFull)
	}
	t.queue.Unpark() // again and again: one may have looked at refusing before
	t.answerRotations(nil, err)
	if t.o.GroupDone != nil {
		t.o.GroupDone()
	}
	timer := time.NewTimer(retryAfter)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.room:
	case <-t.failed:
	case <-t.ending:
	}
	return true
}

// complete tells the outcome of an entry, once.
func complete(e *wal.Entry, err error) {
	if done := e.Done; done != nil {
		e.Done = nil
		done(err)
	}
}

// commit carries a group through write, sync, memtable and completions. With
// refused not nil there was no place for it.
func (t *Tree) commit(g wal.Group, refused error) {
	lazy := t.o.Sync.lazy
	if lazy && refused == nil {
		t.show(g, func(e *wal.Entry) bool { return !e.Sync && !e.Applied })
		t.completeAll(g, false, nil)
	}
	if !base.Defences.GroupVisible && !lazy && refused == nil {
		t.show(g, func(*wal.Entry) bool { return true })
	}
	err := refused
	if err == nil {
		for err = t.persist(g); t.waitForSpace(&g, err); {
			err = t.persist(g)
		}
	}
	if err == nil {
		err = t.failure() // of something else meanwhile
	}
	if err != nil && (lazy || t.log.Err() != nil || !errors.Is(err, ErrNoSpace)) && base.Defences.FailedSync {
		// What was accepted under a lazy policy cannot be refused any more; and
		// nothing may follow a failed sync.
		err = t.fail(err)
		if refused == nil {
			err = fmt.Errorf("%w: %w", ErrUncertain, err)
		}
	}
	if err == nil {
		t.show(g, func(e *wal.Entry) bool { return !lazy || e.Sync })
	}
	t.completeAll(g, true, err)
	if !lazy || refused != nil {
		t.completeAll(g, false, err)
	}
	if t.o.GroupDone != nil && len(g.Entries) > 0 {
		t.o.GroupDone()
	}
}

// completeRest completes what is left of the last group.
func (t *Tree) completeRest(err error) {
	g := t.queue.Taken()
	for i := range g.Entries {
		complete(&g.Entries[i], err)
	}
}

// completeAll completes the entries that wait for a sync whatever the policy, or
// the others.
func (t *Tree) completeAll(g wal.Group, sync bool, err error) {
	for i := range g.Entries {
		if g.Entries[i].Sync == sync {
			complete(&g.Entries[i], err)
		}
	}
}

// persist writes the group and syncs it if anything asks for that.
func (t *Tree) persist(g wal.Group) error {
	if len(g.Bytes) > wal.GroupHeaderBytes {
		if err := t.log.Write(g.Bytes); err != nil {
			return err
		}
		t.stats.groups.Add(1)
		t.stats.logBytes.Add(uint64(len(g.Bytes)))
		t.stats.batches.Add(uint64(len(g.Entries)))
	}
	due := !t.o.Sync.lazy || slices.ContainsFunc(g.Entries, func(e wal.Entry) bool { return e.Sync })
	if t.sync.due.Swap(false) {
		t.sync.armed, due = false, true
	}
	if due && t.log.Unsynced() {
		if err := t.log.Sync(); err != nil {
			return err
		}
		t.stats.syncs.Add(1)
	}
	if t.sync.timer != nil && t.log.Unsynced() && !t.sync.armed {
		t.sync.armed = true
		t.sync.timer.Reset(t.o.Sync.every)
	}
	return nil
}

// show joins the records of the chosen entries into the active memtable, in
// order, and sets their Newer.
func (t *Tree) show(g wal.Group, chosen func(*wal.Entry) bool) {
	m, v := t.active.Load(), t.acquire(0)
	defer t.release(v, 0)
	b := g.Bytes[wal.GroupHeaderBytes:]
	for i := range g.Entries {
		e := &g.Entries[i]
		take := chosen(e)
		for j := range e.Batch {
			r, n, err := base.DecodeRecord(b)
			if err != nil {
				panic(fmt.Sprintf("lsm: a record in the log's buffer: %v", err))
			}
			b = b[n:]
			if !take {
				continue
			}
			newer := m.Apply(&r)
			t.showCached(&r)
			if d := v.newer(t, &r); newer.Less(d) {
				newer = d
			}
			e.Batch[j].Newer = newer
		}
	}
}

// rotateIfDue begins a new memtable and segment when the active one is full or a
// rotation was asked for. An error says why nothing can be written now.
func (t *Tree) rotateIfDue() error {
	t.mu.Lock()
	asked := len(t.mu.rotations) > 0
	forced := slices.ContainsFunc(t.mu.rotations, func(r *rotation) bool { return r.force })
	t.mu.Unlock()
	m := t.active.Load()
	over := m.Full() || t.log.Bytes() >= t.o.MemtableBytes || m.segments > maxSegments
	if !asked && !over {
		return nil
	}
	if m.Count() == 0 && !over && !forced {
		t.answerRotations(t.newestSealed(), nil)
		return nil
	}
	err := t.waitForRoom()
	if err == nil && !t.closing.Load() {
		if err = t.rotate(); t.log.Err() != nil {
			err = t.fail(err)
		}
	}
	if asked {
		if err == nil && t.closing.Load() {
			err = ErrClosed
		}
		t.answerRotations(t.newestSealed(), err)
	}
	if errors.Is(err, ErrClosed) || !over || errors.Is(err, ErrNoSpace) && t.closing.Load() {
		return nil // the segment that is there takes the group
	}
	return err
}

// waitForRoom blocks while too many memtables wait to be flushed. Writers then
// wait in turn, or are refused, when the log's buffer is full.
func (t *Tree) waitForRoom() error {
	for {
		v := t.acquire(0)
		n := len(v.mems)
		t.release(v, 0)
		switch {
		case n < t.o.MaxMemtables || t.closing.Load():
			return nil
		case t.failure() != nil:
			return t.failure()
		case t.full.Load():
			return fmt.Errorf("lsm: flushing a memtable: %w", ErrNoSpace)
		}
		t.stall()
	}
}

// stall waits until a flush has made room, or has failed to.
func (t *Tree) stall() {
	i := StallInfo{Reason: "memtables wait to be flushed"}
	if t.crowded() {
		i.Reason = "a slice has too many runs"
	}
	t.stats.stalls.Add(1)
	began := t.elapsed()
	tell(t.o.Events.StallBegan, i)
	<-t.room
	i.Took = t.elapsed() - began
	t.stats.stalled.Add(uint64(i.Took))
	tell(t.o.Events.StallEnded, i)
}

// rotate seals the active memtable and puts an empty one, with a segment of its
// own, before it.
func (t *Tree) rotate() error {
	i := LogInfo{Segment: t.log.Segment(), Bytes: t.log.Bytes()}
	if err := t.log.Rotate(make([]byte, wal.GroupHeaderBytes)); err != nil {
		return err
	}
	i.Next = t.log.Segment()
	tell(t.o.Events.LogRotated, i)
	old, now := t.active.Load(), t.elapsed()
	t.load.filled.Store(int64(now - t.load.rotated))
	t.load.rotated = now
	m := t.newMem(t.log.Segment(), old.Count())
	t.change(func(v *version) { v.mems = slices.Insert(v.mems, 0, m) })
	t.active.Store(m)
	old.Seal()
	kick(t.flushKick)
	kick(t.prepareKick)
	return nil
}

// prepareLoop makes the next log segment ahead of logLoop.
func (t *Tree) prepareLoop() {
	defer t.workers.Done()
	for !t.stopped.Load() && t.failure() == nil {
		if err := t.log.Prepare(); err != nil && !errors.Is(err, ErrNoSpace) {
			t.fail(err)
		}
		select {
		case <-t.prepareKick:
		case <-t.failed:
		case <-t.stopping:
		}
	}
}

func (t *Tree) newestSealed() *mem {
	v := t.acquire(0)
	defer t.release(v, 0)
	if len(v.mems) < 2 {
		return nil
	}
	return v.mems[1]
}

func (t *Tree) answerRotations(m *mem, err error) {
	t.mu.Lock()
	rotations := t.mu.rotations
	t.mu.rotations = nil
	t.mu.Unlock()
	if m != nil {
		m.awaited.Store(true)
	}
	for _, r := range rotations {
		r.m, r.err = m, err
		close(r.ready)
	}
}
