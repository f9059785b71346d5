package merkle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// Replies name nothing: they answer the items of the request in order, as many as
// fit, at least one.
//
//	inner nodes  for each: shorts of its children, 4 × 8
//	leaves       for each: listing
//	slices       uvarint number of slices answered | listing of their records
//
//	listing      uvarint 2·count   | count × (token - leaf.Lo, as wide as leaf.Hi - leaf.Lo needs | short 8)
//	listing      uvarint 1         | shorts of the slices of all that was asked for, 4096 × 8

// Answer appends the reply to a request to dst, at most [MaxReplyBytes]. Requests are
// checked: [ErrMalformed], [ErrShape]. A request for records reads them with read; an
// error of read is returned.
func (t *Tree) Answer(dst, request []byte, read Reader) ([]byte, error) {
	q, err := decodeQuestion(request)
	if err != nil {
		return dst, err
	}
	if q.shape != t.shape {
		return dst, fmt.Errorf("%w: asked for %+v, have %+v", ErrShape, q.shape, t.shape)
	}
	if q.level < int(t.shape.Depth) {
		return t.answerNodes(dst, &q), nil
	}
	if read == nil {
		return dst, errors.New("merkle: asked for records: give Answer a Reader")
	}
	if q.level == sliced {
		return t.answerSlices(dst, &q, read)
	}
	return t.answerLeaves(dst, &q, read)
}

func (t *Tree) answerNodes(dst []byte, q *question) []byte {
	for _, i := range q.indexes {
		for _, child := range t.children(q.level, i) {
			dst = binary.BigEndian.AppendUint64(dst, q.salt.Short(child))
		}
	}
	return dst
}

func (t *Tree) answerLeaves(dst []byte, q *question, read Reader) ([]byte, error) {
	start := len(dst)
	for k, i := range q.indexes {
		s := wholeLeaf(t.shape.leaf(i), q.salt)
		entries, parts, err := s.list(read)
		if err != nil {
			return dst[:start], err
		}
		end := len(dst)
		dst = appendListing(dst, &s, entries, parts)
		if k > 0 && len(dst)-start > MaxReplyBytes {
			return dst[:end], nil
		}
	}
	return dst, nil
}

func (t *Tree) answerSlices(dst []byte, q *question, read Reader) ([]byte, error) {
	s := selection{leaf: t.shape.leaf(q.leaf), salt: q.salt, span: q.span, indexes: q.indexes}
	entries, parts, err := s.list(read)
	if err != nil {
		return dst, err
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.indexes)))
	return appendListing(dst, &s, entries, parts), nil
}

func appendListing(dst []byte, s *selection, entries []entry, parts *parts) []byte {
	if parts != nil {
		dst = append(dst, 1)
		for _, d := range parts.chains {
			dst = binary.BigEndian.AppendUint64(dst, s.salt.Short(d))
		}
		return dst
	}
	dst = binary.AppendUvarint(dst, 2*uint64(len(entries)))
	width := tokenBytes(s.leaf)
	var b [8]byte
	for _, e := range entries {
		binary.BigEndian.PutUint64(b[:], e.token-s.leaf.Lo)
		dst = append(dst, b[8-width:]...)
		dst = binary.BigEndian.AppendUint64(dst, e.short)
	}
	return dst
}

// tokenBytes is the width of the tokens in the listing of a leaf.
func tokenBytes(leaf Range) int { return (bits.Len64(leaf.Hi-leaf.Lo) + 7) / 8 }

// decodeListing decodes the listing at the start of data: entries of the selection,
// or the shorts of its slices.
func decodeListing(data []byte, s *selection) (entries []entry, parts []uint64, rest []byte, err error) {
	head, n := binary.Uvarint(data)
	data = data[max(n, 0):]
	width := tokenBytes(s.leaf)
	count, each := head/2, width+shortBytes
	if head&1 == 1 {
		count, each = Slices, shortBytes
	}
	if n <= 0 || (head&1 == 1 && head != 1) || count > max(MaxEntries, Slices) || count*uint64(each) > uint64(len(data)) {
		return nil, nil, nil, fmt.Errorf("%w: listing of %d in %d bytes", ErrMalformed, count, len(data))
	}
	body, rest := data[:count*uint64(each)], data[count*uint64(each):]
	if head == 1 {
		parts = make([]uint64, Slices)
		for i := range parts {
			parts[i] = binary.BigEndian.Uint64(body[i*each:])
		}
		return nil, parts, rest, nil
	}
	entries = make([]entry, count)
	for i := range entries {
		var b [8]byte
		copy(b[8-width:], body[i*each:i*each+width])
		offset := binary.BigEndian.Uint64(b[:])
		e := entry{s.leaf.Lo + offset, binary.BigEndian.Uint64(body[i*each+width:])}
		if offset > s.leaf.Hi-s.leaf.Lo || !s.holds(e.short) {
			return nil, nil, nil, fmt.Errorf("%w: listing of tokens %x to %x has %x, short %x", ErrMalformed, s.leaf.Lo, s.leaf.Hi, e.token, e.short)
		}
		entries[i] = e
	}
	return entries, nil, rest, nil
}
