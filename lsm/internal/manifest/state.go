package manifest

import (
	"cmp"
	"fmt"
	"slices"

	"example.com/kvstore/lsm/internal/table"
)

// MaxLevel is the highest level a table may be on.
const MaxLevel = 63

// A Table is a live table file and its place in the tree.
type Table struct {
	table.Meta
	Slice uint32 // token slice, below Params.Slices
	Level uint8  // 0 holds flushed tables
	Run   uint64 // tables of one slice, level and run do not overlap
	Cold  bool   // the file is in the second directory
}

// Params are fixed when a directory is created.
type Params struct {
	Directory [16]byte // random; tells copies of different directories apart
	Slices    uint32   // token slices, 1 to MaxSlices
}

// MaxSlices bounds Params.Slices.
const MaxSlices = 1 << 16

// State is what a manifest says. A State is never changed once published:
// treat it as read-only.
type State struct {
	Params
	NextFile uint64 // above the number of every table
	LogFrom  uint64 // first commit log segment whose records may be missing from the tables; 0 before the first
	// Tables are ordered by slice, level, run (newest first) and first token.
	Tables []Table
}

// An Edit changes a State, as a whole or not at all.
type Edit struct {
	Add      []Table
	Remove   []uint64 // file numbers
	NextFile uint64   // 0 or lower than before: unchanged
	LogFrom  uint64   // 0 or lower than before: unchanged
}

// Find gives the table with the file number.
func (s *State) Find(id uint64) (Table, bool) {
	i := slices.IndexFunc(s.Tables, func(t Table) bool { return t.ID == id })
	if i < 0 {
		return Table{}, false
	}
	return s.Tables[i], true
}

// apply gives the state after e and leaves s as it is.
func (s *State) apply(e Edit) (*State, error) {
	next := *s
	next.NextFile = max(s.NextFile, e.NextFile)
	next.LogFrom = max(s.LogFrom, e.LogFrom)
	live := make(map[uint64]int, len(s.Tables)+len(e.Add))
	for i, t := range s.Tables {
		live[t.ID] = i
	}
	for _, id := range e.Remove {
		if _, ok := live[id]; !ok {
			return nil, fmt.Errorf("manifest: edit removes table %d, which is not live", id)
		}
		delete(live, id)
	}
	next.Tables = make([]Table, 0, len(live)+len(e.Add))
	for i, t := range s.Tables {
		if j, ok := live[t.ID]; ok && i == j {
			next.Tables = append(next.Tables, t)
		}
	}
	for _, t := range e.Add {
		if _, ok := live[t.ID]; ok {
			return nil, fmt.Errorf("manifest: edit adds table %d, which is live", t.ID)
		}
		if t.Slice >= s.Slices || t.Level > MaxLevel || t.ID == ^uint64(0) {
			return nil, fmt.Errorf("manifest: edit adds table %d on slice %d, level %d: outside the directory's %d slices and %d levels",
				t.ID, t.Slice, t.Level, s.Slices, MaxLevel+1)
		}
		live[t.ID] = -1
		next.Tables = append(next.Tables, t)
		next.NextFile = max(next.NextFile, t.ID+1)
	}
	slices.SortFunc(next.Tables, compareTables)
	return &next, nil
}

func compareTables(a, b Table) int {
	return cmp.Or(
		cmp.Compare(a.Slice, b.Slice),
		cmp.Compare(a.Level, b.Level),
		cmp.Compare(b.Run, a.Run),
		cmp.Compare(a.MinToken, b.MinToken),
		cmp.Compare(a.ID, b.ID),
	)
}
