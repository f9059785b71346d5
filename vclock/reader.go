package vclock

import (
	"encoding/binary"
	"fmt"
)

// A reader takes an encoding apart. After the first error every method gives
// zero values, so callers check err once, at the end.
//
// Invariant: off <= len(b), and no count is returned that the bytes left could
// not hold (invariant I9).
type reader struct {
	b   []byte
	off int
	err error
}

func (r *reader) history() History {
	n, floor := r.header()
	h := History{Floor: floor}
	if n > 0 {
		h.V = make([]Dot, n)
	}
	var prev Dot
	for i := range h.V {
		h.V[i] = r.entry(floor, prev, i == 0)
		prev = h.V[i]
	}
	return h
}

// header reads the history up to V, and returns the length of V and the floor.
func (r *reader) header() (int, Dot) {
	if f := r.take(1); f != nil && f[0] != format {
		r.fail("unknown format")
	}
	n := r.count(MaxActors, dotBytes)
	floor := r.dot()
	if r.err != nil {
		return 0, Dot{}
	}
	return n, floor
}

// entry reads one entry of V, which follows prev unless it is the first.
func (r *reader) entry(floor, prev Dot, first bool) Dot {
	d := r.dot()
	switch {
	case r.err != nil:
	case !first && d.Actor <= prev.Actor:
		r.fail("actors out of order")
	case !floor.Less(d):
		r.fail("an entry at or below the floor")
	}
	return d
}

// sibling reads one sibling, which is older than newer unless that is zero.
func (r *reader) sibling(newer Dot) Sibling {
	s := Sibling{Dot: r.dot()}
	var flags byte
	if f := r.take(1); f != nil {
		flags = f[0]
	}
	if flags&flagDeadline != 0 {
		if b := r.take(8); b != nil {
			s.Deadline = int64(binary.BigEndian.Uint64(b))
		}
	}
	s.Tombstone = flags&flagTombstone != 0
	s.Value = r.take(r.count(len(r.b), 1))
	switch {
	case r.err != nil:
		return Sibling{}
	case s.Dot.IsZero():
		r.fail("a sibling without a dot")
	case !newer.IsZero() && !s.Dot.Less(newer):
		r.fail("siblings out of order")
	case flags > flagTombstone|flagDeadline:
		r.fail("unknown flags")
	case flags&flagDeadline != 0 && s.Deadline == 0:
		r.fail("an empty deadline")
	}
	return s
}

func (r *reader) dot() Dot {
	b := r.take(dotBytes)
	if b == nil {
		return Dot{}
	}
	return Dot{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

// count reads the number of items to follow, each of at least size bytes.
func (r *reader) count(limit, size int) int {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.b[r.off:])
	switch {
	case n <= 0 || n > 1 && r.b[r.off+n-1] == 0:
		r.fail("a bad number")
		return 0
	case v > uint64(len(r.b)-r.off-n)/uint64(size):
		r.fail("truncated")
		return 0
	case v > uint64(limit):
		r.err = fmt.Errorf("%w: %d at byte %d, the limit is %d", ErrLimit, v, r.off, limit)
		return 0
	}
	r.off += n
	return int(v)
}

// take returns the next n bytes, which are never nil unless there was an error.
func (r *reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.b)-r.off {
		r.fail("truncated")
		return nil
	}
	b := r.b[r.off : r.off+n : r.off+n]
	r.off += n
	return b
}

// end refuses trailing bytes.
func (r *reader) end() {
	if r.off != len(r.b) {
		r.fail("trailing bytes")
	}
}

func (r *reader) fail(problem string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s at byte %d of %d", ErrMalformed, problem, r.off, len(r.b))
	}
}
