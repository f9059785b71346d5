package kvtest

import (
	"sync/atomic"
	"time"
)

// A clock is a node's wall clock: wrong by an offset, and fast by a share.
type clock struct {
	offset atomic.Int64 // nanoseconds
	drift  atomic.Int64 // parts per million
	since  atomic.Int64 // virtual nanoseconds when drift was set
}

// Skew sets node i's clock wrong by d, and ends its drift.
func (c *Cluster) Skew(i int, d time.Duration) {
	k := &c.nodes[i].clock
	k.drift.Store(0)
	k.offset.Store(int64(d))
}

// Drift lets node i's clock run fast by ppm parts in a million from now on.
func (c *Cluster) Drift(i int, ppm int64) {
	k, now := &c.nodes[i].clock, c.Now()
	k.offset.Store(int64(k.off(now)))
	k.since.Store(int64(now))
	k.drift.Store(ppm)
}

// off is how wrong the clock is.
func (k *clock) off(now time.Duration) time.Duration {
	drift := int64(now-time.Duration(k.since.Load())) / 1e6 * k.drift.Load()
	return time.Duration(k.offset.Load() + drift)
}

// now is the node's wall clock.
func (n *Node) now() time.Time { return time.Now().Add(n.clock.off(n.c.Now())) }
