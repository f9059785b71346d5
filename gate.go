package kvstore

import "sync/atomic"

// A gate counts the calls inside and lets Close wait for them. Unlike a
// sync.WaitGroup it may be entered while somebody waits: then it refuses.
type gate struct {
	state     atomic.Int64 // calls inside << 1 | shut
	signalled atomic.Bool
	drained   chan struct{} // closed when shut and empty
}

func newGate() *gate { return &gate{drained: make(chan struct{})} }

// enter reports whether the gate is open; if so, leave must follow.
func (g *gate) enter() bool {
	if g.state.Add(2)&1 == 1 {
		g.leave()
		return false
	}
	return true
}

func (g *gate) leave() {
	if g.state.Add(-2) == 1 {
		g.signal()
	}
}

// inside is the number of calls inside.
func (g *gate) inside() int64 { return g.state.Load() >> 1 }

// shut closes the gate and reports whether this call did. drained is closed
// when the last call inside has left.
func (g *gate) shut() bool {
	for {
		s := g.state.Load()
		if s&1 == 1 {
			return false
		}
		if g.state.CompareAndSwap(s, s|1) {
			if s == 0 {
				g.signal()
			}
			return true
		}
	}
}

// signal closes drained, once: a refused enter can bring the count back to zero
// again later.
func (g *gate) signal() {
	if g.signalled.CompareAndSwap(false, true) {
		close(g.drained)
	}
}
