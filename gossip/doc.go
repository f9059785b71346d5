// Package gossip spreads liveness and small news among the members of a cluster:
// heartbeats, failure detection and opaque metadata, as a state machine without
// I/O, clock, goroutine or global randomness.
package gossip
