package merkle

import (
	"fmt"
	"math"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// expectedBytes is the formula of the package comment: what a comparison of n records
// moves when k of them, spread at random, have another version on the other side.
func expectedBytes(s Shape, n, k float64) float64 {
	differ := func(level int) float64 {
		m := float64(nodesAt(level))
		return m * (1 - math.Pow(1-1/m, k))
	}
	// An index takes 1 byte while a level is dense with differences, else 2 or 3.
	index := func(level int) float64 {
		return max(1, math.Log2(float64(nodesAt(level))/differ(level))/7+0.6)
	}
	sum := float64(DigestBytes)
	if k == 0 {
		return sum
	}
	for level := range int(s.Depth) {
		sum += differ(level)*(Fanout*shortBytes+index(level)) + 36*math.Ceil(differ(level)/MaxItems)
	}
	d, m := int(s.Depth), float64(s.leaves())
	listed := n * (1 - math.Pow(1-1/m, k)) // others in a differing leaf
	listed += k * math.Pow(1-1/m, k)
	entry := float64(tokenBytes(s.leaf(0)) + shortBytes)
	return sum + differ(d)*(1+index(d)) + listed*entry + 36*math.Ceil(differ(d)/MaxItems)
}

// TestFigures: the bytes that comparisons of a million records move.
func TestFigures(t *testing.T) {
	const n = 1_000_000
	mine := random(1, n, everything)
	s := NewShape(0, 1<<64-1, n)
	tree := mine.tree(t, s)
	t.Logf("%d records, depth %d, %.2f records a leaf, tree of %.1f MiB", n, s.Depth, float64(n)/float64(s.leaves()), float64(len(tree.nodes)*DigestBytes)/(1<<20))
	t.Logf("%10s %8s %10s %10s %8s %12s", "differing", "requests", "asked", "answered", "expected", "per record")
	counts := []int{0, 1, 10, n / 100}
	if os.Getenv("KVSTORE_TORTURE") != "" {
		counts = []int{0, 1, 10, 100, 1000, n / 100, n / 10, n}
	}
	for _, k := range counts {
		theirs := mine.changed(2, k)
		c := compare(t, tree, theirs.tree(t, s), mine.read, theirs.read, Salt{1})
		require.Equal(t, naive(mine, theirs, Salt{1}), c.differences)
		require.Empty(t, c.contradicted)
		checkRanges(t, s, c)
		want := expectedBytes(s, n, float64(k))
		t.Logf("%10d %8d %10d %10d %8.0f %12.1f", k, c.trips, c.requestBytes, c.replyBytes, want, float64(c.bytes())/float64(max(k, 1)))
		require.InEpsilon(t, want, c.bytes(), 0.15)
		switch k {
		case 0:
			require.Equal(t, DigestBytes, c.bytes())
		case 10:
			require.Less(t, c.bytes(), 8<<10)
			require.Len(t, c.ranges, 10)
		case n / 100:
			require.Less(t, c.bytes(), 150*k)
		}
	}
	missing := mine[:0:0]
	for i, r := range mine {
		if i%100_000 != 7 {
			missing = append(missing, r)
		}
	}
	c := compare(t, tree, missing.tree(t, s), mine.read, missing.read, Salt{1})
	t.Logf("%10s %8d %10d %10d", "10 missing", c.trips, c.requestBytes, c.replyBytes)
	require.Equal(t, naive(mine, missing, Salt{1}), c.differences)
	require.Less(t, c.bytes(), 8<<10)
}

// TestManyPartitions: the same records as 4096 partitions.
func TestManyPartitions(t *testing.T) {
	const n, q = 1_000_000, 4096
	mine := random(1, n, everything)
	theirs := mine.changed(2, 10)
	total, found := 0, 0
	for p := range uint64(q) {
		r := everything.part(q, p)
		inside := func(all replica) replica {
			from, to := 0, 0
			for i, rec := range all {
				if rec.token < r.Lo {
					from = i + 1
				}
				if rec.token <= r.Hi {
					to = i + 1
				} else {
					break
				}
			}
			return all[from:to]
		}
		a, b := inside(mine), inside(theirs)
		mine, theirs = mine[len(a):], theirs[len(b):]
		c := a.compare(t, b, NewShape(r.Lo, r.Hi, uint64(len(a))), Salt{1})
		require.Equal(t, naive(a, b, Salt{1}), c.differences)
		total += c.bytes()
		found += len(c.differences)
	}
	t.Logf("%d partitions, %d differences: %d bytes", q, found, total)
	require.Equal(t, 20, found)
	require.Less(t, total, 72<<10)
}

// TestOneToken: hostile keys that all have one token.
func TestOneToken(t *testing.T) {
	const n = 1_000_000
	mine := one(1<<40, n)
	s := NewShape(0, 1<<64-1, n)
	theirs := mine.changed(2, 10)
	c := mine.compare(t, theirs, s, Salt{1})
	t.Logf("%d records of one token, 10 differ: %d requests, %d bytes", n, c.trips, c.bytes())
	require.Equal(t, naive(mine, theirs, Salt{1}), c.differences)
	require.Less(t, c.bytes(), 256<<10)

	// Most differ: as many bytes as their list, in bounded pieces.
	for _, k := range []int{MaxEntries, 3 * MaxEntries} {
		mine := mine[:k]
		for _, theirs := range []replica{mine.changed(1, k), nil} {
			for _, pair := range [][2]replica{{mine, theirs}, {theirs, mine}} {
				c := pair[0].compare(t, pair[1], NewShape(0, 1<<64-1, 10), Salt{1})
				t.Logf("%d against %d records of one token, all differ: %d requests, %d bytes", len(pair[0]), len(pair[1]), c.trips, c.bytes())
				require.Equal(t, naive(pair[0], pair[1], Salt{1}), c.differences)
				require.Less(t, c.bytes(), 100<<10+k*24)
			}
		}
	}
}

// TestReplyLimit: a reply ends where the next leaf would not fit, and the rest is
// asked for again.
func TestReplyLimit(t *testing.T) {
	s := Shape{everything, 2}
	var mine replica
	for i := range s.leaves() {
		mine = append(mine, one(s.leaf(uint32(i)).Lo, MaxEntries-int(i))...)
	}
	theirs := mine.changed(1, 200)
	c := mine.compare(t, theirs, s, Salt{})
	require.Equal(t, naive(mine, theirs, Salt{}), c.differences)
	require.Greater(t, c.trips, 10, fmt.Sprint(c.replyBytes))
}
