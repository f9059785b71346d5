package table

import (
	"unsafe"

	"example.com/kvstore/lsm/internal/offheap"
)

// tokens are those of a table that is being written, for its filter. They lie
// off the Go heap: a large table has millions, which are garbage right after.
type tokens struct {
	list   []uint64
	memory []byte
}

// firstTokens is the room at first, a page. It doubles.
const firstTokens = 512

func (t *tokens) add(token uint64) {
	if len(t.list) == cap(t.list) {
		t.grow()
	}
	t.list = append(t.list, token)
}

func (t *tokens) grow() {
	n := max(2*cap(t.list), firstTokens)
	memory := offheap.AllocHasty(8 * n)
	list := unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(memory))), n)
	copied := copy(list, t.list)
	offheap.Free(t.memory)
	t.list, t.memory = list[:copied], memory
}

func (t *tokens) free() {
	offheap.Free(t.memory)
	*t = tokens{}
}
