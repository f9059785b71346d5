// Package wal is the commit log: a buffer that writers fill, and a chain of
// segments that one goroutine fills from it.
//
//	writers --Append--> Buffer --Take--> Writer: one write, one sync --> segment
//	                    (two halves, swapped whole)      |
//	                                                 completions
//
// The unit on disk is the group: whatever was in the buffer when the log's
// goroutine came for it. A group is all there or not there at all. It names its
// place in the chain (salt, sequence, end of the group before it) and the
// last group that was known to be durable when it was written. Two rules follow.
//
//   - A group that does not verify and that no later group calls durable was
//     torn by a crash: the log ends before it (Replay cuts it off).
//   - A group that does not verify and that a later one calls durable was
//     acknowledged and has been damaged since: Replay fails, it skips nothing.
//
// Segments are recycled: a new one is an old file under a new name, whose blocks
// are already allocated and written, so that a sync is only a sync of data. Each
// use of a file has a random salt, which its groups carry: neither the old content nor
// a value that was made to look like a group ever verifies.
//
// FORMAT.md of package lsm specifies the bytes.
package wal
