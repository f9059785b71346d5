// Package check decides whether a history of operations keeps what kvstore
// promises. It knows nothing of how the history came about.
//
//	Durability      K1  no acknowledged write is lost
//	Dominance       K2  reads and writes at levels that intersect never go back (I4)
//	Sessions        K3  the calls of one session never go back, at any level
//	Linearizability K4  a key with one writer is a register
//	Convergence     K5  after faults owners hold the same (I3), and nobody else anything
//	Integrity       K6  what is read was written, to this key, and a version names
//	                    one write
//	Outcomes        K7  what a call said to be not applied is never seen
//	Liveness        K8  calls succeed in time, bounds hold, and the faults did happen
//
// Writes are plain, or causal: then they say which version they replace. The
// checkers cost n log n of the operations of one key; Durability and Linearizability,
// in the worst case, their square.
package check
