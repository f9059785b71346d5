package memtable

import (
	"math/bits"
	"sync"

	"example.com/kvstore/lsm/internal/offheap"
)

// Chunks are this large unless the memtables themselves are small: a huge page.
const (
	maxChunkBytes = offheap.HugeBytes
	minChunkBytes = 4 << 10
)

// A Pool is where the memtables of a tree get their memory from, off the Go
// heap. It keeps some of what they give back for the next ones, since memory
// that is mapped anew costs a page fault for every 4 KiB.
//
// What lies idle is within limit together with what is in use. What is in use is
// bounded by those who use it.
type Pool struct {
	chunk int // bytes, a power of two
	keep  int // bytes that may lie idle
	limit int

	mu struct {
		sync.Mutex
		idle  [maxClasses][][]byte // by size: class c has chunk << c bytes
		bytes int                  // in idle
		used  int                  // given out
		// closed keeps nothing: a reader may end after the tree.
		closed bool
	}
}

// maxClasses bounds the sizes that are kept: the largest are chunk << 15.
const maxClasses = 16

// NewPool makes a pool for up to so many memtables that are full at the given
// size. It keeps as much as one of them holds.
func NewPool(memtableBytes int64, memtables int) *Pool {
	chunk := min(max(memtableBytes/32, minChunkBytes), maxChunkBytes)
	return &Pool{chunk: 1 << (bits.Len64(uint64(chunk)) - 1), keep: int(memtableBytes), limit: memtables * int(memtableBytes)}
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
	var b []byte
	var free [][]byte
	c := p.class(n)
	p.mu.Lock()
	p.mu.used += n
	if c >= 0 && len(p.mu.idle[c]) > 0 {
		b = p.takeLocked(c)
	} else {
		// Nothing idle fits: it makes room, the largest first.
		for c := maxClasses - 1; c >= 0; c-- {
			for len(p.mu.idle[c]) > 0 && p.mu.used+p.mu.bytes > p.limit {
				free = append(free, p.takeLocked(c))
			}
		}
	}
	p.mu.Unlock()
	for _, b := range free {
		offheap.Free(b)
	}
	if b == nil {
		b = offheap.AllocHasty(n)
	}
	return b
}

func (p *Pool) takeLocked(class int) []byte {
	idle := p.mu.idle[class]
	b := idle[len(idle)-1]
	idle[len(idle)-1] = nil
	p.mu.idle[class] = idle[:len(idle)-1]
	p.mu.bytes -= len(b)
	return b
}

// put takes back what get gave.
func (p *Pool) put(b []byte) {
	c := p.class(len(b))
	p.mu.Lock()
	p.mu.used -= len(b)
	fits := p.mu.bytes+len(b) <= p.keep && p.mu.used+p.mu.bytes+len(b) <= p.limit
	if c >= 0 && fits && !p.mu.closed && !offheap.Traps {
		p.mu.idle[c] = append(p.mu.idle[c], b)
		p.mu.bytes += len(b)
		b = nil
	}
	p.mu.Unlock()
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
