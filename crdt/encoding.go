package crdt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"example.com/kvstore/vclock"
)

// The encodings. Integers are big-endian unless they are varints, which are of minimal
// length; lists are in strictly ascending order. So equal values have equal bytes, and
// only one encoding.
//
//	state     0xf5 "crdt" | format 1 = 0x01 | kind 1 | uvarint length | context | actors | store
//	context   as vclock writes a history
//	actors    uvarint count | actor 8 each: those of the store's dots
//	dot       uvarint index in actors | stamp 8
//	text      uvarint length | bytes
//	counter   uvarint count | (dot | varint n) each | uvarint count | (dot | varint delta | text id) each
//	set       uvarint count | (text name | uvarint count | dot each) each
//	register  uvarint count | (dot | text value) each
//	map       uvarint count | (text name | kind 1 | store) each
//
//	mutation  format 1 = 0x01 | kind 1 | field's kind 1, 0 without a field | text name | action 1 | arguments
//	          action 1, count: varint delta | text id
//	          action 2, change: uvarint count | text each | uvarint count | text each, to add and to drop, in the caller's order
//	          action 3, assign: the value (the rest)
//	          action 4, remove the field
//
// The first byte of a state is in no UTF-8 text.
const (
	magic  = "\xf5crdt"
	format = 1

	actionCount  = 1
	actionChange = 2
	actionAssign = 3
	actionRemove = 4

	minDotBytes   = 1 + 8
	minFieldBytes = 1 + 1 + 1 + minDotBytes + 1 // of a register
)

// Encoded reports whether b begins as the encoding of a state does, of whatever format.
func Encoded(b []byte) bool { return len(b) > len(magic) && string(b[:len(magic)]) == magic }

// Append appends the encoding of s to dst. Its size is some 30 bytes, 16 for each actor in
// the context and 8 for each in the store, and in the store 10 to 19 for each actor that
// counted, 11 and the id for each request remembered, 11 and its bytes for each element,
// 10 and its bytes for each value, 2 and its name for each field. A state that was never
// changed has no encoding.
func (s State) Append(dst []byte) []byte {
	context := vclock.AppendHistory(nil, s.context)
	dst = append(append(dst, magic...), format, byte(s.kind))
	dst = append(binary.AppendUvarint(dst, uint64(len(context))), context...)
	w := writer{b: dst}
	s.store.actors(&w)
	slices.Sort(w.actors)
	w.actors = slices.Compact(w.actors)
	w.count(len(w.actors))
	for _, a := range w.actors {
		w.b = binary.BigEndian.AppendUint64(w.b, a)
	}
	w.store(s.kind, &s.store)
	return w.b
}

// A writer appends an encoding.
type writer struct {
	b      []byte
	actors []uint64
}

// actors notes the actors of all dots.
func (s *store) actors(w *writer) {
	for _, t := range s.counter.totals {
		w.actors = append(w.actors, t.dot.Actor)
	}
	for _, r := range s.counter.requests {
		w.actors = append(w.actors, r.dot.Actor)
	}
	for _, e := range s.set {
		for _, d := range e.dots {
			w.actors = append(w.actors, d.Actor)
		}
	}
	for _, v := range s.register {
		w.actors = append(w.actors, v.dot.Actor)
	}
	for i := range s.fields {
		s.fields[i].store.actors(w)
	}
}

func (w *writer) count(n int) { w.b = binary.AppendUvarint(w.b, uint64(n)) }

func (w *writer) dot(d vclock.Dot) {
	i, _ := slices.BinarySearch(w.actors, d.Actor)
	w.count(i)
	w.b = binary.BigEndian.AppendUint64(w.b, d.Stamp)
}

func (w *writer) text(s string) {
	w.count(len(s))
	w.b = append(w.b, s...)
}

func (w *writer) store(k Kind, s *store) {
	switch k {
	case CounterKind:
		w.count(len(s.counter.totals))
		for _, t := range s.counter.totals {
			w.dot(t.dot)
			w.b = binary.AppendVarint(w.b, t.n)
		}
		w.count(len(s.counter.requests))
		for _, r := range s.counter.requests {
			w.dot(r.dot)
			w.b = binary.AppendVarint(w.b, r.delta)
			w.text(r.id)
		}
	case SetKind:
		w.count(len(s.set))
		for _, e := range s.set {
			w.text(e.name)
			w.count(len(e.dots))
			for _, d := range e.dots {
				w.dot(vclock.Dot(d))
			}
		}
	case RegisterKind:
		w.count(len(s.register))
		for _, v := range s.register {
			w.dot(v.dot)
			w.text(string(v.value))
		}
	case MapKind:
		w.count(len(s.fields))
		for i := range s.fields {
			w.text(s.fields[i].name)
			w.b = append(w.b, byte(s.fields[i].kind))
			w.store(s.fields[i].kind, &s.fields[i].store)
		}
	}
}

// Decode decodes what Append made, and nothing else. The result does not refer to
// b, and takes at most some 15 times its size.
func Decode(b []byte) (State, error) {
	if !Encoded(b) {
		return State{}, fmt.Errorf("%w: it does not begin as one", ErrMalformed)
	}
	r := reader{b: b, off: len(magic)}
	if f := r.byte(); f != format {
		r.fail("unknown format")
	}
	s := State{kind: Kind(r.byte())}
	if s.kind != CounterKind && s.kind != SetKind && s.kind != MapKind {
		r.fail("unknown kind")
	}
	var err error
	if context := r.take(r.count(1)); r.err == nil {
		if s.context, err = vclock.DecodeHistory(context); err != nil {
			r.fail(err.Error())
		}
	}
	r.context = s.context
	r.readActors()
	s.store = r.store(s.kind)
	for _, used := range r.used {
		if !used {
			r.fail("an actor without a dot")
		}
	}
	if err := r.end(); err != nil {
		return State{}, err
	}
	return s, nil
}

// MergeEncoded is Merge of encoded states: what replicas may do that know values as
// bytes.
func MergeEncoded(a, b []byte) ([]byte, error) {
	x, err := Decode(a)
	if err != nil {
		return nil, err
	}
	y, err := Decode(b)
	if err != nil {
		return nil, err
	}
	m, err := x.Merge(y)
	if err != nil {
		return nil, err
	}
	return m.Append(make([]byte, 0, len(a)+len(b))), nil
}

// Append appends the encoding of m, which passes Check, to dst.
func (m *Mutation) Append(dst []byte) []byte {
	w := writer{b: append(dst, format, byte(m.Kind), byte(m.Field.Kind))}
	w.text(m.Field.Name)
	switch {
	case m.Remove:
		w.b = append(w.b, actionRemove)
	case m.target() == CounterKind:
		w.b = binary.AppendVarint(append(w.b, actionCount), m.Delta)
		w.text(m.Request)
	case m.target() == SetKind:
		w.b = append(w.b, actionChange)
		for _, names := range [...][]string{m.Add, m.Drop} {
			w.count(len(names))
			for _, name := range names {
				w.text(name)
			}
		}
	default:
		w.b = append(append(w.b, actionAssign), m.Value...)
	}
	return w.b
}

// DecodeMutation decodes what Append made of a mutation that passes Check, and nothing
// else. The result does not refer to b.
func DecodeMutation(b []byte) (Mutation, error) {
	r := reader{b: b}
	if f := r.byte(); f != format {
		r.fail("unknown format")
	}
	m := Mutation{Kind: Kind(r.byte())}
	m.Field.Kind = Kind(r.byte())
	m.Field.Name = r.text()
	if m.Kind != MapKind && m.Field.Kind != 0 {
		r.fail("a field of what is not a map")
	}
	switch action := r.byte(); {
	case action == actionRemove && m.Kind == MapKind:
		m.Remove = true
	case action == actionCount && m.target() == CounterKind:
		m.Delta, m.Request = r.varint(), r.text()
	case action == actionChange && m.target() == SetKind:
		for _, names := range [...]*[]string{&m.Add, &m.Drop} {
			for range r.count(1) {
				*names = append(*names, r.text())
			}
		}
	case action == actionAssign && m.target() == RegisterKind:
		m.Value = bytes.Clone(r.take(len(r.b) - r.off))
	default:
		r.fail("unknown action")
	}
	if err := r.end(); err != nil {
		return Mutation{}, err
	}
	if err := m.Check(); err != nil {
		return Mutation{}, err
	}
	return m, nil
}
