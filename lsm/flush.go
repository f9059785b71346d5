package lsm

import (
	"errors"
	"math"
	"time"

	"example.com/kvstore/lsm/internal/manifest"
)

// retryAfter is when a flush or compaction that found no space tries again.
const retryAfter = time.Second

// Flush writes all that is in memory to tables and waits for that.
func (t *Tree) Flush() error {
	r := &rotation{ready: make(chan struct{})}
	t.mu.Lock()
	err := t.mu.err
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
	select {
	case <-r.m.flushed:
		return nil
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
		if m, next := t.oldestSealed(); m == nil || !m.Quiet() || t.crowded() {
			select {
			case <-t.flushKick:
			case <-t.stopping:
			}
		} else if err := t.flush(m, next); errors.Is(err, ErrNoSpace) && t.failure() == nil {
			t.o.Logger.Warn("lsm: no space to flush a memtable", "error", err)
			t.full.Store(true)
			kick(t.room)
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

// oldestSealed gives the memtable to flush, and the one after it.
func (t *Tree) oldestSealed() (m, next *mem) {
	v := t.acquire()
	defer t.release(v)
	if n := len(v.mems); n > 1 {
		return v.mems[n-1], v.mems[n-2]
	}
	return nil, nil
}

// flush writes a memtable to one table for each slice that has records, and
// makes the tables part of the tree in one edit, with which the memtable's log
// is no longer needed. The next memtable says where the log goes on.
func (t *Tree) flush(m, next *mem) error {
	view := m.View(0, math.MaxUint64)
	defer view.Close()
	out := output{t: t}
	for i := range view.Len() {
		r := view.At(i)
		if err := out.add(&r); err != nil {
			return out.abandon(err)
		}
	}
	tables, err := out.finish()
	if err != nil {
		return out.abandon(err)
	}
	edit := manifest.Edit{LogFrom: next.first}
	for _, f := range tables {
		edit.Add = append(edit.Add, f.Table)
		t.stats.flushedBytes.Add(f.Bytes)
	}
	if err := t.edit(edit); err != nil {
		return out.abandon(err)
	}
	t.change(func(v *version) {
		v.mems = v.mems[:len(v.mems)-1]
		v.replace(nil, tables)
	})
	t.stats.flushes.Add(1)
	t.rest.now.Store(false)
	t.rest.timer.Reset(restAfter)
	close(m.flushed)
	return t.log.Release(next.first)
}

// edit applies an edit to the manifest. Flushes and compactions take turns. After
// an error the edit did not happen, unless the tree has failed.
func (t *Tree) edit(e manifest.Edit) error {
	t.edits <- struct{}{}
	defer func() { <-t.edits }()
	e.NextFile = t.nextFile.Load()
	err := t.manifest.Apply(e)
	if err != nil && t.manifest.Apply(manifest.Edit{}) != nil {
		return t.fail(err) // not even an empty edit: the manifest is done
	}
	return err
}

// number gives the next file number.
func (t *Tree) number() uint64 { return t.nextFile.Add(1) - 1 }
