package lsm

import (
	"cmp"
	"iter"
	"slices"
	"sort"

	"example.com/kvstore/lsm/internal/compaction"
	"example.com/kvstore/vclock"
)

// A run is a sequence of tables of one slice that do not overlap: a token is in
// one of them. It is never changed, and the same in all versions that have it.
type run struct {
	level  uint8
	files  []*tableFile // ascending by token, at least one
	maxDot vclock.Dot   // the highest of any
	bytes  uint64
}

// runsOf makes runs of the tables of one slice.
func runsOf(files []*tableFile) []*run {
	slices.SortFunc(files, func(a, b *tableFile) int {
		return cmp.Or(cmp.Compare(a.Level, b.Level), cmp.Compare(a.Run, b.Run), cmp.Compare(a.MinToken, b.MinToken))
	})
	var runs []*run
	for _, f := range files {
		n := len(runs)
		if n == 0 || runs[n-1].level != f.Level || runs[n-1].files[0].Run != f.Run {
			runs, n = append(runs, &run{level: f.Level}), n+1
		}
		r := runs[n-1]
		r.files = append(r.files, f)
		r.bytes += f.Bytes
		if r.maxDot.Less(f.MaxDot) {
			r.maxDot = f.MaxDot
		}
	}
	return runs
}

// find gives the table that may hold the token, or nil.
func (r *run) find(token uint64) *tableFile {
	i := 0
	if len(r.files) > 1 {
		i = sort.Search(len(r.files), func(i int) bool { return r.files[i].MaxToken >= token })
	}
	if i == len(r.files) || !r.files[i].covers(token) {
		return nil
	}
	return r.files[i]
}

// between gives the tables that may hold tokens from lo to hi.
func (r *run) between(lo, hi uint64) []*tableFile {
	i := sort.Search(len(r.files), func(i int) bool { return r.files[i].MaxToken >= lo })
	j := i + sort.Search(len(r.files)-i, func(j int) bool { return r.files[i+j].MinToken > hi })
	return r.files[i:j]
}

// tables gives all tables of a version.
func (v *version) tables() iter.Seq[*tableFile] {
	return func(yield func(*tableFile) bool) {
		for _, s := range v.slices {
			for _, r := range s {
				for _, f := range r.files {
					if !yield(f) {
						return
					}
				}
			}
		}
	}
}

// current reports whether the tree has all of the runs. Who has the turn to edit
// can rely on it.
func (t *Tree) current(runs ...*run) bool {
	v := t.acquire(0)
	if v == nil {
		return false
	}
	defer t.release(v, 0)
	return !slices.ContainsFunc(runs, func(r *run) bool { return !slices.Contains(v.slices[r.files[0].Slice], r) })
}

// runOf gives the run that has the table in the current version, or nil.
func (t *Tree) runOf(f *tableFile) *run {
	v := t.acquire(0)
	if v == nil {
		return nil
	}
	defer t.release(v, 0)
	for _, r := range v.slices[f.Slice] {
		if slices.Contains(r.files, f) {
			return r
		}
	}
	return nil
}

// exchange puts other tables in the place of one in a run.
func (v *version) exchange(r *run, f *tableFile, by ...*tableFile) {
	for _, other := range r.files {
		if other != f {
			by = append(by, other)
		}
	}
	v.replace([]*run{r}, by)
}

// shapes describes a version to package compaction. It asks for the horizon.
func (t *Tree) shapes(v *version) [][]compaction.Run {
	all := make([][]compaction.Run, len(v.slices))
	for i, s := range v.slices {
		all[i] = make([]compaction.Run, len(s))
		for j, r := range s {
			c := compaction.Run{Level: r.level, Bytes: r.bytes}
			for _, f := range r.files {
				c.Records += f.Count
				c.Purgeable += min(f.Count, t.purgeableIn(f)+v.droppedIn(f))
			}
			all[i][j] = c
		}
	}
	return all
}

// purgeableIn estimates the records of a table that a merge of its whole slice
// would drop: none before the horizon is past the table, and none in a table
// that came out of such a merge, which has dropped what it could, until the horizon
// is past what that kept.
func (t *Tree) purgeableIn(f *tableFile) uint64 {
	if f.Tombstones+f.Expiring == 0 || f.purged && !t.arrived(f.awaits) || f.strayed() {
		return 0
	}
	if t.o.Horizon == nil {
		return f.Tombstones
	}
	h := t.horizon(&f.Table)
	if h.Less(f.MaxDot) {
		return 0
	}
	n := f.Tombstones
	if f.Expiring > 0 && passed(f.MaxDeadline, h) {
		n += f.Expiring
	}
	return min(n, f.Count)
}

// arrived reports whether the horizon is past what a merge kept for it.
func (t *Tree) arrived(a awaited) bool {
	return !a.dot.IsZero() && !t.o.Horizon(a.token).Less(a.dot)
}
