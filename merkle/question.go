package merkle

import (
	"encoding/binary"
	"fmt"
)

// Bounds of messages. All but hostile replies stay far below.
const (
	// MaxItems is the number of nodes, leaves or slices that one request names.
	MaxItems = 4096

	// MaxRequestBytes: a header, a range, and at most 4 bytes for each item.
	MaxRequestBytes = shapeBytes + 16 + 1 + 2*binary.MaxVarintLen32 + 16 + 4*MaxItems

	// MaxReplyBytes bounds what Answer appends.
	MaxReplyBytes = 256 << 10

	// MaxEntries is the number of records listed for one leaf, or for the slices of
	// one leaf, in one reply. Where there are more, slices are compared first.
	MaxEntries = 12 << 10
)

// A question asks for the children of inner nodes, for the records of leaves, or
// for the records in some slices of a leaf.
//
//	shape 17 | salt 16 | level 1 | indexes                     inner nodes, leaves
//	shape 17 | salt 16 | 0xff    | leaf 4 | span 16 | indexes  slices of span
//
// Indexes are: uvarint count, from 1 to MaxItems, then as uvarints the first index
// and for each later one the gap to the one before it, less one.
type question struct {
	shape   Shape
	salt    Salt
	level   int // of the nodes; sliced: slices
	leaf    uint32
	span    Range
	indexes []uint32
}

const sliced = 0xff

func (q *question) append(dst []byte) []byte {
	dst = q.shape.Append(dst)
	dst = append(dst, q.salt[:]...)
	dst = append(dst, byte(q.level))
	if q.level == sliced {
		dst = binary.BigEndian.AppendUint32(dst, q.leaf)
		dst = binary.BigEndian.AppendUint64(dst, q.span.Lo)
		dst = binary.BigEndian.AppendUint64(dst, q.span.Hi)
	}
	dst = binary.AppendUvarint(dst, uint64(len(q.indexes)))
	next := uint32(0)
	for _, i := range q.indexes {
		dst = binary.AppendUvarint(dst, uint64(i-next))
		next = i + 1
	}
	return dst
}

func decodeQuestion(data []byte) (q question, err error) {
	if len(data) > MaxRequestBytes {
		return q, fmt.Errorf("%w: request of %d bytes", ErrMalformed, len(data))
	}
	if q.shape, data, err = DecodeShape(data); err != nil {
		return q, err
	}
	if len(data) <= len(q.salt) {
		return q, fmt.Errorf("%w: request ends in its salt", ErrMalformed)
	}
	q.salt, data = Salt(data), data[len(q.salt):]
	q.level, data = int(data[0]), data[1:]
	var nodes uint64
	switch {
	case q.level <= int(q.shape.Depth):
		nodes = nodesAt(q.level)
	case q.level == sliced && len(data) >= 20:
		q.leaf = binary.BigEndian.Uint32(data)
		q.span = Range{binary.BigEndian.Uint64(data[4:]), binary.BigEndian.Uint64(data[12:])}
		data = data[20:]
		if uint64(q.leaf) < q.shape.leaves() && q.span.Lo <= q.span.Hi {
			nodes = slicesOf(q.span)
		}
	}
	if nodes == 0 {
		return q, fmt.Errorf("%w: request for level %d, leaf %d, shorts %x to %x", ErrMalformed, q.level, q.leaf, q.span.Lo, q.span.Hi)
	}
	q.indexes, err = decodeIndexes(data, nodes)
	return q, err
}

// decodeIndexes decodes all of data: ascending indexes below limit.
func decodeIndexes(data []byte, limit uint64) ([]uint32, error) {
	count, n := binary.Uvarint(data)
	if n <= 0 || count == 0 || count > MaxItems || count > uint64(len(data)-n) {
		return nil, fmt.Errorf("%w: %d items in %d bytes", ErrMalformed, count, len(data))
	}
	data = data[n:]
	indexes := make([]uint32, count)
	next := uint64(0)
	for k := range indexes {
		gap, n := binary.Uvarint(data)
		if n <= 0 || gap >= limit || next+gap >= limit {
			return nil, fmt.Errorf("%w: item %d is not below %d", ErrMalformed, k, limit)
		}
		indexes[k] = uint32(next + gap)
		next, data = next+gap+1, data[n:]
	}
	if len(data) > 0 {
		return nil, fmt.Errorf("%w: %d bytes after the items", ErrMalformed, len(data))
	}
	return indexes, nil
}
