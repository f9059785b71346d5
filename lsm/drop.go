package lsm

import (
	"fmt"
	"slices"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/manifest"
)

// DropRange removes all records with tokens from lo to hi, both included, that
// were written before it began; readers see all of that or nothing. It is durable
// on return. The range is not damaged then either. Records that are written later
// stay, also those that were there before. Tables that lie within the range are
// deleted, the others lose its records when they are next compacted.
func (t *Tree) DropRange(lo, hi uint64) error {
	if lo > hi {
		return fmt.Errorf("%w: a range of tokens from %016x to %016x", ErrInvalid, lo, hi)
	}
	if !t.hold() {
		return ErrClosed
	}
	defer t.letGo()
	// What is in memory and in the log goes to tables first: then recovery has
	// nothing left that could bring it back.
	if err := t.flushStrays(); err != nil {
		return err
	}
	t.edits <- struct{}{}
	defer func() { <-t.edits }()
	if err := t.writable(); err != nil {
		return err
	}
	d := t.planDrop(base.Span{Lo: lo, Hi: hi})
	if d.empty() {
		return nil
	}
	defer kick(t.compactKick)
	return t.changeBelow(stale{lo: lo, hi: hi}, func() error { return t.editHeld(d.edit, d.change) })
}

// A drop is what a range drop does to a version.
type drop struct {
	edit  manifest.Edit
	runs  []*run       // with tables that change
	whole []*tableFile // tables that go
}

func (d *drop) change(v *version) {
	for _, f := range d.whole {
		f.obsolete.Store(true)
	}
	for _, r := range d.runs {
		v.replace([]*run{r}, slices.DeleteFunc(slices.Clone(r.files), func(f *tableFile) bool {
			return slices.Contains(d.whole, f)
		}))
	}
}

func (d *drop) empty() bool { return len(d.runs) == 0 && len(d.edit.Heal) == 0 }

// planDrop is for who has the turn to edit. Runs of which a part is dropped are
// made anew, so that a compaction that reads them with the part has no effect.
func (t *Tree) planDrop(span base.Span) *drop {
	d := &drop{}
	state := t.manifest.State()
	for _, x := range state.Damaged {
		if x.Meets(span) {
			d.edit.Heal = append(d.edit.Heal, manifest.Part{File: x.File, Span: span})
		}
	}
	v := t.acquire(0)
	defer t.release(v, 0)
	for _, s := range v.slices {
		for _, r := range s {
			before := len(d.edit.Drop) + len(d.whole)
			for _, f := range r.between(span.Lo, span.Hi) {
				switch left := f.left(v.dropped[f.ID]); {
				case len(left.Without(span)) == 0:
					d.whole = append(d.whole, f)
					d.edit.Remove = append(d.edit.Remove, f.ID)
				case !slices.Equal(left, left.Without(span)):
					d.edit.Drop = append(d.edit.Drop, manifest.Part{File: f.ID, Span: span})
				}
			}
			if len(d.edit.Drop)+len(d.whole) > before {
				d.runs = append(d.runs, r)
			}
		}
	}
	return d
}

// span is the range of the table's tokens.
func (f *tableFile) span() base.Span { return base.Span{Lo: f.MinToken, Hi: f.MaxToken} }

// left is the part of its range that is not dropped.
func (f *tableFile) left(dropped base.Spans) base.Spans {
	left := base.Spans{f.span()}
	for _, x := range dropped {
		left = left.Without(x)
	}
	return left
}

// droppedIn estimates the records of a table that were dropped.
func (v *version) droppedIn(f *tableFile) uint64 {
	if len(v.dropped[f.ID]) == 0 {
		return 0
	}
	left := 0.0
	for _, x := range f.left(v.dropped[f.ID]) {
		left += float64(x.Hi-x.Lo) + 1
	}
	return uint64(float64(f.Count) * max(0, 1-left/(float64(f.MaxToken-f.MinToken)+1)))
}

// hides reports whether the token's records in the table were dropped.
func (v *version) hides(f *tableFile, token uint64) bool {
	return v.dropped != nil && v.dropped[f.ID].Contains(token)
}
