// Package kvtest runs clusters of whole kvstore nodes in one process under
// simulated time, network and disks: for this project's own tests and for those
// of services that embed kvstore.
//
//	kvtest.Run(t, seed, nil, func(c *kvtest.Cluster) {
//		c.Ready()
//		c.Node(0).Put(ctx, "k", []byte("v"))
//		c.Partition([]int{0, 1}, []int{2})
//		c.Heal()
//		c.Crash(1) // what was not synced may be gone
//		c.Restart(1)
//		c.Check()
//	})
//
// The nodes are the real ones: real goroutines in a testing/synctest bubble. Only
// what they touch is made up: an in-memory network that delays, loses and
// doubles messages, disks that lose what a power cut would, and for each node a
// wall clock of its own, which may be wrong.
//
// # Seeds
//
// A seed decides the fate of every message and the time of every disk operation,
// each by a hash of the seed and of its place, so that a draw more here does not
// change what happens there. Every event has a virtual instant of its own, and
// the next one comes only when all goroutines have come to rest; goroutines that
// one event wakes take turns on one thread. So one seed has one trace, of which
// Cluster.Trace is a hash. (Under the race detector they run side by side.)
//
// Seeds runs a test for many seeds. A failure prints the command that runs the
// seed again:
//
//	go test ./mypackage -count=1 -run '^TestCart$' -seed 17
//
// # Faults and checks
//
// Faults are called by name (Crash, Partition, Cut, Skew, SlowDisk, Freeze …) or
// come by themselves in a Storm. Calls through a Node, which is a kvstore.KV,
// make a history; Check judges it at the end:
//
//	kvtest.Seeds(t, 20, func(t *testing.T, seed uint64) {
//		kvtest.Run(t, seed, &kvtest.Options{Nodes: 5, Loss: 0.01}, func(c *kvtest.Cluster) {
//			c.Ready()
//			var clients sync.WaitGroup
//			clients.Go(func() { workload(c) })
//			c.Storm(time.Minute)
//			clients.Wait()
//			c.Check()
//		})
//	})
package kvtest
