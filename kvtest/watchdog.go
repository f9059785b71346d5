package kvtest

import (
	"runtime"
	"time"
)

// watch guards the run until the function it returns is called. It lives outside
// the bubble, where time is real. A bubble without an event is stuck: somebody waits,
// in a way that stops virtual time, for what only virtual time can bring, or runs in
// circles.
func (c *Cluster) watch(name string) (stop func()) {
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		const looks = 10 // for an event in Stall
		timer := time.NewTicker(c.o.Stall / looks)
		defer timer.Stop()
		for seen, idle := uint64(0), 0; ; {
			select {
			case <-done:
				return
			case <-timer.C:
			}
			events := c.trace.events.Load()
			if idle++; events != seen {
				idle = 0
			}
			if idle == looks {
				stacks := make([]byte, 16<<20)
				stacks = stacks[:runtime.Stack(stacks, true)]
				// Not t.Fatal: the bubble would never end.
				die(name, c.Seed, c.o.Stall, stacks)
			}
			seen = events
		}
	}()
	return func() { close(done); <-gone }
}
