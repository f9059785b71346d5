// Package cache keeps copies of hot records in a bounded number of bytes: an
// S3-FIFO (Yang et al., "FIFO Queues are All You Need for Cache Eviction", SOSP
// 2023) over bytes instead of objects.
//
//	shard (by the top bits of mix(token)):
//	    index     word word word ...             open addressing; a word is tag 30 | uses 2 | ref 32
//	    small     [record|record|..] [..] ->     new records; a tenth, or all that nobody else needs
//	    main      [record|record|..] [..] ->     records that were used again
//	    ghosts    fingerprints of what small let go
//
// A queue is a ring of segments. Records are appended to its last one and leave
// it, a segment at a time, at its first: from small to main when they were used,
// else to the ghosts; in main they go around again as often as they were used,
// three times at most. A record whose fingerprint is among the
// ghosts goes to main at once. Until all segments are taken nothing is evicted
// and small has as many as it needs.
//
// Nothing is an object of its own: index, ghosts and segments lie outside the
// Go heap, and records are copied in and out under the shard's lock.
//
// # What makes a copy right
//
// The cache knows nothing of the tree but what it is told, and its owner holds
// to this:
//
// Invariant: a copy is the join of all that the tree shows of its key, except for
// what is in a memtable and still on its way to Update.
//
// So a reader joins a copy with the memtables of its version and needs no table.
// Four rules keep it, each of them needed:
//
//   - write-through: what is shown goes to Update once it is in the memtable and
//     before that memtable can be flushed.
//   - fill-generation: Fill takes a Ticket that was drawn before the reader took
//     hold of its version. It drops the record when Update was called meanwhile
//     for a token of the same generation counter.
//   - forget: whoever changes what lies below the memtables by any other way than
//     flushing and joining (purging, ingest, dropping a range, setting a table
//     aside) calls Hold before the change is visible, Forget or ForgetRange after
//     it, and then Release. Fills that overlap with that are dropped.
//   - positive: there are copies of records only, never of absence. A key that the
//     tree does not have may come from anywhere.
package cache
