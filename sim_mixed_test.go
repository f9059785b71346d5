package kvstore_test

import (
	"testing"
	"time"

	"example.com/kvstore"
	"example.com/kvstore/kvtest"
)

// TestSimMixed: clients on all nodes put, get and delete at Quorum while a storm
// rages, on clusters that differ in size, loss, and how busy they are. Whatever
// happened, the history must be one that the promises allow, and all owners come to
// hold the same without being asked (I3).
//
//	go test -run TestSimMixed -seeds 1000
func TestSimMixed(t *testing.T) {
	var ok, failed int64
	kvtest.Seeds(t, 60, func(t *testing.T, seed uint64) {
		o := &kvtest.Options{
			Nodes:     3 + int(seed%3),
			Loss:      []float64{0, 0, 0.01, 0.05}[seed%4],
			Duplicate: []float64{0, 0.01, 0.1}[seed%3],
			Configure: func(_ int, o *kvstore.Options) {
				o.MaxRequest = 2 * time.Second
				o.MemoryBytes = 1 << 20 // memtables of 128 KiB: some are flushed
			},
		}
		simulate(t, seed, o, func(c *kvtest.Cluster) {
			c.Ready()
			w := &crowd{c: c, keys: 3 + int(seed%20), think: []time.Duration{5 * time.Millisecond, 50 * time.Millisecond}[seed%2]}
			for i := range c.Nodes() {
				w.nodes = append(w.nodes, i)
			}
			w.start(4 + int(seed%5))
			defer w.leave()
			c.Storm(10 * time.Second)
			w.leave()
			c.Settle()
			converge(c, 2*time.Minute) // before Check reads, which repairs
			c.Check()
			for k := range w.ok {
				ok += w.ok[k].Load()
				failed += w.failed[k].Load()
			}
		})
	})
	t.Logf("%d calls succeeded, %d failed", ok, failed)
	t.Logf("all simulations so far: %d calls, %v of virtual time", simulated.calls.Load(), time.Duration(simulated.time.Load()).Round(time.Second))
}
