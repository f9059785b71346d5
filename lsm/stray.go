package lsm

import (
	"slices"

	"example.com/kvstore/lsm/internal/base"
)

// Under a lazy policy a writer shows its records in a memtable by itself, and the
// log's goroutine may take them when that memtable is sealed already: they are
// then in a segment behind those of their memtable. Once the memtable is in tables
// and its segments are released, such strays are in the log still, and Open brings
// them back. They join with what the tables hold, so that it does not show, unless
// what superseded them was purged meanwhile, or their range dropped.
//
// Invariant I5: a table is not purged, nor a range dropped, while the log may hold
// strays of it.

// strays gives the number of the last memtable whose segments may hold strays of
// memtables that all writers have left, which have submitted everything then: the
// log's goroutine takes it after one more rotation at the latest.
func (t *Tree) strays() uint64 {
	if !t.o.Sync.lazy || !base.Defences.PurgeStrays {
		return 0
	}
	return t.active.Load().number + 1
}

// strayed reports whether the log may hold strays of records in the table.
func (f *tableFile) strayed() bool { return f.strays > f.t.flushed.Load() }

func (r *run) strayed() bool { return slices.ContainsFunc(r.files, (*tableFile).strayed) }

// strays gives the highest of the tables in runs.
func strays(runs []*run) (last uint64) {
	for _, r := range runs {
		for _, f := range r.files {
			last = max(last, f.strays)
		}
	}
	return last
}

// flushStrays is Flush, after which the log does not hold strays either of what
// was written before the call.
func (t *Tree) flushStrays() error {
	err := t.Flush()
	for last := t.strays(); err == nil && t.flushed.Load() < last; {
		err = t.flushAll(true)
	}
	return err
}
