package lsm

import (
	"errors"
	"fmt"
	"math"
	"time"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/manifest"
)

// retryAfter is when a flush or compaction that found no space tries again.
const retryAfter = time.Second

// Flush writes all that is in memory to tables and waits for that. After an
// ErrNoSpace it is all in memory and in the log still.
func (t *Tree) Flush() error { return t.flushAll(false) }

// flushAll is Flush; with force a memtable is flushed also if it is empty, to have
// its log released.
func (t *Tree) flushAll(force bool) error {
	r := &rotation{force: force, ready: make(chan struct{})}
	t.mu.Lock()
	err, refused := t.mu.err, t.mu.refused
	switch {
	case err != nil:
	case t.mu.closed || t.mu.logDone:
		err = ErrClosed
	default:
		t.mu.rotations = append(t.mu.rotations, r)
	}
	t.mu.Unlock()
	if err != nil {
		return err
	}
	t.queue.Kick()
	<-r.ready
	if r.err != nil || r.m == nil {
		return r.err
	}
	kick(t.flushKick) // it may be waiting for room
	select {
	case <-r.m.flushed:
		return nil
	case <-refused:
		return fmt.Errorf("lsm: flushing a memtable: %w", ErrNoSpace)
	case <-t.failed:
		return t.failure()
	case <-t.stopping:
		return ErrClosed
	}
}

// flushLoop writes sealed memtables to tables, oldest first.
func (t *Tree) flushLoop() {
	defer t.workers.Done()
	retry := stoppedTimer(func() { kick(t.flushKick) })
	defer retry.Stop()
	for !t.stopped.Load() && t.failure() == nil {
		if m, next := t.oldestSealed(); m == nil || !m.Quiet() && base.Defences.SealWaits || t.crowded() {
			t.replenish(retry)
			select {
			case <-t.flushKick:
			case <-t.stopping:
			}
		} else if err := t.flush(m, next); errors.Is(err, ErrNoSpace) && t.failure() == nil {
			if t.useReserve() {
				continue
			}
			t.noSpace("flush", err)
			t.refuse()
			retry.Reset(retryAfter)
			select {
			case <-t.flushKick:
			case <-t.stopping:
			}
		} else if err != nil {
			t.fail(err)
		} else {
			t.full.Store(false)
			kick(t.room)
			kick(t.compactKick)
		}
	}
}

// replenish makes the reserve, at the beginning and after it was used, now or
// later.
func (t *Tree) replenish(retry *time.Timer) {
	if t.reserved.Load() {
		if !t.crowded() && t.full.Swap(false) {
			kick(t.room)
		}
		return
	}
	err := t.keepReserve()
	if full := errors.Is(err, ErrNoSpace); t.full.Swap(full) != full {
		kick(t.room)
	}
	if err != nil {
		retry.Reset(retryAfter)
	}
}

// noSpace tells of what found the volume full.
func (t *Tree) noSpace(op string, err error) {
	t.o.Logger.Warn("lsm: no space for a "+op, "error", err)
	tell(t.o.Events.NoSpace, SpaceInfo{op, err})
}

// refuse tells writers and calls of Flush that memtables cannot be flushed for want
// of space. The next flush that succeeds ends that, and so does flushLoop when nothing
// is in its way any more.
func (t *Tree) refuse() {
	t.full.Store(true)
	t.mu.Lock()
	close(t.mu.refused)
	t.mu.refused = make(chan struct{})
	t.mu.Unlock()
	kick(t.room)
}

// oldestSealed gives the memtable to flush, and the one after it.
func (t *Tree) oldestSealed() (m, next *mem) {
	v := t.acquire(0)
	defer t.release(v, 0)
	if n := len(v.mems); n > 1 {
		return v.mems[n-1], v.mems[n-2]
	}
	return nil, nil
}

// flush writes a memtable to one table for each slice that has records, and
// makes the tables part of the tree in one edit, with which the memtable's log
// is no longer needed. The next memtable says where the log goes on.
func (t *Tree) flush(m, next *mem) error {
	began := t.elapsed()
	strays := t.strays()
	out, tables, err := t.writeAll(m, uint64(m.Bytes())>>(64-t.sliceShift))
	if err != nil {
		t.load.flushing.Store(0)
		return out.abandon(err)
	}
	edit := manifest.Edit{LogFrom: next.first}
	raw := int64(0)
	i := FlushInfo{Tables: len(tables), MemtableBytes: m.Bytes()}
	for _, f := range tables {
		f.strays = strays
		edit.Add = append(edit.Add, f.Table)
		t.stats.flushedBytes.Add(f.Bytes)
		i.Records += int(f.Count)
		i.Bytes += f.Bytes
		raw += int64(f.RawBytes + f.Count*recordBytes)
	}
	if !base.Defences.ReleaseLast {
		if err := t.log.Release(next.first); err != nil {
			return err
		}
	}
	err = t.edit(edit, func(v *version) {
		v.mems = v.mems[:len(v.mems)-1]
		v.replace(nil, tables)
	})
	t.load.flushing.Store(0)
	if err != nil {
		return out.abandon(err)
	}
	t.flushed.Store(m.number)
	i.Took = t.elapsed() - began
	t.drained(raw, i.Took-out.spread())
	tell(t.o.Events.Flushed, i)
	t.stats.flushes.Add(1)
	t.rest.now.Store(false)
	t.memory.Keep(math.MaxInt64)
	t.rest.timer.Reset(restAfter)
	close(m.flushed)
	return t.log.Release(next.first)
}

// edit makes an edit of the manifest durable, and then visible in a version that
// change makes. Who edits takes turns, so that while one has the turn manifest and
// version agree, but for the instant between its own edit and its version. After an
// error the edit did not happen, unless the tree has failed.
func (t *Tree) edit(e manifest.Edit, change func(*version)) error {
	t.edits <- struct{}{}
	defer func() { <-t.edits }()
	return t.editHeld(e, change)
}

// editHeld is edit for who has the turn.
func (t *Tree) editHeld(e manifest.Edit, change func(*version)) error {
	e.NextFile = t.nextFile.Load()
	err := t.manifest.Apply(e)
	if errors.Is(err, ErrNoSpace) && t.useReserve() {
		err = t.manifest.Apply(e)
	}
	if err != nil {
		if t.manifest.Apply(manifest.Edit{}) != nil {
			return t.fail(err) // not even an empty edit: the manifest is done
		}
		return err
	}
	state := t.manifest.State()
	t.change(func(v *version) {
		v.takeIn(state)
		if change != nil {
			change(v)
		}
	})
	return nil
}

// number gives the next file number.
func (t *Tree) number() uint64 { return t.nextFile.Add(1) - 1 }
