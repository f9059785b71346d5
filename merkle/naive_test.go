package merkle

import (
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"github.com/stretchr/testify/require"
)

// A record as a replica would hold it.
type record struct {
	token        uint64
	key, version uint32
}

// digest is all of the record: as good as a hash for these tests, and fast.
func (r record) digest() (d Digest) {
	binary.BigEndian.PutUint64(d[:], r.token)
	binary.BigEndian.PutUint32(d[8:], r.key)
	binary.BigEndian.PutUint32(d[12:], r.version)
	return d
}

func (r record) compare(s record) int {
	return cmp.Or(cmp.Compare(r.token, s.token), cmp.Compare(r.key, s.key))
}

// A replica is records in order.
type replica []record

func (p replica) read(lo, hi uint64, each func(uint64, Digest)) error {
	i, _ := slices.BinarySearchFunc(p, record{token: lo}, record.compare)
	for ; i < len(p) && p[i].token <= hi; i++ {
		each(p[i].token, p[i].digest())
	}
	return nil
}

func (p replica) tree(t require.TestingT, s Shape) *Tree {
	b := NewBuilder(s)
	for _, r := range p {
		if err := b.Add(r.token, r.digest()); err != nil {
			require.NoError(t, err)
		}
	}
	return b.Tree()
}

// naive compares two replicas record by record.
func naive(mine, theirs replica, salt Salt) []Difference {
	var out []Difference
	only := func(a, b replica, here bool) {
		for _, r := range a {
			i, ok := slices.BinarySearchFunc(b, r, record.compare)
			if !ok || b[i] != r {
				out = append(out, Difference{r.token, salt.Short(r.digest()), here})
			}
		}
	}
	only(mine, theirs, true)
	only(theirs, mine, false)
	sortDifferences(out)
	return out
}

func sortDifferences(d []Difference) {
	slices.SortFunc(d, func(x, y Difference) int {
		here := 0
		if x.Here != y.Here {
			here = 1
			if x.Here {
				here = -1
			}
		}
		return cmp.Or(cmp.Compare(x.Token, y.Token), cmp.Compare(x.Short, y.Short), here)
	})
}

// A comparison is what one Diff came to.
type comparison struct {
	differences  []Difference
	ranges       []Range
	contradicted []Range

	trips, requestBytes, replyBytes int
}

func (c *comparison) bytes() int { return DigestBytes + c.requestBytes + c.replyBytes }

// compare runs a Diff over messages.
func compare(t require.TestingT, mine, theirs *Tree, readMine, readTheirs Reader, salt Salt) (c comparison) {
	d := NewDiff(mine, theirs.Root(), salt, readMine)
	for !d.Done() {
		request := d.Request(nil)
		require.Equal(t, request, d.Request(nil), "a request is repeated")
		require.LessOrEqual(t, len(request), MaxRequestBytes)
		reply, err := theirs.Answer(nil, request, readTheirs)
		require.NoError(t, err)
		require.LessOrEqual(t, len(reply), MaxReplyBytes)
		require.NoError(t, d.Step(reply, func(f Difference) { c.differences = append(c.differences, f) }))
		c.trips++
		c.requestBytes += len(request)
		c.replyBytes += len(reply)
	}
	require.Empty(t, d.Request(nil))
	sortDifferences(c.differences)
	c.ranges, c.contradicted = d.Ranges(), d.Contradicted()
	return c
}

func (p replica) compare(t require.TestingT, theirs replica, s Shape, salt Salt) comparison {
	return compare(t, p.tree(t, s), theirs.tree(t, s), p.read, theirs.read, salt)
}

// checkRanges wants each difference in one of the ranges, and each range to hold one.
func checkRanges(t require.TestingT, s Shape, c comparison) {
	var want []Range
	for _, d := range c.differences {
		leaf := s.leaf(uint32(s.index(s.leaves(), d.Token)))
		if n := len(want); n > 0 && (want[n-1].Hi >= leaf.Lo || want[n-1].Hi+1 == leaf.Lo) {
			want[n-1].Hi = leaf.Hi
			continue
		}
		want = append(want, leaf)
	}
	require.Equal(t, want, c.ranges)
}

var everything = Range{0, 1<<64 - 1}

// random is n records of random tokens in a range, in order.
func random(seed, n uint64, r Range) replica {
	rng := rand.New(rand.NewPCG(seed, 0))
	p := make(replica, n)
	for i := range p {
		token := rng.Uint64()
		if r != everything {
			token = r.Lo + token%(r.Hi-r.Lo+1)
		}
		p[i] = record{token, uint32(i), 1}
	}
	slices.SortFunc(p, record.compare)
	return p
}

// one is n records that share one token.
func one(token uint64, n int) replica {
	p := make(replica, n)
	for i := range p {
		p[i] = record{token, uint32(i), 1}
	}
	return p
}

// changed is p with k records, spread at random, of another version.
func (p replica) changed(seed uint64, k int) replica {
	q := slices.Clone(p)
	for _, i := range rand.New(rand.NewPCG(seed, 1)).Perm(len(p))[:k] {
		q[i].version++
	}
	return q
}
