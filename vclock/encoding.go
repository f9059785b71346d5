package vclock

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The encodings. Integers are big-endian unless they are uvarints, which are of
// minimal length, so that equal values have equal bytes and only one encoding.
//
//	dot      stamp 8 | actor 8
//	history  format 1 = 0x01 | uvarint len(V) | floor dot | V dots, by actor
//	sibling  dot | flags 1 | [deadline 8] | uvarint len(value) | value
//	set      history | uvarint len(siblings) | siblings, newest first
//
// Flags are bit 0, a tombstone, and bit 1, a deadline follows.
const (
	format = 1

	flagTombstone = 1
	flagDeadline  = 2

	dotBytes        = 16
	minSiblingBytes = dotBytes + 1 + 1
)

// Limits of one encoding, far above what coordinators let a key reach. With
// them a decoder's own memory stays below 5 MiB, and below 4 times its input.
const (
	MaxActors   = 1 << 16 // entries of V
	MaxSiblings = 1 << 16
)

var (
	// ErrMalformed says that bytes are not what an Append function made: they
	// were damaged, or made by something else.
	ErrMalformed = errors.New("vclock: malformed encoding")

	// ErrLimit says that an encoding is or would be above MaxActors or
	// MaxSiblings: merge the siblings with a causal write.
	ErrLimit = errors.New("vclock: more actors or siblings than an encoding may hold")
)

// AppendHistory appends the encoding of h to dst.
func AppendHistory(dst []byte, h History) []byte {
	dst = append(dst, format)
	dst = binary.AppendUvarint(dst, uint64(len(h.V)))
	dst = appendDot(dst, h.Floor)
	for _, d := range h.V {
		dst = appendDot(dst, d)
	}
	return dst
}

// AppendSet appends the encoding of s to dst. Equal sets have equal bytes.
func AppendSet(dst []byte, s Set) []byte {
	dst = AppendHistory(dst, s.History)
	dst = binary.AppendUvarint(dst, uint64(len(s.Siblings)))
	for i := range s.Siblings {
		dst = appendSibling(dst, &s.Siblings[i])
	}
	return dst
}

// DecodeHistory decodes what AppendHistory made, and nothing else. The result
// does not refer to b.
func DecodeHistory(b []byte) (History, error) {
	r := reader{b: b}
	h := r.history()
	r.end()
	if r.err != nil {
		return History{}, r.err
	}
	return h, nil
}

// DecodeSet decodes what AppendSet made, and nothing else. The values of the
// result are slices of b.
func DecodeSet(b []byte) (Set, error) {
	r := reader{b: b}
	s := Set{History: r.history()}
	if n := r.count(MaxSiblings, minSiblingBytes); n > 0 {
		s.Siblings = make([]Sibling, n)
	}
	var newer Dot
	for i := range s.Siblings {
		s.Siblings[i] = r.sibling(newer)
		newer = s.Siblings[i].Dot
		if r.err == nil && !s.Contains(newer) {
			r.fail("a sibling that the history does not contain")
		}
	}
	r.end()
	if r.err != nil {
		return Set{}, r.err
	}
	return s, nil
}

// JoinEncoded joins two encoded sets. It reads a and b only; the result may be
// one of them. Two plain sets are joined without any allocation.
func JoinEncoded(a, b []byte) ([]byte, error) {
	if x, ok := decodePlain(a); ok {
		if y, ok := decodePlain(b); ok {
			if x.compare(&y) < 0 {
				return b, nil
			}
			return a, nil
		}
	}
	x, err := DecodeSet(a)
	if err != nil {
		return nil, err
	}
	y, err := DecodeSet(b)
	if err != nil {
		return nil, err
	}
	j := Join(x, y)
	if len(j.V) > MaxActors || len(j.Siblings) > MaxSiblings {
		return nil, fmt.Errorf("%w: %d actors, %d siblings", ErrLimit, len(j.V), len(j.Siblings))
	}
	return AppendSet(make([]byte, 0, len(a)+len(b)), j), nil
}

// EncodedDots returns the bounds of an encoded set without decoding it whole:
// Min and Max of the Set. It does not check that the history contains the
// siblings, as DecodeSet does, and does not allocate.
func EncodedDots(b []byte) (lo, hi Dot, err error) {
	r := reader{b: b}
	n, floor := r.header()
	hi = floor
	d := Dot{}
	for i := range n {
		d = r.entry(floor, d, i == 0)
		if hi.Less(d) {
			hi = d
		}
	}
	lo = hi
	d = Dot{}
	for range r.count(MaxSiblings, minSiblingBytes) {
		d = r.sibling(d).Dot
		lo = d
	}
	r.end()
	if r.err != nil {
		return Dot{}, Dot{}, r.err
	}
	return lo, hi, nil
}

// decodePlain decodes the set of a plain write without allocating, and reports
// whether b is one.
func decodePlain(b []byte) (Sibling, bool) {
	const header = 2 + dotBytes // no actors, so one byte of length
	if len(b) < header+1+minSiblingBytes || b[0] != format || b[1] != 0 || b[header] != 1 {
		return Sibling{}, false
	}
	r := reader{b: b, off: 2}
	floor := r.dot()
	r.off++
	s := r.sibling(Dot{})
	return s, r.off == len(b) && r.err == nil && s.Dot == floor
}

func appendDot(dst []byte, d Dot) []byte {
	dst = binary.BigEndian.AppendUint64(dst, d.Stamp)
	return binary.BigEndian.AppendUint64(dst, d.Actor)
}

func appendSibling(dst []byte, s *Sibling) []byte {
	var flags byte
	if s.Tombstone {
		flags |= flagTombstone
	}
	if s.Deadline != 0 {
		flags |= flagDeadline
	}
	dst = append(appendDot(dst, s.Dot), flags)
	if s.Deadline != 0 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(s.Deadline))
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.Value)))
	return append(dst, s.Value...)
}
