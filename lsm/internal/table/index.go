package table

import (
	"encoding/binary"
	"math/bits"
	"sort"
	"unsafe"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/offheap"
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
	scale  uint   // leading zero bits of the span of first
	memory []byte // off the Go heap, where all three are
}

// newIndex makes room for n blocks. The caller fills first and offset, and then
// calls orient.
func newIndex(n int) index {
	x := index{memory: offheap.Alloc(8*n + 8*(n+1) + 4*(n+1))}
	words := unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(x.memory))), 2*n+1)
	x.first, x.offset = words[:n:n], words[n:]
	x.hint = unsafe.Slice((*uint32)(unsafe.Pointer(&x.memory[8*len(words)])), n+1)
	return x
}

// free gives the memory back.
func (x *index) free() {
	offheap.Free(x.memory)
	*x = index{}
}

// orient sets hint and scale.
func (x *index) orient() {
	first := x.first
	n := len(first)
	if n == 0 {
		return
	}
	x.scale = uint(bits.LeadingZeros64(first[n-1] - first[0]))
	p := 0
	for i, t := range first {
		for last := x.piece(t); p <= last; p++ {
			x.hint[p] = uint32(i)
		}
	}
	for ; p <= n; p++ {
		x.hint[p] = uint32(n)
	}
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

func (x *index) memoryBytes() int { return cap(x.memory) }

// appendIndexEntry appends first token - previous first token, stored length.
func appendIndexEntry(dst []byte, delta, length uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, delta), length)
}

// decodeIndex reads the number of blocks and their entries. The blocks must
// fill the file from its header to end. The index is the caller's, to be freed.
func decodeIndex(b []byte, end uint64) (x index, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k)/2 {
		return index{}, false
	}
	b = b[k:]
	x = newIndex(int(n))
	defer func() {
		if !ok {
			x.free()
		}
	}()
	token, off := uint64(0), uint64(base.HeaderBytes)
	for i := range x.first {
		delta, k := binary.Uvarint(b)
		if k <= 0 || token+delta < token {
			return x, false
		}
		length, l := binary.Uvarint(b[k:])
		if l <= 0 || length < blockTrailerBytes || length > maxStoredBytes {
			return x, false
		}
		b = b[k+l:]
		token += delta
		x.first[i], x.offset[i] = token, off
		off += length
	}
	x.offset[n] = off
	if len(b) != 0 || off != end {
		return x, false
	}
	x.orient()
	return x, true
}
