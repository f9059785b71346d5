package merkle

import (
	"encoding/binary"
	"fmt"
)

const (
	// Fanout is the number of children of an inner node. A level costs a differing
	// node 8·Fanout bytes, and there are log(n)/log(Fanout) levels: 2 and 4 move
	// the fewest bytes, and 4 needs half the round trips.
	Fanout = 4

	// LeafRecords is the number of records that a leaf holds at most, on average.
	LeafRecords = 4

	// MaxDepth bounds a tree to 4^10 leaves, 22 MiB. Above 4 million records leaves
	// hold more than LeafRecords: cut the range, and compare part by part.
	MaxDepth = 10

	shapeBytes = 17
)

// A Range is the tokens from Lo to Hi, both included.
type Range struct{ Lo, Hi uint64 }

// A Range is cut into n parts, n a power of two, of equal size but for the last one.

// size is the size of a part less one, which fits even if a part is everything.
func (r Range) size(n uint64) uint64 { return (r.Hi - r.Lo) / n }

// index says which of the n parts holds x.
func (r Range) index(n, x uint64) uint64 {
	if n == 1 {
		return 0
	}
	return (x - r.Lo) / (r.size(n) + 1)
}

// part is part i of n.
func (r Range) part(n, i uint64) Range {
	size := r.size(n)
	offset := i * (size + 1)
	return Range{r.Lo + offset, r.Lo + min(offset+size, r.Hi-r.Lo)}
}

func (r Range) holds(x uint64) bool { return r.Lo <= x && x <= r.Hi }

// A Shape says what a tree covers and where it is cut. Only trees of one shape can
// be compared, so both sides agree on it before they build.
type Shape struct {
	Range
	Depth uint8 // levels below the root; the tree has 4^Depth leaves
}

// NewShape is the shape for so many records between lo and hi, both included. Give
// it the larger of the two sides' counts; an estimate will do.
func NewShape(lo, hi, records uint64) Shape {
	s := Shape{Range: Range{lo, hi}}
	for s.Depth < MaxDepth && records > LeafRecords*s.leaves() {
		s.Depth++
	}
	for s.Depth > 0 && !s.valid() {
		s.Depth--
	}
	return s
}

// valid says whether s is a shape all leaves of which cover tokens.
func (s Shape) valid() bool {
	if s.Lo > s.Hi || s.Depth > MaxDepth {
		return false
	}
	last := s.leaves() - 1
	return last*(s.size(s.leaves())+1) <= s.Hi-s.Lo
}

func (s Shape) leaves() uint64 { return nodesAt(int(s.Depth)) }

func (s Shape) leaf(i uint32) Range { return s.part(s.leaves(), uint64(i)) }

// node is the range of a node.
func (s Shape) node(level int, i uint32) Range {
	below := 2 * (int(s.Depth) - level)
	return Range{s.leaf(i << below).Lo, s.leaf((i+1)<<below - 1).Hi}
}

// nodesAt is the number of nodes of a level, and before the number of nodes above it.
func nodesAt(level int) uint64 { return 1 << (2 * level) }
func before(level int) uint64  { return (nodesAt(level) - 1) / (Fanout - 1) }

// Append appends the encoding of s, 17 bytes, to dst.
//
//	lo 8 | hi 8 | depth 1          big-endian
func (s Shape) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, s.Lo)
	dst = binary.BigEndian.AppendUint64(dst, s.Hi)
	return append(dst, s.Depth)
}

// DecodeShape decodes the shape at the start of data, and returns what follows it.
func DecodeShape(data []byte) (s Shape, rest []byte, err error) {
	if len(data) < shapeBytes {
		return Shape{}, nil, fmt.Errorf("%w: shape of %d bytes", ErrMalformed, len(data))
	}
	s = Shape{Range{binary.BigEndian.Uint64(data), binary.BigEndian.Uint64(data[8:])}, data[16]}
	if !s.valid() {
		return Shape{}, nil, fmt.Errorf("%w: range %x to %x cannot have depth %d", ErrMalformed, s.Lo, s.Hi, s.Depth)
	}
	return s, data[shapeBytes:], nil
}
