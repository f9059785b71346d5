package vclock

import (
	"os"
	"slices"
)

// torture is set for the long runs.
var torture = os.Getenv("KVSTORE_TORTURE") == "1"

// A naive set keeps every dot it has seen and every sibling alive, one by one.
// It is what Set stands for.
type naive struct {
	seen  map[Dot]bool
	alive map[Dot]Sibling
}

func newNaive() naive { return naive{map[Dot]bool{}, map[Dot]Sibling{}} }

// naiveOf spells a set out over a universe of dots, by the definition of a
// history rather than by its methods.
func naiveOf(s Set, universe []Dot) naive {
	n := newNaive()
	for _, d := range universe {
		if d.Stamp < s.Floor.Stamp || d.Stamp == s.Floor.Stamp && d.Actor <= s.Floor.Actor {
			n.seen[d] = true
		}
		for _, v := range s.V {
			if v.Actor == d.Actor && d.Stamp <= v.Stamp {
				n.seen[d] = true
			}
		}
	}
	for _, w := range s.Siblings {
		n.alive[w.Dot] = w
	}
	return n
}

func (n naive) join(m naive) naive {
	j := newNaive()
	for d := range n.seen {
		j.seen[d] = true
	}
	for d := range m.seen {
		j.seen[d] = true
	}
	for d := range j.seen {
		w, inN := n.alive[d]
		v, inM := m.alive[d]
		switch {
		case inN && inM:
			j.alive[d] = w
			if w.compare(&v) < 0 {
				j.alive[d] = v
			}
		case inN && !m.seen[d]:
			j.alive[d] = w
		case inM && !n.seen[d]:
			j.alive[d] = v
		}
	}
	return j
}

func (n naive) equal(m naive) bool {
	if len(n.seen) != len(m.seen) || len(n.alive) != len(m.alive) {
		return false
	}
	for d := range n.seen {
		if !m.seen[d] {
			return false
		}
	}
	for d, w := range n.alive {
		v, ok := m.alive[d]
		if !ok || w.compare(&v) != 0 {
			return false
		}
	}
	return true
}

// dots lists actors 1..actors by stamps 1..stamps, in ascending order.
func dots(actors, stamps int) []Dot {
	var all []Dot
	for n := range stamps {
		for a := range actors {
			all = append(all, Dot{uint64(n + 1), uint64(a + 1)})
		}
	}
	return all
}

// structure is the first broken rule of the normal form, or nothing.
func structure(s Set) string {
	for i, d := range s.V {
		if !s.Floor.Less(d) {
			return "entry at or below the floor"
		}
		if i > 0 && s.V[i-1].Actor >= d.Actor {
			return "actors out of order"
		}
	}
	if !slices.IsSortedFunc(s.Siblings, func(x, y Sibling) int { return y.Dot.Compare(x.Dot) }) {
		return "siblings out of order"
	}
	for i, w := range s.Siblings {
		if i > 0 && s.Siblings[i-1].Dot == w.Dot {
			return "one dot twice"
		}
		if !s.Contains(w.Dot) {
			return "sibling not in the history"
		}
	}
	return ""
}
