package lsm

import (
	"context"
	"slices"

	"example.com/kvstore/lsm/internal/compaction"
)

// A merge is a call of Compact. Its fields are guarded by Tree.mu until ready is
// closed.
type merge struct {
	ctx     context.Context
	todo    []int // slices that are still to be merged
	running int   // compactions for it
	err     error
	ready   chan struct{} // closed when todo is empty and nothing is running
}

func (m *merge) failLocked(err error) {
	if err != nil && m.err == nil {
		m.err = err
		m.todo = nil
	}
}

// Compact flushes, and merges everything into one run for each slice. What the
// tables hold then depends on the records alone, and not on when they came. It
// is for tests and benchmarks.
func (t *Tree) Compact(ctx context.Context) error {
	if err := t.Flush(); err != nil {
		return err
	}
	m := &merge{ctx: ctx, ready: make(chan struct{})}
	for s := range 1 << (64 - t.sliceShift) {
		m.todo = append(m.todo, s)
	}
	t.mu.Lock()
	closed := t.mu.closed
	if !closed {
		t.mu.merges = append(t.mu.merges, m)
	}
	t.mu.Unlock()
	if closed {
		return ErrClosed
	}
	kick(t.compactKick)
	select {
	case <-m.ready:
		return m.err
	case <-ctx.Done():
		return ctx.Err()
	case <-t.stopping:
		return ErrClosed
	}
}

// mergeLocked gives the next compaction that Compact asked for. A slice waits
// until nothing in it is busy.
func (t *Tree) mergeLocked(v *version) *job {
	for _, m := range t.mu.merges {
		for i := 0; i < len(m.todo); i++ {
			s := m.todo[i]
			runs := v.slices[s]
			if slices.ContainsFunc(runs, func(r *run) bool { return t.mu.busy[r] }) {
				continue
			}
			m.todo = slices.Delete(m.todo, i, i+1)
			if v.settled(runs) {
				i--
				continue
			}
			m.running++
			return &job{slice: s, runs: runs, level: compaction.Bottom, merge: m}
		}
	}
	return nil
}

// settled reports whether a merge of the runs would give what is there.
func (v *version) settled(runs []*run) bool {
	if len(runs) == 0 {
		return true
	}
	return len(runs) == 1 && runs[0].level == compaction.Bottom && !slices.ContainsFunc(runs[0].files, func(f *tableFile) bool {
		return f.Tombstones+f.Expiring > 0 || len(v.dropped[f.ID]) > 0
	})
}

// heldLocked reports whether Compact waits for a slice.
func (t *Tree) heldLocked(slice int) bool {
	return slices.ContainsFunc(t.mu.merges, func(m *merge) bool { return slices.Contains(m.todo, slice) })
}

// answerMerges ends the calls of Compact that are done, or cannot be.
func (t *Tree) answerMerges() {
	failure := t.failure()
	if failure == nil && t.stopped.Load() {
		failure = ErrClosed
	}
	t.mu.Lock()
	var done []*merge
	t.mu.merges = slices.DeleteFunc(t.mu.merges, func(m *merge) bool {
		m.failLocked(m.ctx.Err())
		m.failLocked(failure)
		if len(m.todo) > 0 || m.running > 0 {
			return false
		}
		done = append(done, m)
		return true
	})
	t.mu.Unlock()
	for _, m := range done {
		close(m.ready)
	}
}
