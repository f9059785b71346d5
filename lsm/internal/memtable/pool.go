package memtable

import (
	"math/bits"
	"sync"

	"example.com/kvstore/lsm/internal/offheap"
)

// Chunks are this large unless the memtables themselves are small.
const (
	maxChunkBytes = 256 << 10
	minChunkBytes = 4 << 10
)

// A Pool is where the memtables of a tree get their memory from, off the Go
// heap. It keeps some of what they give back for the next ones, since memory
// that is mapped anew costs a page fault for every 4 KiB.
type Pool struct {
	chunk int // bytes, a power of two
	keep  int // bytes that may lie idle

	mu struct {
		sync.Mutex
		idle  [maxClasses][][]byte // by size: class c has chunk << c bytes
		bytes int                  // in idle
		// closed keeps nothing: a reader may end after the tree.
		closed bool
	}
}

// maxClasses bounds the sizes that are kept: the largest are chunk << 15.
const maxClasses = 16

// NewPool makes a pool for memtables that are full at the given size. It keeps
// as much as one of them holds.
func NewPool(memtableBytes int64) *Pool {
	chunk := min(max(memtableBytes/32, minChunkBytes), maxChunkBytes)
	return &Pool{chunk: 1 << (bits.Len64(uint64(chunk)) - 1), keep: int(memtableBytes)}
}

// class gives the class of a size, or -1 if it has none.
func (p *Pool) class(n int) int {
	c := bits.TrailingZeros(uint(n)) - bits.TrailingZeros(uint(p.chunk))
	if n != p.chunk<<max(c, 0) || c >= maxClasses {
		return -1
	}
	return c
}

// get gives n bytes with any content. Sizes that are kept come from there.
func (p *Pool) get(n int) []byte {
	if c := p.class(n); c >= 0 {
		p.mu.Lock()
		if idle := p.mu.idle[c]; len(idle) > 0 {
			b := idle[len(idle)-1]
			idle[len(idle)-1] = nil
			p.mu.idle[c] = idle[:len(idle)-1]
			p.mu.bytes -= n
			p.mu.Unlock()
			return b
		}
		p.mu.Unlock()
	}
	return offheap.Alloc(n)
}

// put takes back what get gave.
func (p *Pool) put(b []byte) {
	if c := p.class(len(b)); c >= 0 && !offheap.Traps {
		p.mu.Lock()
		if !p.mu.closed && p.mu.bytes+len(b) <= p.keep {
			p.mu.idle[c] = append(p.mu.idle[c], b)
			p.mu.bytes += len(b)
			b = nil
		}
		p.mu.Unlock()
	}
	offheap.Free(b)
}

// Bytes is the memory that lies idle.
func (p *Pool) Bytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(p.mu.bytes)
}

// Close frees what lies idle, and makes the pool keep nothing any more. What is
// still in use is freed when it is given back.
func (p *Pool) Close() {
	p.mu.Lock()
	idle := p.mu.idle
	p.mu.idle, p.mu.bytes, p.mu.closed = [maxClasses][][]byte{}, 0, true
	p.mu.Unlock()
	for _, class := range idle {
		for _, b := range class {
			offheap.Free(b)
		}
	}
}
