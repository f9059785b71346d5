package main

import (
	"sync"
	"sync/atomic"
	"time"
)

// A step is a part of the tour that is over.
type step struct {
	name, result string
	took         time.Duration
}

// progress is where the tour stands, for whoever shows it.
type progress struct {
	done, total atomic.Int64 // entries of the running step; total 0: not counted
	mu          struct {
		sync.Mutex
		nodes []*node // nil until they have started
		over  []step
		name  string // of the running step, "" if none
		began time.Time
	}
}

func (p *progress) begin(name string) {
	p.expect(0)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.name, p.mu.began = name, time.Now()
}

// expect starts to count, up to n.
func (p *progress) expect(n int) {
	p.done.Store(0)
	p.total.Store(int64(n))
}

func (p *progress) end(result string) step {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := step{p.mu.name, result, time.Since(p.mu.began)}
	p.mu.over = append(p.mu.over, s)
	p.mu.name = ""
	return s
}

// started tells whoever shows the tour which nodes there are.
func (p *progress) started(nodes []*node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.nodes = nodes
}

func (p *progress) nodes() []*node {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.nodes
}

// steps gives the steps that are over and the running one, whose name is "" if
// there is none.
func (p *progress) steps() (over []step, running step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.over[:len(p.mu.over):len(p.mu.over)], step{name: p.mu.name, took: time.Since(p.mu.began)}
}
