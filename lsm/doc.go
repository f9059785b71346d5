// Package lsm is an embeddable storage engine: a log-structured merge tree over
// hashed keys whose values merge.
//
//	t, err := lsm.Open(dir, nil)
//	err = t.Put([]byte("k"), []byte("v")) // durable on return
//	value, ok, err := t.Get([]byte("k"))
//	for r, err := range t.Scan(0, math.MaxUint64) { ... } // everything, tombstones too
//	err = t.Checkpoint("copy")            // a copy that opens as a tree of its own
//	err = t.Close()
//
// Tree has all calls, Options all settings; Check verifies a directory that is not
// open.
//
// Two ideas shape it. There are only point operations, so everything is ordered
// by token, the hash of the key: a memtable is a hash table, and a place in a
// table is computed. And every record carries its dots, so that two records of a
// key join (package vclock): Apply may get records in any order, any number of
// times, and the tree ends up the same.
//
// # Writing
//
//	Put Apply Submit            logLoop                       flushLoop, compactLoop
//	----------------            -------                       ----------------------
//	copy into the buffer --->  take the buffer whole
//	wait, or go on             write it as one group
//	                           sync
//	                           join it into the memtable
//	  <-- completions -------  complete
//	                           memtable full: seal it,    ->  sealed memtable to a table for
//	                           begin the next one with        each slice; one edit of the
//	                           a log segment of its own       manifest; recycle its segments
//	                                                          too many tables: merge them
//
// A lone writer finds logLoop asleep and does its work itself, which saves the way
// there and back.
//
// A write is acknowledged and visible when its group is synced (SyncAlways), or
// when it is in the buffer (SyncEvery, SyncNever). The first failed write or
// sync of the log is final: later writes give ErrReadOnly, reads go on. On a
// full volume writes give ErrNoSpace until there is room; what SyncEvery and
// SyncNever had accepted by then waits in the buffer.
//
// Everything is bounded: the buffer, the memtables, the tables of a slice. When
// compaction falls behind flushes wait, then the log, then writers.
//
// # Reading
//
//	Get:  active memtable -> sealed memtables -> record cache, which ends it ->
//	      tables of the token's slice, highest max dot first; a plain record above
//	      the rest's max dot ends it, whatever else is found is joined
//
// What was read from tables goes into the cache, S3-FIFO in byte rings outside the
// Go heap; writes are written through to what it has. cached.go says why a copy is
// right.
//
// While half of the machine's memory would hold all tables, the first read in each
// stretch of a table has the system read all of the stretch: after a start the page
// cache fills at the rate of sequential reads.
//
// Readers take no lock but a share of one of the cache's. They hold on to a version, the list of memtables and
// tables at one instant, and the files of a version stay until it is let go.
//
// The tables, the manifest and the log are specified in FORMAT.md.
package lsm
