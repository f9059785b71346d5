package check

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Linearizability is K4: each call of a key seems to take effect at one point between its
// start and its end. What racing writers store is no register, so that only keys with
// one writer are judged: all writes are plain, strict, of one client, one after the other,
// and after an unknown outcome it has read the key before it writes again.
//
// It is decided by values alone, where K2 looks at versions. A write with an unknown outcome
// takes effect once, at any time after its start, or never.
func Linearizability(history []Op) []Violation {
	var violations []Violation
	for _, ops := range byKey(history) {
		if !oneWriter(ops) {
			continue
		}
		if s := newSearch(ops); !s.run(nil) {
			violations = append(violations, Violation{"K4", *s.stuck, "in no order of the calls; the last write before it was " + s.before})
		}
	}
	return violations
}

// oneWriter reports whether the calls of a key are those of a register with one writer.
func oneWriter(ops []Op) bool {
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b Op) int { return cmp.Compare(a.Start, b.Start) })
	var last *Op // the latest write
	doubt := false
	for i := range ops {
		switch o := &ops[i]; {
		case o.Kind == Get:
			if last != nil && o.Client == last.Client && o.Strict && o.Outcome == Applied && o.Start >= last.End {
				doubt = false
			}
		case o.Replaces != nil, !o.Strict, doubt, last != nil && (o.Client != last.Client || o.Start < last.End):
			return false
		default:
			last, doubt = o, o.Outcome == Unknown
		}
	}
	return last != nil
}

// A search looks for an order in which the calls of one key can have taken effect (Wing and
// Gong). The next one is a call that began before all others had ended. Reads of the
// present value go first, since they change nothing; and as no value is written twice,
// nothing may be written over one that has still to be read.
type search struct {
	ops   []Op // by their start; those that never need to take effect end never
	done  []bool
	left  int             // have to take effect
	reads map[string]int  // of a value that was put, still to come
	seen  map[string]bool // dead ends

	// The least that was left, the call that was due then, and the write before it.
	least  int
	stuck  *Op
	before string
}

const never = time.Duration(math.MaxInt64)

func newSearch(ops []Op) *search {
	s := &search{reads: map[string]int{}, seen: map[string]bool{}, least: math.MaxInt, before: "none"}
	for _, o := range ops {
		if o.Kind == Get && o.Strict && o.Outcome == Applied && o.Found {
			s.reads[string(o.Value)]++
		}
	}
	for _, o := range ops {
		switch {
		case o.Kind == Get && (!o.Strict || o.Outcome != Applied), o.Outcome == NotApplied:
			continue
		case o.Kind == Put && o.Outcome == Unknown && s.reads[string(o.Value)] == 0:
			continue // as if it had never taken effect
		case o.Outcome == Unknown:
			o.End = never
		default:
			s.left++
		}
		s.ops = append(s.ops, o)
	}
	slices.SortStableFunc(s.ops, func(a, b Op) int { return cmp.Compare(a.Start, b.Start) })
	s.done = make([]bool, len(s.ops))
	return s
}

// run reports whether there is an order for the calls that are left, after the write last,
// which is nil before the first one.
func (s *search) run(last *Op) bool {
	taken := s.read(last)
	if s.left == 0 {
		return true
	}
	next := s.next()
	s.note(next, last)
	if state := s.state(last); !s.seen[state] && (last == nil || last.Kind == Delete || s.reads[string(last.Value)] == 0) {
		s.seen[state] = true
		deleted := false
		for _, i := range next {
			o := &s.ops[i]
			if o.Kind == Get || deleted && o.Kind == Delete && o.End == never {
				continue // one such delete is like another
			}
			deleted = deleted || o.Kind == Delete && o.End == never
			s.take(i)
			if s.run(o) {
				return true
			}
			s.putBack(i)
		}
	}
	for _, i := range taken {
		s.putBack(i)
	}
	return false
}

// read lets all reads take effect that can after the write last, and gives them.
func (s *search) read(last *Op) (taken []int) {
	for {
		before := len(taken)
		for _, i := range s.next() {
			if o := &s.ops[i]; o.Kind == Get && o.reads(last) {
				s.take(i)
				taken = append(taken, i)
			}
		}
		if len(taken) == before {
			return taken
		}
	}
}

// reads reports whether a Get gives what the write last left.
func (o *Op) reads(last *Op) bool {
	if last == nil || last.Kind == Delete {
		return !o.Found
	}
	return o.Found && bytes.Equal(o.Value, last.Value)
}

// next gives the calls that may be the next one.
func (s *search) next() (next []int) {
	end := never
	for i := range s.ops {
		if s.ops[i].Start > end {
			break
		}
		if !s.done[i] {
			end = min(end, s.ops[i].End)
			next = append(next, i)
		}
	}
	return slices.DeleteFunc(next, func(i int) bool { return s.ops[i].Start > end })
}

// note keeps hold of how far the search came.
func (s *search) note(next []int, last *Op) {
	if s.left >= s.least {
		return
	}
	s.least = s.left
	s.stuck = &s.ops[slices.MinFunc(next, func(i, j int) int { return cmp.Compare(s.ops[i].End, s.ops[j].End) })]
	if last != nil {
		s.before = fmt.Sprint(*last)
	}
}

// state is what the further search depends on.
func (s *search) state(last *Op) string {
	state := make([]byte, 0, len(s.done)+16)
	for _, d := range s.done {
		state = append(state, '0')
		if d {
			state[len(state)-1] = '1'
		}
	}
	if last != nil && last.Kind == Put {
		state = append(state, last.Value...)
	}
	return string(state)
}

func (s *search) take(i int)    { s.count(i, true) }
func (s *search) putBack(i int) { s.count(i, false) }

func (s *search) count(i int, done bool) {
	by := 1
	if done {
		by = -1
	}
	s.done[i] = done
	o := &s.ops[i]
	if o.End != never {
		s.left += by
	}
	if o.Kind == Get && o.Found {
		s.reads[string(o.Value)] += by
	}
}
