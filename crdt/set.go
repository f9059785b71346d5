package crdt

import (
	"slices"
	"strings"

	"example.com/kvstore/vclock"
)

// MaxNameBytes bounds an element of a set, and the name of a map's field.
const MaxNameBytes = 4 << 10

// A set is its elements, ascending, each with the dots of the mutations that added it
// and that nobody who added or removed it since has seen: one, unless it was added
// concurrently.
type set []element

type element struct {
	name string
	dots []mark
}

// A mark is an item without content.
type mark vclock.Dot

func (m mark) at() vclock.Dot   { return vclock.Dot(m) }
func (m mark) compare(mark) int { return 0 }

// find gives the place of an element, and whether it is there.
func (s set) find(name string) (int, bool) {
	return slices.BinarySearchFunc(s, name, func(e element, name string) int { return strings.Compare(e.name, name) })
}

// change removes elements, as far as they were seen, and adds others under dot d.
func (s set) change(d vclock.Dot, add, remove []string) set {
	out := slices.Clone(s)
	for _, name := range remove {
		if i, ok := out.find(name); ok {
			out = slices.Delete(out, i, i+1)
		}
	}
	var added set
	for _, name := range add {
		e := element{name, []mark{mark(d)}}
		if i, ok := out.find(name); ok {
			out[i] = e
		} else {
			added = append(added, e)
		}
	}
	if len(added) == 0 {
		return out
	}
	out = append(out, added...)
	slices.SortFunc(out, func(x, y element) int { return strings.Compare(x.name, y.name) })
	return slices.CompactFunc(out, func(x, y element) bool { return x.name == y.name })
}

func joinSets(a set, seenA vclock.History, b set, seenB vclock.History) set {
	var j set
	for len(a) > 0 || len(b) > 0 {
		var e element
		var x, y []mark
		switch order := compareFirst(len(a), len(b), func() int { return strings.Compare(a[0].name, b[0].name) }); {
		case order < 0:
			e.name, x, a = a[0].name, a[0].dots, a[1:]
		case order > 0:
			e.name, y, b = b[0].name, b[0].dots, b[1:]
		default:
			e.name, x, y, a, b = a[0].name, a[0].dots, b[0].dots, a[1:], b[1:]
		}
		if e.dots = joinItems(x, seenA, y, seenB); len(e.dots) > 0 {
			j = append(j, e)
		}
	}
	return j
}

// compareFirst says of which of two lists the first comes next: of both for 0. compare
// is asked when neither is empty.
func compareFirst(a, b int, compare func() int) int {
	switch {
	case b == 0:
		return -1
	case a == 0:
		return 1
	}
	return compare()
}

// Elements are what is in a set, in ascending order.
func (s State) Elements() []string {
	out := make([]string, len(s.store.set))
	for i, e := range s.store.set {
		out[i] = e.name
	}
	return out
}

// Contains reports whether an element is in a set.
func (s State) Contains(element string) bool {
	_, ok := s.store.set.find(element)
	return ok
}

// Len is the number of elements of a set, or of fields of a map.
func (s State) Len() int { return len(s.store.set) + len(s.store.fields) }
