package table

import (
	"encoding/binary"
	"math/bits"
	"sort"

	"example.com/kvstore/lsm/internal/base"
)

// index finds the block of a token. Tokens are hashes, so a position computed
// from the token is close; but a node owns pieces of the token space and keys
// can be chosen, so the position only narrows a bisection.
//
// The tokens between the first and the last block's first token, scaled to 64
// bits, are cut into len(first) equal pieces. hint[p] is the first block whose
// first token lies in piece p or above.
type index struct {
	first  []uint64 // first token of each block
	offset []uint64 // of each block, and the end of the last
	hint   []uint32
	scale  uint // leading zero bits of the span of first
}

func newIndex(first, offset []uint64) index {
	x := index{first: first, offset: offset}
	n := len(first)
	if n == 0 {
		return x
	}
	x.scale = uint(bits.LeadingZeros64(first[n-1] - first[0]))
	x.hint = make([]uint32, n+1)
	p := 0
	for i, t := range first {
		for last := x.piece(t); p <= last; p++ {
			x.hint[p] = uint32(i)
		}
	}
	for ; p <= n; p++ {
		x.hint[p] = uint32(n)
	}
	return x
}

// piece gives the piece of a token at or above the first; tokens above the last
// first token share its piece. It is monotone.
func (x *index) piece(token uint64) int {
	n := len(x.first)
	token = min(token, x.first[n-1])
	p, _ := bits.Mul64((token-x.first[0])<<x.scale, uint64(n))
	return int(p)
}

// blocks gives the blocks that may hold the token, both bounds included. More
// than one only when the token is the first of a block. hi < lo when every
// record is above the token.
func (x *index) blocks(token uint64) (lo, hi int) {
	if len(x.first) == 0 || token < x.first[0] {
		return 0, -1
	}
	p := x.piece(token)
	from, to := int(x.hint[p]), int(x.hint[p+1])
	// Invariant: blocks before from start below the token, blocks from to on
	// above it.
	hi = from + sort.Search(to-from, func(i int) bool { return x.first[from+i] > token }) - 1
	lo = hi
	if x.first[hi] == token {
		lo = max(from+sort.Search(hi-from, func(i int) bool { return x.first[from+i] >= token })-1, 0)
	}
	return lo, hi
}

func (x *index) memoryBytes() int { return 8*len(x.first) + 8*len(x.offset) + 4*len(x.hint) }

// appendIndexEntry appends first token - previous first token, stored length.
func appendIndexEntry(dst []byte, delta, length uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, delta), length)
}

// decodeIndex reads the number of blocks and their entries. The blocks must
// fill the file from its header to end.
func decodeIndex(b []byte, end uint64) (x index, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k)/2 {
		return index{}, false
	}
	b = b[k:]
	first, offset := make([]uint64, n), make([]uint64, n+1)
	token, off := uint64(0), uint64(base.HeaderBytes)
	for i := range first {
		delta, k := binary.Uvarint(b)
		if k <= 0 || token+delta < token {
			return index{}, false
		}
		length, l := binary.Uvarint(b[k:])
		if l <= 0 || length < blockTrailerBytes || length > maxStoredBytes {
			return index{}, false
		}
		b = b[k+l:]
		token += delta
		first[i], offset[i] = token, off
		off += length
	}
	offset[n] = off
	if len(b) != 0 || off != end {
		return index{}, false
	}
	return newIndex(first, offset), true
}
