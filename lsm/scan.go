package lsm

import (
	"iter"
	"slices"

	"example.com/kvstore/vclock"
)

// Scan gives the records with tokens from lo to hi, both included, in (token,
// key) order, deleted keys too: all that was in the tree at one instant during
// the first step. A record's slices are valid until the next step. After an
// error the scan ends; so it does, with ErrCorrupt, where a damaged range begins.
// It holds on to the tables that it reads until it ends.
func (t *Tree) Scan(lo, hi uint64) iter.Seq2[Record, error] {
	return t.scan(lo, hi, vclock.Dot{}, false)
}

// ScanAbove is a Scan that skips tables without any dot above floor, and does not
// even open them. So it gives every key whose record has a dot above floor, and
// some others; a causal record may lack siblings at or below floor, which are in a
// table that was skipped.
func (t *Tree) ScanAbove(lo, hi uint64, floor vclock.Dot) iter.Seq2[Record, error] {
	return t.scan(lo, hi, floor, false)
}

// Salvage is Scan without regard to damaged ranges: it gives what is left of
// them.
func (t *Tree) Salvage(lo, hi uint64) iter.Seq2[Record, error] {
	return t.scan(lo, hi, vclock.Dot{}, true)
}

func (t *Tree) scan(lo, hi uint64, floor vclock.Dot, salvage bool) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		v := t.acquire(0)
		if v == nil {
			yield(Record{}, ErrClosed)
			return
		}
		defer t.release(v, 0)
		lost, damaged := v.firstLost(lo, hi)
		if damaged && !salvage {
			if lost.Lo == lo {
				yield(Record{}, lost.err())
				return
			}
			hi = lost.Lo - 1
		}
		var cursors []cursor
		defer func() {
			for _, c := range cursors {
				c.Close()
			}
		}()
		for _, m := range v.mems {
			cursors = append(cursors, &viewCursor{view: m.View(lo, hi)})
		}
		for s := t.slice(lo); lo <= hi && s <= t.slice(hi); s++ {
			for _, u := range v.slices[s] {
				files := slices.DeleteFunc(slices.Clone(u.between(lo, hi)), func(f *tableFile) bool { return !floor.Less(f.MaxDot) })
				cursors = append(cursors, &runCursor{v: v, files: files, lo: lo, hi: hi})
			}
		}
		m := t.newMerger(cursors)
		for m.Next() {
			if t.closing.Load() {
				yield(Record{}, ErrClosed)
				return
			}
			if !yield(*m.Record(), nil) {
				return
			}
		}
		switch err := m.Err(); {
		case err != nil:
			yield(Record{}, err)
		case damaged && !salvage:
			yield(Record{}, lost.err())
		}
	}
}
