// Package crdt has values that merge by themselves: counters, sets, and maps of
// counters, sets and registers, whose replicas may be changed apart and come together
// without a conflict. It is pure: states, how they change, how they merge, how they
// are written down.
//
// A state is a store and a context (the causal form of state-based types: Almeida,
// Shoker and Baquero, "Delta state replicated data types", 2018; without tombstones as in
// Bieniusa et al., "An optimized conflict-free replicated set", 2012). What a
// mutation leaves in the store carries its dot, and the context has seen the dots of all
// mutations that the state reflects. Of two states, what both have stays, and
// what only one has stays if the other's context has not seen its dot: else the other
// had it, and removed it.
//
//	left   {a: 3@L}     seen L to 3, R to 7     has removed b, which was added by 7@R
//	right  {b: 7@R}     seen R to 7             has not seen a
//	merged {a: 3@L}     seen L to 3, R to 7
//
// So a removal leaves nothing behind but the context, which grows with the number of
// actors, not of mutations.
//
// Merge is commutative, associative and idempotent, and equal states have equal
// encodings, so replicas that have seen the same are the same, byte for byte.
//
// Whoever mutates owes the package one thing: an actor applies its mutations of a
// key one after the other, each to a state that reflects the one before. In a kvstore the
// coordinator of a causal write does.
package crdt
