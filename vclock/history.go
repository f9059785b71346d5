package vclock

import (
	"slices"
	"strings"
)

// A History is the set of dots that a version has seen: every dot at or below
// Floor, and for each entry (n, a) of V every dot of a with a stamp up to n. The
// zero History has seen nothing.
//
// Invariant (normal form): V is in strictly ascending order of actors and holds
// no entry at or below Floor. Methods expect and keep it.
//
// Histories are values. No method changes one in place, and results may share V
// with the histories they came from.
type History struct {
	Floor Dot
	V     []Dot
}

// Contains reports whether d has been seen.
func (h History) Contains(d Dot) bool {
	if d.Compare(h.Floor) <= 0 {
		return true
	}
	i, ok := h.entry(d.Actor)
	return ok && d.Stamp <= h.V[i].Stamp
}

// Covers reports whether h has seen all that g has: joining g into h would
// change nothing.
func (h History) Covers(g History) bool {
	if h.Floor.Less(g.Floor) {
		return false
	}
	for _, d := range g.V {
		if !h.Contains(d) {
			return false
		}
	}
	return true
}

// Compare says how h relates to g. Histories of different writes that have not
// seen each other are Concurrent.
func (h History) Compare(g History) Order { return order(h.Covers(g), g.Covers(h)) }

// After reports whether h has seen all that g has, and more.
func (h History) After(g History) bool { return h.Compare(g) == After }

// Concurrent reports whether each has seen something that the other has not.
func (h History) Concurrent(g History) bool { return h.Compare(g) == Concurrent }

// Equal reports whether both have seen the same.
func (h History) Equal(g History) bool {
	return h.Floor == g.Floor && slices.Equal(h.V, g.V)
}

// Join returns the history that has seen what either has.
func (h History) Join(g History) History {
	switch {
	case h.Covers(g):
		return h
	case g.Covers(h):
		return g
	}
	j := History{Floor: h.Floor, V: make([]Dot, 0, len(h.V)+len(g.V))}
	if j.Floor.Less(g.Floor) {
		j.Floor = g.Floor
	}
	x, y := h.V, g.V
	for len(x) > 0 || len(y) > 0 {
		var d Dot
		switch {
		case len(y) == 0 || len(x) > 0 && x[0].Actor < y[0].Actor:
			d, x = x[0], x[1:]
		case len(x) == 0 || y[0].Actor < x[0].Actor:
			d, y = y[0], y[1:]
		default:
			d = Dot{Stamp: max(x[0].Stamp, y[0].Stamp), Actor: x[0].Actor}
			x, y = x[1:], y[1:]
		}
		if j.Floor.Less(d) {
			j.V = append(j.V, d)
		}
	}
	return j
}

// Add returns h with an entry for d: d and all earlier dots of its actor have
// been seen.
func (h History) Add(d Dot) History {
	return h.Join(History{V: []Dot{d}})
}

// Max returns the greatest of the floor and the entries. No dot in the history
// that was ever issued is above it.
func (h History) Max() Dot {
	m := h.Floor
	for _, d := range h.V {
		if m.Less(d) {
			m = d
		}
	}
	return m
}

// String gives the floor, then the entries of V in brackets.
func (h History) String() string {
	var b strings.Builder
	b.WriteString(h.Floor.String())
	b.WriteString(" [")
	for i, d := range h.V {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(d.String())
	}
	b.WriteByte(']')
	return b.String()
}

// entry returns the index in V of an actor's entry, and whether it has one.
func (h History) entry(actor uint64) (int, bool) {
	lo, hi := 0, len(h.V)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if h.V[m].Actor < actor {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo, lo < len(h.V) && h.V[lo].Actor == actor
}
