package memtable

import (
	"sync"
	"sync/atomic"

	"example.com/kvstore/lsm/internal/offheap"
)

// An arena is the memory of one memtable. It only grows, until all of it is
// freed at once: readers without locks may be in any part of it.
type arena struct {
	pool  *offheap.Pool
	bytes atomic.Int64 // of all blocks, and of what is noted

	mu struct {
		sync.Mutex
		blocks [][]byte // from the pool
		rest   []byte   // of the last block
	}
}

// alloc gives n bytes with any content, aligned to 8.
func (a *arena) alloc(n int) []byte {
	n = (n + 7) &^ 7
	a.mu.Lock()
	defer a.mu.Unlock()
	if n <= len(a.mu.rest) {
		b := a.mu.rest[:n:n]
		a.mu.rest = a.mu.rest[n:]
		return b
	}
	b := a.pool.Get(max(n, a.pool.PieceBytes()))
	a.mu.blocks = append(a.mu.blocks, b)
	a.bytes.Add(int64(len(b)))
	if rest := b[n:]; len(rest) > len(a.mu.rest) {
		a.mu.rest = rest
	}
	return b[:n:n]
}

// note counts bytes that lie elsewhere.
func (a *arena) note(n int) { a.bytes.Add(int64(n)) }

func (a *arena) free() {
	a.mu.Lock()
	blocks := a.mu.blocks
	a.mu.blocks, a.mu.rest = nil, nil
	a.bytes.Store(0)
	a.mu.Unlock()
	for _, b := range blocks {
		a.pool.Put(b)
	}
}
