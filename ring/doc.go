// Package ring says which nodes hold which keys.
//
// The tokens, 64-bit hashes of the keys, form a circle. It is cut into Q equal arcs,
// the partitions; Q is a power of two, so the partition of a token is its top log2(Q)
// bits, and a partition hosted by a node is one of that node's virtual nodes. A [Ring]
// is a value: the nodes, the owners of each partition, and the epoch in which these
// last changed.
//
//	token 0                                         2^64-1
//	|  p0   |  p1   |  p2   |  p3   |  ...  | p(Q-1) |
//	  a b c   d a e   b c d   e d a           c e b      owners, the first owner first
//
// The first layout ([New]) strews each node's virtual nodes over the circle, and gives
// a partition to the first distinct nodes met clockwise: of distinct zones, then of
// distinct data centres, as far as there are any. Later ones ([Rebalance]) start from
// the one before and move single replicas, as few as possible, so that again every node
// holds its share. Fallbacks, which stand in for owners that are down, are the nodes
// met when the walk goes on ([Ring.AppendPreference]).
//
// A plain walk would not do for later layouts: with zones half of what it moves on a
// join goes between old nodes.
//
// Figures for Q=4096 and N=3 (TestFigures prints them). Load is that of the fullest
// node over the mean; moved is the share of all replicas that change place when one
// node joins or leaves; the ideal is the newcomer's or leaver's equal share.
//
//	                  one zone                        three zones
//	nodes   load   join (ideal)   leave      load   join    leave
//	    3   1.000  25.00 (25.00)   0.00 %    1.000  16.67    0.00 %
//	    5   1.000  16.67 (16.67)  20.00 %    1.667  16.67   16.67 %
//	   10   1.000   9.09 ( 9.09)   9.99 %    1.112   8.33    8.33 %
//	   50   1.001   1.95 ( 1.96)   1.99 %    1.042   1.95    1.96 %
//	  100   1.001   0.98 ( 0.99)   0.99 %    1.017   0.98    0.98 %
//	  500   1.017   0.20 ( 0.20)   0.20 %    1.017   0.20    0.20 %
//
// With three zones each of them holds every partition once, so nodes of a zone with
// fewer nodes hold more. With more zones than replicas, up to 1 in 130 replicas that
// move on a join goes to an old node, since the newcomer cannot stand in for each of
// them (TestJoinStrays); with fewer it takes a ring of very few partitions. A Rebalance
// of 500 nodes takes about 30 ms.
package ring
