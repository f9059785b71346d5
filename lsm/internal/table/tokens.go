package table

import (
	"unsafe"

	"example.com/kvstore/lsm/internal/offheap"
)

// tokens are those of a table that is being written, for its filter. They lie
// off the Go heap: a large table has millions, which are garbage right after.
type tokens struct {
	pool   *offheap.Pool
	memory [][]byte
	blocks [][]uint64 // in memory, full but for the last
	n      int
}

func (t *tokens) add(token uint64) {
	last := len(t.blocks) - 1
	if last < 0 || len(t.blocks[last]) == cap(t.blocks[last]) {
		b := t.pool.Get(t.pool.PieceBytes())
		t.memory = append(t.memory, b)
		t.blocks = append(t.blocks, unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/8)[:0])
		last++
	}
	t.blocks[last] = append(t.blocks[last], token)
	t.n++
}

func (t *tokens) free() {
	for _, b := range t.memory {
		t.pool.Put(b)
	}
	t.memory, t.blocks, t.n = nil, nil, 0
}
