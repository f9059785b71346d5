package crdt

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"example.com/kvstore/vclock"
)

// A reader takes an encoding apart. After the first error every method gives
// zero values, so callers check err once, at the end.
//
// Invariant: off <= len(b), and no count is returned that the bytes left could not
// hold (I9).
type reader struct {
	b       []byte
	off     int
	err     error
	context vclock.History
	actors  []uint64
	used    []bool
}

func (r *reader) store(k Kind) (s store) {
	switch k {
	case CounterKind:
		n := r.count(minDotBytes + 1)
		s.counter.totals = make([]total, 0, n)
		for range n {
			s.counter.totals = append(s.counter.totals, total{r.dot(), r.varint()})
		}
		n = r.count(minDotBytes + 3)
		s.counter.requests = make([]request, 0, n)
		for range n {
			q := request{dot: r.dot(), delta: r.varint(), id: r.text()}
			if q.id == "" || len(q.id) > MaxRequestBytes {
				r.fail("a bad request id")
			}
			s.counter.requests = append(s.counter.requests, q)
		}
		ascending(r, s.counter.totals)
		ascending(r, s.counter.requests)
	case SetKind:
		n := r.count(1 + 1 + minDotBytes)
		s.set = make(set, 0, n)
		for range n {
			e := element{name: r.name()}
			n := r.count(minDotBytes)
			e.dots = make([]mark, 0, n)
			for range n {
				e.dots = append(e.dots, mark(r.dot()))
			}
			ascending(r, e.dots)
			if n := len(s.set); len(e.dots) == 0 || n > 0 && e.name <= s.set[n-1].name {
				r.fail("elements out of order, or without a dot")
			}
			s.set = append(s.set, e)
		}
	case RegisterKind:
		n := r.count(minDotBytes + 1)
		s.register = make(register, 0, n)
		for range n {
			s.register = append(s.register, assigned{r.dot(), bytes.Clone(r.take(r.count(1)))})
		}
		ascending(r, s.register)
	case MapKind:
		n := r.count(minFieldBytes)
		s.fields = make([]field, 0, n)
		for range n {
			s.fields = append(s.fields, r.field())
			if n := len(s.fields); n > 1 && s.fields[n-2].compare(&s.fields[n-1]) >= 0 {
				r.fail("fields out of order")
			}
		}
	}
	return s
}

func (r *reader) field() field {
	f := field{name: r.name(), kind: Kind(r.byte())}
	if f.kind != CounterKind && f.kind != SetKind && f.kind != RegisterKind {
		r.fail("unknown kind of a field")
	}
	if f.store = r.store(f.kind); f.store.empty() {
		r.fail("an empty field")
	}
	return f
}

// ascending wants items in strictly ascending order of dots.
func ascending[T item[T]](r *reader, items []T) {
	for i := 1; i < len(items); i++ {
		if !items[i-1].at().Less(items[i].at()) {
			r.fail("dots out of order")
		}
	}
}

func (r *reader) readActors() {
	n := r.count(8)
	r.actors, r.used = make([]uint64, n), make([]bool, n)
	for i := range r.actors {
		b := r.take(8)
		if r.err != nil {
			return
		}
		if r.actors[i] = binary.BigEndian.Uint64(b); i > 0 && r.actors[i] <= r.actors[i-1] {
			r.fail("actors out of order")
		}
	}
}

func (r *reader) dot() vclock.Dot {
	i := r.uvarint()
	b := r.take(8)
	if r.err != nil {
		return vclock.Dot{}
	}
	if i >= uint64(len(r.actors)) {
		r.fail("an unknown actor")
		return vclock.Dot{}
	}
	r.used[i] = true
	d := vclock.Dot{Stamp: binary.BigEndian.Uint64(b), Actor: r.actors[i]}
	if !r.context.Contains(d) {
		r.fail("a dot that the context does not contain")
	}
	return d
}

// name reads the name of an element or a field.
func (r *reader) name() string {
	s := r.text()
	if len(s) > MaxNameBytes {
		r.fail("a name that is too long")
	}
	return s
}

func (r *reader) text() string { return string(r.take(r.count(1))) }

func (r *reader) byte() byte {
	if b := r.take(1); r.err == nil {
		return b[0]
	}
	return 0
}

// count reads the number of things to follow, each of at least size bytes.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if r.err == nil && n > uint64(len(r.b)-r.off)/uint64(size) {
		r.fail("truncated")
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

func (r *reader) uvarint() uint64 {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.b[r.off:])
	if n <= 0 || n > 1 && r.b[r.off+n-1] == 0 {
		r.fail("a bad number")
		return 0
	}
	r.off += n
	return v
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// take returns the next n bytes.
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

// end refuses trailing bytes, and gives the first error.
func (r *reader) end() error {
	if r.err == nil && r.off != len(r.b) {
		r.fail("trailing bytes")
	}
	return r.err
}

func (r *reader) fail(problem string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s at byte %d of %d", ErrMalformed, problem, r.off, len(r.b))
	}
}
