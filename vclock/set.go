package vclock

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
)

// A Sibling is one value of a key that no seen write has superseded.
type Sibling struct {
	Dot       Dot
	Tombstone bool  // the write was a delete
	Deadline  int64 // when the value expires, in Unix milliseconds; 0 is never
	Value     []byte
}

// A Set is all that a replica knows of one key: the siblings that are alive, and
// the history that has seen them and everything they replaced. The zero Set is
// a key never written; joining it changes nothing.
//
// Invariant: Siblings are in strictly descending order of dots (newest first),
// and the history contains each of them.
//
// Sets are values. No function changes one in place, results may share memory
// with the sets they came from, and values are never copied. The text form of a
// Set is that of its History.
type Set struct {
	History
	Siblings []Sibling
}

// Plain returns the set of a plain write: it has seen every smaller dot, so the
// last writer wins.
func Plain(s Sibling) Set {
	return Set{History{Floor: s.Dot}, []Sibling{s}}
}

// IsPlain reports whether the set is what one plain write makes.
func (s Set) IsPlain() bool {
	return len(s.Siblings) == 1 && len(s.V) == 0 && s.Floor == s.Siblings[0].Dot
}

// Join returns the set that knows what a and b know: the siblings that both
// have, and those that the other has not seen. It is commutative, associative and
// idempotent (invariant I2). It allocates nothing when both are plain.
//
// One dot is one write (I6). Where two siblings of a dot differ all the same,
// the greater content stays, so that even then all replicas agree.
func Join(a, b Set) Set {
	if a.IsPlain() && b.IsPlain() {
		if a.Siblings[0].compare(&b.Siblings[0]) < 0 {
			return b
		}
		return a
	}
	j := Set{History: a.History.Join(b.History)}
	j.Siblings = make([]Sibling, 0, len(a.Siblings)+len(b.Siblings))
	x, y := a.Siblings, b.Siblings
	for len(x) > 0 || len(y) > 0 {
		switch {
		case len(y) == 0 || len(x) > 0 && y[0].Dot.Less(x[0].Dot):
			if !b.Contains(x[0].Dot) {
				j.Siblings = append(j.Siblings, x[0])
			}
			x = x[1:]
		case len(x) == 0 || x[0].Dot.Less(y[0].Dot):
			if !a.Contains(y[0].Dot) {
				j.Siblings = append(j.Siblings, y[0])
			}
			y = y[1:]
		default:
			s := &x[0]
			if s.compare(&y[0]) < 0 {
				s = &y[0]
			}
			j.Siblings = append(j.Siblings, *s)
			x, y = x[1:], y[1:]
		}
	}
	return j
}

// Write returns the set after a causal write w by an author who had seen seen:
// the siblings in seen are superseded, the others stay beside w.
//
// w.Dot must be above everything in s and in seen (stamp it with Clock.Next above
// both Max); Write panics otherwise, because such a dot would already count as
// seen and the write would be lost. The result is applied and durable here before
// it is sent anywhere, so that a set with a dot of an actor reflects all earlier
// causal dots of that actor.
func (s Set) Write(seen History, w Sibling) Set {
	j := Join(s, Set{History: seen})
	if top := j.Max(); !top.Less(w.Dot) {
		panic(fmt.Sprintf("vclock: dot %v of a causal write is not above %v", w.Dot, top))
	}
	siblings := make([]Sibling, 0, 1+len(j.Siblings))
	return Set{j.History.Add(w.Dot), append(append(siblings, w), j.Siblings...)}
}

// Min returns the smallest dot of the siblings. Without siblings it is Max.
func (s Set) Min() Dot {
	if n := len(s.Siblings); n > 0 {
		return s.Siblings[n-1].Dot
	}
	return s.Max()
}

// Compare says how s relates to t: it is After when joining t into s would
// change nothing, and s into t would.
func (s Set) Compare(t Set) Order { return order(s.covers(t), t.covers(s)) }

// covers reports whether Join(s, t) equals s, contents aside: s has seen all of
// t, and keeps nothing that t saw superseded.
func (s Set) covers(t Set) bool {
	if !s.Covers(t.History) {
		return false
	}
	for i := range s.Siblings {
		if d := s.Siblings[i].Dot; t.Contains(d) && !t.has(d) {
			return false
		}
	}
	return true
}

// has reports whether the sibling of d is alive.
func (s Set) has(d Dot) bool {
	_, ok := slices.BinarySearchFunc(s.Siblings, d, func(s Sibling, d Dot) int { return d.Compare(s.Dot) })
	return ok
}

// Equal reports whether both sets know the same, contents included.
func (s Set) Equal(t Set) bool {
	return s.History.Equal(t.History) && slices.EqualFunc(s.Siblings, t.Siblings,
		func(x, y Sibling) bool { return x.compare(&y) == 0 })
}

// String gives the history and the siblings' dots, deletes marked by a minus
// sign, without any value.
func (s Set) String() string {
	b := fmt.Appendf(nil, "%v {", s.History)
	for i, w := range s.Siblings {
		if i > 0 {
			b = append(b, ' ')
		}
		if w.Tombstone {
			b = append(b, '-')
		}
		b = fmt.Append(b, w.Dot)
	}
	return string(append(b, '}'))
}

// compare orders siblings by dot, and siblings of one dot by content.
func (s *Sibling) compare(t *Sibling) int {
	switch {
	case s.Dot != t.Dot:
		return s.Dot.Compare(t.Dot)
	case s.Tombstone != t.Tombstone:
		if t.Tombstone {
			return -1
		}
		return 1
	case s.Deadline != t.Deadline:
		return cmp.Compare(s.Deadline, t.Deadline)
	}
	return bytes.Compare(s.Value, t.Value)
}
