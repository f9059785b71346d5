// Package memtable keeps recent records in memory, found by (token, key).
//
//	shard (by the top bits of mix(token)):
//	    slots   {token, ref} {token, ref} ...    open addressing, at most 60 % full
//	    overflow                                 ordered list of what found no slot
//	    slabs   [record|record|...] [...]        256 KiB
//
// A ref says where a record lies in the slabs. Records never change once a ref
// to them is published; a newer record of a key replaces the ref. So readers
// take no lock, writers lock one shard.
//
// Slots and slabs hold no pointers and lie outside the Go heap. They live until
// Free, which the last one who may read the memtable calls.
//
// A probe looks at a bounded number of slots. A token whose slots are all taken
// goes to the overflow, a skip list (Pugh 1990), so that keys with chosen or
// equal tokens cost O(log n), not O(n).
package memtable
