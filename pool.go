package kvstore

import "sync"

// maxInFlight bounds the requests that one node coordinates at a time; beyond
// it a call gets ErrOverloaded before any work is done.
const maxInFlight = 1 << 14

// A pool hands out call states, at most limit at a time, and keeps them for
// ever, so that the sweeper can walk those in use without a registration per
// call.
type pool[T any] struct {
	limit int
	make  func() *T
	mu    struct {
		sync.Mutex
		free []*T
		all  []*T // append-only, so a copy of the header is a snapshot
	}
}

// get returns a free call state, or nil at the limit.
func (p *pool[T]) get() *T {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.mu.free); n > 0 {
		c := p.mu.free[n-1]
		p.mu.free = p.mu.free[:n-1]
		return c
	}
	if len(p.mu.all) == p.limit {
		return nil
	}
	c := p.make()
	p.mu.all = append(p.mu.all, c)
	return c
}

func (p *pool[T]) put(c *T) {
	p.mu.Lock()
	p.mu.free = append(p.mu.free, c)
	p.mu.Unlock()
}

// every gives all states ever made, in use or not.
func (p *pool[T]) every() []*T {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.all
}
