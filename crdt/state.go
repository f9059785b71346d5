package crdt

import (
	"errors"
	"fmt"

	"example.com/kvstore/vclock"
)

// A Kind says what a state, or a field of a map, is.
type Kind uint8

// The kinds. Numbers are part of the encoding. A register is found in maps only,
// and a map is never in another.
const (
	CounterKind  Kind = 1
	SetKind      Kind = 2
	MapKind      Kind = 3
	RegisterKind Kind = 4
)

// String names the kind.
func (k Kind) String() string {
	switch k {
	case CounterKind:
		return "counter"
	case SetKind:
		return "set"
	case MapKind:
		return "map"
	case RegisterKind:
		return "register"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Errors of this package, for errors.Is.
var (
	// ErrMalformed says that bytes are not what this package wrote.
	ErrMalformed = errors.New("crdt: malformed encoding")
	// ErrKind says that a state is of another kind than the one it is to merge with,
	// or to be changed as.
	ErrKind = errors.New("crdt: another kind of value")
	// ErrOverflow says that a count is, or would be, beyond an int64.
	ErrOverflow = errors.New("crdt: the count does not fit into 64 bits")
	// ErrLimit says that an element, a name or a request id is too long.
	ErrLimit = errors.New("crdt: too long")
)

// A State is all that a replica knows of one value. The zero State is one that was
// never changed, of no kind yet; merging it changes nothing.
//
// States are values: no method changes one, and results may share memory with the
// states they came from.
//
// Invariant: the context contains every dot of the store.
type State struct {
	kind    Kind
	context vclock.History
	store   store
}

// A store holds what is there, in the part that its kind uses.
type store struct {
	counter  counter
	set      set
	register register
	fields   []field
}

// Kind is what the state is, 0 if it was never changed.
func (s State) Kind() Kind { return s.kind }

// Context is what the state has seen.
func (s State) Context() vclock.History { return s.context }

// Merge returns the state that knows what s and t know. It fails with ErrKind when
// they are of different kinds. It takes time in proportion to the size of both.
func (s State) Merge(t State) (State, error) {
	switch {
	case s.kind == 0:
		return t, nil
	case t.kind == 0:
		return s, nil
	case s.kind != t.kind:
		return State{}, fmt.Errorf("%w: a %v and a %v", ErrKind, s.kind, t.kind)
	}
	return State{s.kind, s.context.Join(t.context), join(s.store, s.context, t.store, t.context)}, nil
}

// See returns s with a context that has seen h as well: what other states have of that
// beyond s counts as removed.
func (s State) See(h vclock.History) State {
	s.context = s.context.Join(h)
	return s
}

// join merges two stores of one kind.
func join(a store, seenA vclock.History, b store, seenB vclock.History) store {
	return store{
		counter: counter{
			totals:   joinItems(a.counter.totals, seenA, b.counter.totals, seenB),
			requests: joinItems(a.counter.requests, seenA, b.counter.requests, seenB),
		},
		set:      joinSets(a.set, seenA, b.set, seenB),
		register: joinItems(a.register, seenA, b.register, seenB),
		fields:   joinFields(a.fields, seenA, b.fields, seenB),
	}
}

// empty reports whether there is nothing in it.
func (s *store) empty() bool {
	return len(s.counter.totals) == 0 && len(s.counter.requests) == 0 && len(s.set) == 0 && len(s.register) == 0 && len(s.fields) == 0
}

// An item is what one mutation left. A dot names one mutation; where two items of
// a dot differ all the same, the greater content stays, so that even then all replicas
// agree.
type item[T any] interface {
	at() vclock.Dot
	compare(T) int // by content, of items with the same dot
}

// joinItems merges two lists in ascending order of dots.
func joinItems[T item[T]](a []T, seenA vclock.History, b []T, seenB vclock.History) []T {
	var j []T
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].at().Less(b[0].at()):
			if !seenB.Contains(a[0].at()) {
				j = append(j, a[0])
			}
			a = a[1:]
		case len(a) == 0 || b[0].at().Less(a[0].at()):
			if !seenA.Contains(b[0].at()) {
				j = append(j, b[0])
			}
			b = b[1:]
		default:
			if a[0].compare(b[0]) < 0 {
				j = append(j, b[0])
			} else {
				j = append(j, a[0])
			}
			a, b = a[1:], b[1:]
		}
	}
	return j
}

// insert returns items with i at its place.
func insert[T item[T]](items []T, i T) []T {
	n := len(items)
	for n > 0 && i.at().Less(items[n-1].at()) {
		n--
	}
	out := make([]T, 0, len(items)+1)
	return append(append(append(out, items[:n]...), i), items[n:]...)
}
