package manifest

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/table"
	"example.com/kvstore/vclock"
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

// A Part is what a file holds of a range of tokens.
type Part struct {
	File uint64 // number of a table, or of a log segment
	base.Span
}

// Damage is a part that is lost: the file was set aside.
type Damage struct {
	Part
	MaxDot vclock.Dot // no record that was lost had a dot above it
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
	NextFile uint64      // above the number of every table
	LogFrom  uint64      // first commit log segment whose records may be missing from the tables; 0 before the first
	LogEnd   base.LogEnd // counts unless it is below LogFrom
	// Tables are ordered by slice, level, run (newest first) and first token.
	Tables []Table
	// Damaged is what was lost and has not been healed, by file and token.
	Damaged []Damage
	// Dropped are the ranges of live tables, by file number, whose records are
	// no more. They go with the table.
	Dropped map[uint64]base.Spans
}

// An Edit changes a State, as a whole or not at all.
type Edit struct {
	Add      []Table
	Remove   []uint64    // file numbers
	Heal     []Part      // what is damage no longer, whether it was or not
	Damage   []Damage    // after Heal
	Drop     []Part      // of tables that are live after the edit
	NextFile uint64      // 0 or lower than before: unchanged
	LogFrom  uint64      // 0 or lower than before: unchanged
	LogEnd   base.LogEnd // segment 0 or lower than before: unchanged
}

// Places says of each table, by file number, whether it is cold. The map is made by
// the call.
func (s *State) Places() map[uint64]bool {
	cold := make(map[uint64]bool, len(s.Tables))
	for i := range s.Tables {
		cold[s.Tables[i].ID] = s.Tables[i].Cold
	}
	return cold
}

// draft is a State under construction: its tables are in live, not in Tables.
type draft struct {
	State
	live map[uint64]Table
	lost map[uint64]loss // in Damaged once published
	gone map[uint64]base.Spans
}

// A loss is the damage of one file.
type loss struct {
	spans  base.Spans
	maxDot vclock.Dot
}

func newDraft(p Params) *draft {
	return &draft{
		State: State{Params: p, NextFile: 1},
		live:  make(map[uint64]Table), lost: make(map[uint64]loss), gone: make(map[uint64]base.Spans),
	}
}

// check says why e cannot be applied, if so.
func (d *draft) check(e Edit) error {
	removed := make(map[uint64]bool, len(e.Remove))
	for _, id := range e.Remove {
		if _, ok := d.live[id]; !ok || removed[id] {
			return fmt.Errorf("manifest: edit removes table %d, which is not live", id)
		}
		removed[id] = true
	}
	added := make(map[uint64]bool, len(e.Add))
	for _, t := range e.Add {
		if _, ok := d.live[t.ID]; ok && !removed[t.ID] || added[t.ID] {
			return fmt.Errorf("manifest: edit adds table %d, which is live", t.ID)
		}
		if t.ID == math.MaxUint64 || t.Slice >= d.Slices || t.Level > MaxLevel {
			return fmt.Errorf("manifest: edit adds table %d on slice %d and level %d: outside of %d slices and %d levels",
				t.ID, t.Slice, t.Level, d.Slices, MaxLevel+1)
		}
		added[t.ID] = true
	}
	for _, p := range e.Drop {
		if _, ok := d.live[p.File]; (!ok || removed[p.File]) && !added[p.File] {
			return fmt.Errorf("manifest: edit drops a range of table %d, which is not live", p.File)
		}
	}
	parts := slices.Concat(e.Heal, e.Drop)
	for _, x := range e.Damage {
		parts = append(parts, x.Part)
	}
	for _, p := range parts {
		if p.Lo > p.Hi {
			return fmt.Errorf("manifest: edit has a range from %016x to %016x", p.Lo, p.Hi)
		}
	}
	return nil
}

// apply applies an edit that passed check: removals, then additions, then what
// is about their parts.
func (d *draft) apply(e Edit) {
	d.NextFile, d.LogFrom = max(d.NextFile, e.NextFile), max(d.LogFrom, e.LogFrom)
	if e.LogEnd.Segment >= d.LogEnd.Segment && e.LogEnd.Segment != 0 {
		d.LogEnd = e.LogEnd
	}
	for _, id := range e.Remove {
		delete(d.live, id)
		delete(d.gone, id)
	}
	for _, t := range e.Add {
		d.live[t.ID] = t
		d.NextFile = max(d.NextFile, t.ID+1)
	}
	for _, p := range e.Heal {
		l := d.lost[p.File]
		if l.spans = l.spans.Without(p.Span); len(l.spans) == 0 {
			delete(d.lost, p.File)
		} else {
			d.lost[p.File] = l
		}
	}
	for _, x := range e.Damage {
		l := d.lost[x.File]
		l.spans = l.spans.With(x.Span)
		if l.maxDot.Less(x.MaxDot) {
			l.maxDot = x.MaxDot
		}
		d.lost[x.File] = l
	}
	for _, p := range e.Drop {
		d.gone[p.File] = d.gone[p.File].With(p.Span)
	}
}

// publish gives the State, which shares nothing that changes with the draft.
func (d *draft) publish() *State {
	s := d.State
	s.Tables = slices.SortedFunc(maps.Values(d.live), compareTables)
	for _, id := range slices.Sorted(maps.Keys(d.lost)) {
		for _, span := range d.lost[id].spans {
			s.Damaged = append(s.Damaged, Damage{Part{id, span}, d.lost[id].maxDot})
		}
	}
	if len(d.gone) > 0 {
		s.Dropped = maps.Clone(d.gone)
	}
	return &s
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
