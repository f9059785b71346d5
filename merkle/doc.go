// Package merkle finds what differs between two replicas of a range of tokens, moving
// bytes in proportion to the difference.
//
// Records are ordered by (token, key), and tokens, hashes of the keys, are spread
// evenly. So the tree is fixed: the range is cut in four, each part in four, down to
// leaves of 1 to 4 records on average, as deep as the larger replica needs
// ([NewShape]). It is built in one pass over the records ([Builder]). A leaf is the
// digest of its records in order, (token, digest) after (token, digest); a node is the
// digest of its children.
//
//	level 0                      root
//	             ┌────────────┬───┴────────┬────────────┐
//	level 1      ·            ·            ×            ·          × differs
//	                     ┌──────┬──────────┼──────┐
//	level 2              ·      ·          ×      ·
//	tokens   lo ├──┬──┬──┬──┤──┬──┬──┬──┤──┬──╳──┬──┤──┬──┬──┬──┤ hi
//	                                          └ leaf: (token, digest) (token, digest) ...
//
// A digest is 128 bits of SHA-256, of a record's logical content and not of its bytes
// on a disk. Since a leaf hashes the concatenation, nobody can choose records that
// cancel out, as they do when digests are added or xored. Equal roots mean equal
// records.
//
// One side asks ([Diff]), the other answers ([Tree.Answer]); both are pure values, and
// the messages are bytes. The asker goes down from the root into what differs, then
// gets lists of the records in the leaves that differ, and names each [Difference].
// In messages digests are 8 bytes long, under a [Salt].
//
// A token that many keys share, perhaps chosen so, makes a leaf that tokens cannot
// cut. If it holds more than [MaxEntries] records it is cut into [Slices] by the salted
// digests of its records, which nobody could choose; their digests are compared, and
// slices that differ are listed, or if need be cut again.
//
// # Bytes
//
// Let n records in 4^D leaves differ in k places, spread at random. Of the nodes of
// level l, E(l) = 4^l·(1 - (1 - 4^-l)^k) differ, which is about min(4^l, k). Each costs
// 4·8 bytes and 1 to 3 to ask for; a leaf that differs lists its 1 + n/4^D records with
// 8 + w bytes each, w being the bytes that tell tokens of a leaf apart; a request has a
// head of 36 bytes:
//
//	16 + Σ(l<D) E(l)·34 + E(D)·(2 + (1 + n/4^D)·(8+w)) + 36·requests
//
// or about k·(34·(D - log4 k) + 70) bytes. For n = 1,000,000 it is D = 9 and w = 6
// (TestFigures; those after 1 % with KVSTORE_TORTURE=1):
//
//	differ      requests       bytes   a difference
//	      0            0          16
//	      1           10         728            728
//	     10           10       3,518            352
//	    100           10      25,884            259
//	  1,000           10     197,307            197
//	 10,000           15   1,402,498            140
//	100,000           45   7,992,399             80
//	    all           90  17,399,848             17
//
// The same records as 4096 partitions with a tree each, 10 of them different: 69 kB, of
// which 64 KiB are roots. A million keys of one token, 10 of them different: 103 kB in
// 11 requests.
//
// # Snapshots
//
// A tree is of one instant. The [Reader] that lists leaves must read the same snapshot
// as the tree was built of, or differences are seen that are none, and others are not
// seen. Digests that differ above equal ones are reported ([Diff.Contradicted]).
//
// What it is not: it moves no records, and trees are not updated in place. A peer is
// trusted to answer truly, but nothing it sends does harm: messages are checked and
// bounded ([MaxRequestBytes], [MaxReplyBytes]). Whoever runs a comparison bounds the
// number of its requests.
package merkle
