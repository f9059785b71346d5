package table

import (
	"sync/atomic"

	"example.com/kvstore/lsm/vfs"
)

// aroundBytes is the size of what is read around a block, and its alignment.
const aroundBytes = 512 << 10

// around brings what surrounds a block into the page cache when the block is the
// first that is read there: a set of tables that fits in memory then warms up at the
// rate at which the disk reads in sequence, instead of that of single blocks. Nothing
// is asked for twice, so that it costs no more than to read the file once.
type around struct {
	allowed func() bool
	asked   []atomic.Uint64 // a bit for each aroundBytes of the file
}

func newAround(bytes uint64, allowed func() bool) *around {
	chunks := (bytes + aroundBytes - 1) / aroundBytes
	return &around{allowed, make([]atomic.Uint64, (chunks+63)/64)}
}

// touch is called before what lies at off is read.
func (a *around) touch(f vfs.File, off uint64) {
	chunk := off / aroundBytes
	word, bit := &a.asked[chunk/64], uint64(1)<<(chunk%64)
	if word.Load()&bit != 0 || !a.allowed() || word.Or(bit)&bit != 0 {
		return
	}
	f.ReadAhead(int64(chunk*aroundBytes), aroundBytes)
}
