package kvstore

import (
	"runtime"
	"sync/atomic"
)

// A crossing lets many pass from a decision to what follows from it, and lets one wait
// until all who decided before are through. Nobody blocks between enter and leave.
type crossing struct {
	turn   atomic.Uint64
	inside [2]atomic.Int64 // of even and odd turns
}

// enter begins a passage; leave ends it.
func (c *crossing) enter() (turn uint64) {
	for {
		turn = c.turn.Load()
		c.inside[turn&1].Add(1)
		if c.turn.Load() == turn {
			return turn
		}
		c.leave(turn)
	}
}

func (c *crossing) leave(turn uint64) { c.inside[turn&1].Add(-1) }

// drain returns when everybody who entered before it was called has left. Calls take
// turns.
func (c *crossing) drain() {
	turn := c.turn.Add(1) - 1
	for c.inside[turn&1].Load() > 0 {
		runtime.Gosched() // they do not block, so it is soon
	}
}
