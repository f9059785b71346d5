// Package kvstore is an embeddable, leaderless, replicated key-value store: a
// service imports it, opens a node, and that node is storage, replica and
// coordinator. Nodes that know each other form a cluster with consistent
// hashing, N-way replication, and consistency chosen per operation.
//
//	db, err := kvstore.Open("data", &kvstore.Options{
//		Listen: "127.0.0.1:7002",
//		Seeds:  []string{"127.0.0.1:7001"}, // the first node has none
//	})
//	if err != nil { … }
//	defer db.Close()
//	if err := db.Ready(ctx); err != nil { … }
//	version, err := db.Put(ctx, "user/42", []byte("Ada"))
//	item, err := db.Get(ctx, "user/42", kvstore.One)
//
// # Guarantees
//
// A write is acknowledged when its level's number of owners have it on disk
// (SyncAlways, the default), and is then not lost while fewer than that many of
// its copies are destroyed.
//
// Levels whose numbers intersect, Quorum with Quorum above all, give reads that
// include every write that completed before they began, and that never go back
// in time. A later plain write is never shadowed by an earlier one, whatever the
// clocks do within MaxClockOffset of each other. Between concurrent plain writes
// the one with the higher stamp wins.
//
// A causal write, which is one with Replaces, an Update, or any under KeepSiblings
// or a MergeFunc, supersedes what its author had seen and nothing else: no
// acknowledged value disappears before somebody who had seen it wrote. Values
// written concurrently are siblings (Item.Siblings). Counters, sets and maps
// (DB.Counter, DB.Set, DB.Map) merge by themselves.
//
// A batch (Apply) is not atomic: each of its writes is as if made alone.
//
// Every error says what it left behind: see OutcomeOf.
//
// # Limits
//
// It is not a transaction system, has no ranges over keys, and offers no
// conditional writes: clients that read, change and write a key use Update, or
// Replaces and resolve the siblings. Nodes can join until the first write is
// accepted: start all of them, and write when Status shows them.
// A node that was away gets what it missed from hints that others kept for it, up
// to HintBytes; owners compare what they hold in the background and find the rest.
//
// # Words
//
// A key's token is its 64-bit hash; the token space is cut into equal
// partitions; each partition has N owners. A coordinator is the node that
// carries out one request. A dot (stamp, actor) names one write. An epoch is one
// agreed placement of partitions on members.
package kvstore
