package lsm

import (
	"errors"
	"slices"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/manifest"
	"example.com/kvstore/lsm/internal/memtable"
	"example.com/kvstore/lsm/internal/table"
	"example.com/kvstore/vclock"
)

// A cursor walks records in (token, key) order, each key once.
type cursor interface {
	Next() bool
	Record() *Record // until Next
	Err() error
	Close() error
}

// viewCursor walks a memtable's view.
type viewCursor struct {
	view *memtable.View
	next int
	r    Record
}

func (c *viewCursor) Next() bool {
	if c.next == c.view.Len() {
		return false
	}
	c.r = c.view.At(c.next)
	c.next++
	return true
}

func (c *viewCursor) Record() *Record { return &c.r }
func (c *viewCursor) Err() error      { return nil }

func (c *viewCursor) Close() error {
	c.view.Close()
	return nil
}

// runCursor walks the tables of a run, one after the other.
type runCursor struct {
	files  []*tableFile // the one that is walked and those still to come
	lo, hi uint64
	v      *version    // says what of the tables was dropped
	it     *table.Iter // nil before the first table and after the last
	in     *opened     // what it walks
	err    error
}

func (c *runCursor) Next() bool {
	for {
		switch {
		case c.it != nil && c.it.Next():
			if !c.v.hides(c.files[0], c.it.Record().Token) {
				return true
			}
			continue
		case c.err != nil:
			return false
		case c.it != nil:
			if c.err = c.files[0].hurt(errors.Join(c.it.Err(), c.it.Close())); c.err != nil {
				return false
			}
			c.files, c.it = c.files[1:], nil
			if c.err = c.in.release(); c.err != nil {
				return false
			}
		}
		if len(c.files) == 0 {
			return false
		}
		if c.in, c.err = c.files[0].open(); c.err != nil {
			return false
		}
		c.it = c.in.Iter(c.lo, c.hi)
	}
}

func (c *runCursor) Record() *Record { return c.it.Record() }
func (c *runCursor) Err() error      { return c.err }

func (c *runCursor) Close() error {
	if c.it == nil {
		return nil
	}
	err := errors.Join(c.it.Close(), c.in.release())
	c.it = nil
	return err
}

// A merger walks several cursors as one and joins their records of each key. It
// is a cursor itself.
type merger struct {
	t       *Tree
	cursors []cursor
	live    []cursor // those that have a record
	taken   []cursor // those whose record is in r; advanced by Next
	r       Record
	err     error
}

func (t *Tree) newMerger(cursors []cursor) *merger {
	return &merger{t: t, cursors: cursors, taken: append([]cursor(nil), cursors...)}
}

func (m *merger) Next() bool {
	if m.err != nil {
		return false
	}
	for _, c := range m.taken {
		if c.Next() {
			m.live = append(m.live, c)
		} else if m.err = c.Err(); m.err != nil {
			return false
		}
	}
	m.taken = m.taken[:0]
	if len(m.live) == 0 {
		return false
	}
	first := m.live[0].Record()
	for _, c := range m.live[1:] {
		if r := c.Record(); r.Compare(first.Token, first.Key) < 0 {
			first = r
		}
	}
	rest := m.live[:0]
	for _, c := range m.live {
		r := c.Record()
		switch {
		case r.Compare(first.Token, first.Key) != 0:
			rest = append(rest, c)
			continue
		case len(m.taken) == 0:
			m.r = *r
		default:
			m.r = m.t.join(m.r, *r)
		}
		m.taken = append(m.taken, c)
	}
	m.live = rest
	return true
}

func (m *merger) Record() *Record { return &m.r }
func (m *merger) Err() error      { return m.err }

func (m *merger) Close() error {
	var errs []error
	for _, c := range m.cursors {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// purgeable reports whether a record that a compaction of the given runs has
// joined may be left out of its output. What other compactions of the slice do
// meanwhile does not matter: they bring nothing that was not here before.
//
// Invariant I5: only a record without any live value goes, only when it is
// behind the horizon, so that nothing older will arrive, and only when nothing
// outside the compaction, memtables included, may hold the key with a min dot
// at or below it, so that nothing older is here.
func (t *Tree) purgeable(r *Record, inputs []*run) bool {
	if !t.dead(r) {
		return false
	}
	v := t.acquire(0)
	if v == nil {
		return false
	}
	defer t.release(v, 0)
	for _, m := range v.mems {
		if old, ok := m.Get(r.Token, r.Key); ok && !r.Max.Less(old.Min) && base.Defences.PurgeMemtables {
			return false
		}
	}
	for _, u := range v.slices[t.slice(r.Token)] {
		f := u.find(r.Token)
		if f == nil || r.Max.Less(f.MinDot) || slices.Contains(inputs, u) {
			continue
		}
		o, err := f.open()
		if err != nil {
			return false
		}
		held := o.MayContain(r.Token)
		t.releaseAll(o)
		if held && base.Defences.PurgeTables {
			return false
		}
	}
	return true
}

// awaits reports whether a record may be dropped once the horizon is past it.
func (t *Tree) awaits(r *Record) bool {
	return (r.Kind != Value || r.Deadline != 0) && t.o.Horizon != nil && t.o.Horizon(r.Token).Less(r.Max)
}

// dead reports whether all that r holds is behind the horizon and neither value
// nor needed as a tombstone there.
func (t *Tree) dead(r *Record) bool {
	if r.Kind == Value && r.Deadline == 0 {
		return false
	}
	if t.o.Horizon == nil {
		// Put and Delete are stamped in the order in which they begin, so that
		// nothing older of this actor is still to come.
		return r.Kind == Tombstone && r.Max.Actor == LocalActor
	}
	h := t.o.Horizon(r.Token)
	if h.Less(r.Max) && base.Defences.PurgeHorizon {
		return false
	}
	switch r.Kind {
	case Tombstone:
		return true
	case Value:
		return passed(r.Deadline, h)
	}
	s, err := vclock.DecodeSet(r.Value)
	if err != nil {
		return false
	}
	for i := range s.Siblings {
		if b := &s.Siblings[i]; !b.Tombstone && !passed(b.Deadline, h) {
			return false
		}
	}
	return true
}

// passed reports whether the deadline of a value is behind the horizon, so that
// all replicas agree that it has expired.
func passed(deadline int64, h vclock.Dot) bool {
	return deadline > 0 && uint64(deadline) < h.Stamp>>stampShift
}

// horizon gives the lowest horizon of a table's tokens, as far as a few of them
// tell: it only advises.
func (t *Tree) horizon(f *manifest.Table) vclock.Dot {
	low := t.o.Horizon(f.MinToken)
	for _, token := range [...]uint64{f.MinToken + (f.MaxToken-f.MinToken)/2, f.MaxToken} {
		if h := t.o.Horizon(token); h.Less(low) {
			low = h
		}
	}
	return low
}

// stampShift is where the milliseconds of a stamp begin.
const stampShift = 16
