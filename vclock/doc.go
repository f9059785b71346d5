// Package vclock says which write is newer, and which writes are concurrent: it
// holds the stamps, dots, histories and sibling sets that every replica of a
// key joins by. It does no I/O, starts no goroutine and reads no clock that it
// was not handed.
//
// # Stamps and dots
//
// A stamp is one reading of a hybrid logical clock (see [Clock]), 64 bits: Unix
// milliseconds above, a counter below.
//
//	 63                                  16 15            0
//	+--------------------------------------+---------------+
//	|          Unix milliseconds           |    counter    |
//	+--------------------------------------+---------------+
//
// A dot (n, a) is the one write that actor a stamped n. Dots are totally ordered
// by stamp, then actor.
//
// # Histories and sets
//
// A history H is a version vector V and a floor h, and stands for all dots at or
// below either:
//
//	(n, a) ∈ H   ⇔   n ≤ V[a]  or  (n, a) ≤ h
//
// A set is a pair (S, H): the siblings S that are alive, and everything H that
// was ever seen, so S ⊆ H. What was seen and is not alive was superseded. Two
// sets of one key join by keeping what both have and what the other has not
// seen:
//
//	(S, H) ⊔ (T, G)  =  ( (S ∩ T) ∪ (S ∖ G) ∪ (T ∖ H),  H ∪ G )
//
// H ∪ G is the pointwise maximum of the vectors and the greater floor; entries
// of V at or below the floor say nothing new and are removed (the normal form).
// The join is commutative, associative and idempotent, so replicas may exchange
// sets in any order, any number of times, and end with equal sets and, the
// encoding being canonical, with equal bytes.
//
// The two kinds of write are two ways to make a set:
//
//	plain   d         ( {d}, V = ∅, h = d )           see [Plain]
//	causal  d after G ( {d} ∪ (S ∖ G), H ∪ G ∪ V[a]=n )  see [Set.Write]
//
// A plain write has seen all smaller dots, which makes it last writer wins
// without a read before the write. A causal write supersedes what its author had
// seen, and nothing else; what it had not seen remains as a sibling. Both mix
// under the one join. An entry V[a] = n claims all earlier dots of a, so a causal
// write must be applied where it is coordinated before it is sent anywhere, and
// an actor that may have lost its own writes must be replaced.
//
// What one author has seen is a [Version]: the history of what it read, and
// perhaps the dot of its own last write. [Set.Replace] takes one and returns the
// next.
//
// # Why the floor is a dot and not a stamp
//
// Two nodes may give the same stamp. With a stamp as the floor the plain writes
// (5, a) and (5, b) would each claim to have seen the other: the join would keep
// neither, and both acknowledged values would be gone. A rule for ties repairs
// that pair but is no longer associative once a causal write joins in. With a dot
// as the floor (5, a) < (5, b) settles it, and there is no tie to break.
//
// # Sources
//
// Kulkarni, Demirbas, Madappa, Avva and Leone, "Logical Physical Clocks and
// Consistent Snapshots in Globally Distributed Databases" (2014), for the clock.
// Preguiça, Baquero, Almeida, Fonte and Gonçalves, "Dotted Version Vectors"
// (2010), and Almeida, Baquero, Gonçalves, Preguiça and Fonte, "Scalable and
// Accurate Causality Tracking for Eventually Consistent Stores" (2014), for dots
// beside a vector. The floor, and stamps in place of counters for each key, are
// this package's.
package vclock
