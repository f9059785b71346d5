package offheap

import (
	"math/bits"
	"sync"
)

// minPiece bounds how small a tree of little memory makes the pieces of its pool.
const minPiece = pageBytes

// A Pool gives memory that lives for a while, and keeps what it gets back for the
// next one that asks: memory that is mapped anew costs a page fault for every
// 4 KiB, or one in which the system clears, or even has to find, 2 MiB.
//
// What lies idle is within limit together with what is in use. What is in use is
// bounded by those who use it. A nil Pool keeps nothing.
type Pool struct {
	piece int // bytes, a power of two
	limit int

	mu struct {
		sync.Mutex
		idle  [maxClasses][][]byte // by size: class c has piece << c bytes
		bytes int                  // in idle
		most  int                  // that may lie idle
		used  int                  // given out
		// closed keeps nothing: a reader may end after the tree.
		closed bool
	}
}

// maxClasses bounds the sizes that are kept: the largest are piece << 15.
const maxClasses = 16

// NewPool makes a pool that holds up to limit bytes. It keeps pieces of up to
// pieceBytes, of a huge page at most, and what has twice the size of another.
func NewPool(pieceBytes, limit int64) *Pool {
	piece := min(max(pieceBytes, minPiece), HugeBytes)
	p := &Pool{piece: 1 << (bits.Len64(uint64(piece)) - 1), limit: int(limit)}
	p.mu.most = p.limit
	return p
}

// PieceBytes is the smallest size that is kept, a power of two.
func (p *Pool) PieceBytes() int {
	if p == nil {
		return minPiece
	}
	return p.piece
}

// class gives the class of a size, or -1 if it has none.
func (p *Pool) class(n int) int {
	c := bits.TrailingZeros(uint(n)) - bits.TrailingZeros(uint(p.piece))
	if n != p.piece<<max(c, 0) || c >= maxClasses {
		return -1
	}
	return c
}

// Get gives at least n bytes with any content, whole pages. Sizes that are kept come
// from there.
func (p *Pool) Get(n int) []byte {
	n = (n + pageBytes - 1) &^ (pageBytes - 1)
	if p == nil {
		return AllocHasty(n)
	}
	var b []byte
	var free [][]byte
	c := p.class(n)
	p.mu.Lock()
	p.mu.used += n
	if c >= 0 && len(p.mu.idle[c]) > 0 {
		b = p.takeLocked(c)
	} else {
		// Nothing idle fits: it makes room.
		free = p.trimLocked(p.limit - p.mu.used)
	}
	p.mu.Unlock()
	freeAll(free)
	if b == nil {
		b = AllocHasty(n)
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

// trimLocked takes out what lies idle beyond so many bytes, the largest first.
func (p *Pool) trimLocked(most int) (free [][]byte) {
	for c := maxClasses - 1; c >= 0; c-- {
		for len(p.mu.idle[c]) > 0 && p.mu.bytes > most {
			free = append(free, p.takeLocked(c))
		}
	}
	return free
}

// Put takes back what Get gave.
func (p *Pool) Put(b []byte) {
	if p == nil {
		Free(b)
		return
	}
	c := p.class(len(b))
	p.mu.Lock()
	p.mu.used -= len(b)
	if c >= 0 && p.mu.bytes+len(b) <= min(p.mu.most, p.limit-p.mu.used) && !p.mu.closed && !Traps {
		p.mu.idle[c] = append(p.mu.idle[c], b)
		p.mu.bytes += len(b)
		b = nil
	}
	p.mu.Unlock()
	Free(b)
}

// Bytes is the memory that lies idle.
func (p *Pool) Bytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(p.mu.bytes)
}

// Keep says how many bytes may lie idle from now on, and frees what is beyond.
func (p *Pool) Keep(most int64) {
	p.mu.Lock()
	p.mu.most = int(most)
	free := p.trimLocked(p.mu.most)
	p.mu.Unlock()
	freeAll(free)
}

// Close frees what lies idle, and makes the pool keep nothing any more. What is
// still in use is freed when it is given back.
func (p *Pool) Close() {
	p.mu.Lock()
	p.mu.closed = true
	free := p.trimLocked(0)
	p.mu.Unlock()
	freeAll(free)
}

func freeAll(all [][]byte) {
	for _, b := range all {
		Free(b)
	}
}
