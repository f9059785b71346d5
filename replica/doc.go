// Package replica holds the cores of the data path: what a coordinator and a
// replica say to each other, and what a coordinator concludes from the answers.
//
// Everything here is a value. A [Write] or a [Read] is told each answer as it
// arrives and says whether that is enough, what the result is, and who needs
// repair; it sends nothing, waits for nothing and reads no clock. Fan-out,
// deadlines and storage are the caller's.
//
//	coordinator                          replica
//	  Request       ───────────────────▶   joins the record into its log,
//	                                       answers after the sync
//	  Write.Ack / Superseded / Fail  ◀──   Reply
//	  Write.Verdict: pending, done, restamp, impossible
//
// A causal write takes two steps: any node hands it to an owner, which stores it
// first and then sends what it has become.
//
//	any node                  owner, coordinating             other owners
//	  CausalRequest ────────▶   reads, joins, syncs
//	                            Request (OpCausal) ──────────▶   join, sync
//	                            Reply: what they hold      ◀──
//	  CausalReply     ◀──────
//
// The quorum rules come from Gifford, "Weighted Voting for Replicated Data"
// (SOSP 1979); the write-back of a read from Attiya, Bar-Noy and Dolev,
// "Sharing Memory Robustly in Message-Passing Systems" (JACM 1995).
package replica
