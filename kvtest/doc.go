// Package kvtest runs clusters of whole kvstore nodes in one process under
// simulated time, network and disks: for this project's own tests and for those
// of services that embed kvstore.
//
//	kvtest.Run(t, seed, nil, func(c *kvtest.Cluster) {
//		c.Ready()
//		c.Node(0).Put(ctx, "k", []byte("v"))
//		c.Partition([]int{0, 1}, []int{2})
//		c.Crash(1) // what was not synced may be gone
//		c.Restart(1)
//		c.Heal()
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
// change what happens there. Events happen one at a time: each at a virtual
// instant of its own, and the next only when all goroutines have come to rest.
// Cluster.Trace is a hash over all of them; Replay runs a scenario in a child
// process without the scheduler's remaining freedoms, where one seed has one
// trace.
package kvtest
