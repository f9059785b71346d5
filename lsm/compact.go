package lsm

import (
	"context"
	"errors"
	"math"
	"slices"

	"example.com/kvstore/lsm/internal/manifest"
)

const (
	// mergeWidth is how many tables of one level make a compaction.
	mergeWidth = 4
	// maxRuns bounds the tables of a slice: flushes wait beyond it.
	maxRuns = 24
)

// A merge asks compactLoop to merge each slice into one table.
type merge struct {
	ctx   context.Context
	err   error         // set before ready is closed
	ready chan struct{} // closed by compactLoop
}

// Compact flushes, and merges everything into one table for each slice, for
// tests and benchmarks.
func (t *Tree) Compact(ctx context.Context) error {
	if err := t.Flush(); err != nil {
		return err
	}
	m := &merge{ctx: ctx, ready: make(chan struct{})}
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

// crowded reports whether a slice has so many tables that flushes must wait.
func (t *Tree) crowded() bool {
	v := t.acquire()
	defer t.release(v)
	return slices.ContainsFunc(v.slices, func(s []*tableFile) bool { return len(s) >= maxRuns })
}

// compactLoop merges tables, and deletes those that nobody needs any more.
func (t *Tree) compactLoop() {
	defer t.workers.Done()
	retry := stoppedTimer(func() { kick(t.compactKick) })
	defer retry.Stop()
	for !t.stopped.Load() {
		err := t.sweep()
		if err == nil && t.failure() == nil {
			err = t.compactAll()
		}
		if err = t.judge(err); errors.Is(err, ErrNoSpace) {
			t.o.Logger.Warn("lsm: no space to compact", "error", err)
			retry.Reset(retryAfter)
		}
		t.serveMerges()
		select {
		case <-t.compactKick:
		case <-t.stopping:
		}
	}
	t.serveMerges()
}

// judge ends all writing after an error of a compaction that waiting will not
// cure: without compaction reads and space would get ever worse.
func (t *Tree) judge(err error) error {
	if err == nil || errors.Is(err, ErrClosed) || errors.Is(err, ErrNoSpace) {
		return err
	}
	return t.fail(err)
}

// compactAll compacts until no slice needs it. Under load that may never be, so
// what else this goroutine does is done in between.
func (t *Tree) compactAll() error {
	for again := true; again; {
		again = false
		for slice := range 1 << (64 - t.sliceShift) {
			v := t.acquire()
			tables, level := t.o.pick(v.slices[slice])
			err := t.compact(tables, level)
			t.release(v)
			if err != nil {
				return err
			}
			if len(tables) == 0 {
				continue
			}
			again = true
			if err := t.sweep(); err != nil {
				return err
			}
			t.serveMerges()
		}
	}
	return nil
}

// serveMerges answers calls of Compact.
func (t *Tree) serveMerges() {
	t.mu.Lock()
	merges := t.mu.merges
	t.mu.merges = nil
	t.mu.Unlock()
	for _, m := range merges {
		m.err = t.mergeAll(m.ctx)
		close(m.ready)
	}
}

func (t *Tree) mergeAll(ctx context.Context) error {
	for slice := range 1 << (64 - t.sliceShift) {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case t.stopped.Load():
			return ErrClosed
		case t.failure() != nil:
			return t.failure()
		}
		v := t.acquire()
		tables := v.slices[slice]
		var err error
		if len(tables) > 1 || len(tables) == 1 && tables[0].Tombstones+tables[0].Expiring > 0 {
			err = t.judge(t.compact(tables, above(tables)))
		}
		t.release(v)
		if err != nil {
			return err
		}
	}
	return nil
}

// pick chooses the tables of one slice to merge, and the level of the result.
//
// Tables are tiered: mergeWidth of one level become one of the next. The largest
// is the bottom; when the others together are as large, everything is merged,
// so that at most half of the space is waste. With s bytes in a slice and
// memtables of m there are at most mergeWidth-1 tables on each of about
// log4(s/m) levels.
func pick(tables []*tableFile) (chosen []*tableFile, level uint8) {
	if len(tables) < mergeWidth {
		return nil, 0
	}
	var total, largest uint64
	for _, f := range tables {
		total += f.Bytes
		largest = max(largest, f.Bytes)
	}
	if total-largest >= largest {
		return tables, above(tables)
	}
	for level := range manifest.MaxLevel {
		same := slices.DeleteFunc(slices.Clone(tables), func(f *tableFile) bool { return int(f.Level) != level })
		if len(same) >= mergeWidth {
			return same, above(same)
		}
	}
	return nil, 0
}

// above gives the level over all of the tables.
func above(tables []*tableFile) uint8 {
	top := 0
	for _, f := range tables {
		top = max(top, int(f.Level))
	}
	return uint8(min(top+1, manifest.MaxLevel))
}

// compact replaces tables of one slice by their join. The caller holds a version
// that has them.
func (t *Tree) compact(tables []*tableFile, level uint8) error {
	if len(tables) == 0 {
		return nil
	}
	inputs := map[*tableFile]bool{}
	var cursors []cursor
	edit := manifest.Edit{}
	for _, f := range tables {
		r, err := f.open()
		if err != nil {
			return err
		}
		inputs[f] = true
		cursors = append(cursors, r.Iter(0, math.MaxUint64))
		edit.Remove = append(edit.Remove, f.ID)
		t.stats.readBytes.Add(f.Bytes)
	}
	m := t.newMerger(cursors)
	out := output{t: t, level: level}
	err := t.mergeInto(&out, m, inputs)
	err = errors.Join(err, m.Close())
	if err != nil {
		return out.abandon(err)
	}
	result, err := out.finish()
	if err != nil {
		return out.abandon(err)
	}
	for _, f := range result {
		edit.Add = append(edit.Add, f.Table)
		t.stats.compactedBytes.Add(f.Bytes)
	}
	if err := t.edit(edit); err != nil {
		return out.abandon(err)
	}
	for _, f := range tables {
		f.obsolete.Store(true)
	}
	t.change(func(v *version) {
		v.replace(tables, result, func(f *tableFile) int { return int(f.Slice) })
	})
	t.stats.compactions.Add(1)
	kick(t.flushKick)
	return nil
}

func (t *Tree) mergeInto(out *output, m *merger, inputs map[*tableFile]bool) error {
	for m.Next() {
		if t.stopped.Load() {
			return ErrClosed
		}
		if r := m.Record(); t.purgeable(r, inputs) {
			t.stats.purged.Add(1)
		} else if err := out.add(r); err != nil {
			return err
		}
	}
	return m.Err()
}
