package merkle

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestExhaustive compares all pairs of replicas of up to three keys, each absent or
// of one of two versions, in all shapes of a small range.
func TestExhaustive(t *testing.T) {
	keys := []record{{token: 10}, {token: 10, key: 1}, {token: 29}}
	var all []replica
	for n := range 27 {
		var p replica
		for _, k := range keys {
			if version := n % 3; version > 0 {
				k.version = uint32(version)
				p = append(p, k)
			}
			n /= 3
		}
		all = append(all, p)
	}
	for hi := uint64(29); hi < 45; hi++ {
		for depth := uint8(0); ; depth++ {
			s := Shape{Range{10, hi}, depth}
			if !s.valid() {
				require.GreaterOrEqual(t, depth, uint8(2))
				break
			}
			for _, mine := range all {
				for _, theirs := range all {
					c := mine.compare(t, theirs, s, Salt{})
					require.Equal(t, naive(mine, theirs, Salt{}), c.differences)
					require.Empty(t, c.contradicted)
					checkRanges(t, s, c)
				}
			}
		}
	}
}

// drawShape draws any inclusive range, and any depth that it can have.
func drawShape(t *rapid.T) Shape {
	lo, hi := rapid.Uint64().Draw(t, "lo"), rapid.Uint64().Draw(t, "hi")
	switch rapid.IntRange(0, 2).Draw(t, "range") {
	case 0:
		lo, hi = 0, 1<<64-1
	case 1:
		hi = lo | 1<<rapid.IntRange(0, 63).Draw(t, "bits") - 1
	}
	s := Shape{Range: Range{min(lo, hi), max(lo, hi)}, Depth: uint8(rapid.IntRange(0, 5).Draw(t, "depth"))}
	for !s.valid() {
		s.Depth--
	}
	return s
}

// drawReplicas draws two replicas that share some records; many share tokens.
func drawReplicas(t *rapid.T, r Range) (mine, theirs replica) {
	tokens := rapid.SliceOfN(rapid.Uint64Range(r.Lo, r.Hi), 1, 40).Draw(t, "tokens")
	tokens = append(tokens, r.Lo, r.Hi)
	for range rapid.IntRange(0, 80).Draw(t, "records") {
		rec := record{
			token:   rapid.SampledFrom(tokens).Draw(t, "token"),
			key:     uint32(rapid.IntRange(0, 9).Draw(t, "key")),
			version: 1,
		}
		fate := rapid.IntRange(0, 9).Draw(t, "fate")
		if fate != 0 {
			mine = append(mine, rec)
		}
		if fate == 1 {
			rec.version = 2
		}
		if fate != 2 {
			theirs = append(theirs, rec)
		}
	}
	return normal(mine), normal(theirs)
}

// normal sorts p and keeps one record of each key.
func normal(p replica) replica {
	slices.SortStableFunc(p, record.compare)
	return slices.CompactFunc(p, func(a, b record) bool { return a.compare(b) == 0 })
}

// fewEntries makes leaves oversized that hold more than n records.
func fewEntries(n int) (restore func()) {
	maxEntries = n
	return func() { maxEntries = MaxEntries }
}

// TestNaive compares random replicas in random shapes, with leaves that may be cut
// into slices, with the naive comparison.
func TestNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		defer fewEntries(rapid.SampledFrom([]int{1, 2, 5, MaxEntries}).Draw(t, "entries"))()
		s := drawShape(t)
		mine, theirs := drawReplicas(t, s.Range)
		salt := Salt{rapid.Byte().Draw(t, "salt")}
		c := mine.compare(t, theirs, s, salt)
		require.Equal(t, naive(mine, theirs, salt), c.differences)
		require.Empty(t, c.contradicted)
		checkRanges(t, s, c)
	})
}

// TestRangesOnly: without a Reader a comparison ends with the leaves that differ.
func TestRangesOnly(t *testing.T) {
	mine := random(1, 10_000, everything)
	theirs := mine.changed(2, 10)
	s := NewShape(0, 1<<64-1, 10_000)
	full := mine.compare(t, theirs, s, Salt{})
	c := compare(t, mine.tree(t, s), theirs.tree(t, s), nil, nil, Salt{})
	require.Equal(t, full.ranges, c.ranges)
	require.Empty(t, c.differences)
	require.Less(t, c.trips, full.trips)
}

// TestEmptyAndSingle: the smallest trees.
func TestEmptyAndSingle(t *testing.T) {
	s := NewShape(0, 1<<64-1, 0)
	require.Zero(t, s.Depth)
	require.Equal(t, Digest{}, replica{}.tree(t, s).Root())
	c := replica{}.compare(t, replica{}, s, Salt{})
	require.Zero(t, c.trips)

	single := one(1<<64-1, 1)
	for _, s := range []Shape{s, {everything, MaxDepth}, {Range{1<<64 - 1, 1<<64 - 1}, 0}} {
		c = single.compare(t, replica{}, s, Salt{})
		require.Equal(t, []Difference{{1<<64 - 1, Salt{}.Short(single[0].digest()), true}}, c.differences)
		checkRanges(t, s, c)
		c = replica{}.compare(t, single, s, Salt{})
		require.Equal(t, []Difference{{1<<64 - 1, Salt{}.Short(single[0].digest()), false}}, c.differences)
	}
}

// TestNestedSlices: records that an attacker, knowing the salt, made share a slice,
// and what cannot even so be cut.
func TestNestedSlices(t *testing.T) {
	defer fewEntries(3)()
	salt := Salt{7}
	var mine replica
	for k := uint32(0); len(mine) < 9; k++ {
		if r := (record{5, k, 1}); salt.Short(r.digest())>>52 == 0xabc {
			mine = append(mine, r)
		}
	}
	s := NewShape(0, 1<<64-1, 9)
	for _, theirs := range []replica{nil, mine[1:], mine.changed(1, 1), mine.changed(1, 9)} {
		c := mine.compare(t, theirs, s, salt)
		require.Equal(t, naive(mine, theirs, salt), c.differences)
		c = theirs.compare(t, mine, s, salt)
		require.Equal(t, naive(theirs, mine, salt), c.differences)
	}

	same := func(_, _ uint64, each func(uint64, Digest)) error {
		for range 5 {
			each(5, Digest{1})
		}
		return nil
	}
	tree := mine.tree(t, s)
	d := NewDiff(replica{}.tree(t, s), tree.Root(), salt, replica{}.read)
	for {
		reply, err := tree.Answer(nil, d.Request(nil), same)
		if err != nil {
			require.ErrorContains(t, err, "digests must cover the key")
			return
		}
		require.NoError(t, d.Step(reply, func(Difference) {}))
		require.False(t, d.Done())
	}
}

// TestContradictions flips a bit of each node of a tree in turn, on either side: it
// is noticed, and no true difference is hidden.
func TestContradictions(t *testing.T) {
	mine := random(1, 200, everything)
	theirs := mine.changed(2, 3)
	s := NewShape(0, 1<<64-1, 200)
	want := naive(mine, theirs, Salt{})
	for _, side := range []int{0, 1} {
		for i := range before(int(s.Depth) + 1) {
			for _, equal := range []bool{true, false} {
				other := theirs
				if equal {
					other = mine
				}
				trees := []*Tree{mine.tree(t, s), other.tree(t, s)}
				truth := compare(t, trees[0], trees[1], mine.read, other.read, Salt{})
				trees[side].nodes[i][3] ^= 4
				c := compare(t, trees[0], trees[1], mine.read, other.read, Salt{})
				switch {
				case equal && i > 0:
					require.Zero(t, c.trips, "below a root that is equal")
				case equal:
					require.Equal(t, []Range{everything}, c.contradicted)
				default:
					require.Equal(t, want, c.differences, "node %d", i)
					if len(c.ranges) != len(truth.ranges) {
						require.NotEmpty(t, c.contradicted, "node %d", i)
					}
				}
				_, err := Decode(trees[side].Append(nil))
				if leaf := i >= before(int(s.Depth)); leaf || i == 0 {
					require.ErrorIs(t, err, ErrMalformed)
				} else {
					require.NoError(t, err, "inner nodes are hashed anew")
				}
			}
		}
	}
}

// TestMovedData: a Reader that does not read what the tree was built of.
func TestMovedData(t *testing.T) {
	mine := random(1, 100, everything)
	theirs := mine.changed(2, 1)
	s := NewShape(0, 1<<64-1, 100)
	c := compare(t, mine.tree(t, s), theirs.tree(t, s), mine.read, mine.read, Salt{})
	require.Empty(t, c.differences)
	require.Equal(t, c.ranges, c.contradicted)
}

// TestReaderErrors: they come out unchanged, on both sides.
func TestReaderErrors(t *testing.T) {
	damaged := errors.New("damaged")
	bad := func(uint64, uint64, func(uint64, Digest)) error { return damaged }
	outside := func(_, hi uint64, each func(uint64, Digest)) error { each(hi+1, Digest{}); return nil }
	mine, theirs := one(1, 1), one(2, 1)
	s := NewShape(0, 10, 1)
	tree := theirs.tree(t, s)
	d := NewDiff(mine.tree(t, s), tree.Root(), Salt{}, bad)
	request := d.Request(nil)
	for _, r := range []Reader{bad, outside, nil} {
		got, err := tree.Answer([]byte("kept"), request, r)
		require.Error(t, err)
		require.Equal(t, "kept", string(got))
	}
	reply, err := tree.Answer(nil, request, theirs.read)
	require.NoError(t, err)
	require.ErrorIs(t, d.Step(reply, func(Difference) {}), damaged)
	require.ErrorContains(t, d.Step(reply, func(Difference) {}), "not asked for")
}

// TestShapesDiffer: trees of two shapes are not compared.
func TestShapesDiffer(t *testing.T) {
	p := random(1, 100, everything)
	a, b := p.tree(t, Shape{everything, 2}), p.tree(t, Shape{everything, 3})
	d := NewDiff(a, b.Root(), Salt{}, p.read)
	_, err := b.Answer(nil, d.Request(nil), p.read)
	require.ErrorIs(t, err, ErrShape)
}

// TestXorForgery: combined by xor, 64 bits of each record, digests can be forged by
// linear algebra: of 65 records with two versions each, choose which to exchange. The
// leaf, which hashes the concatenation, tells the two replicas apart.
func TestXorForgery(t *testing.T) {
	low := func(r record) uint64 { d := r.digest(); d = Sum(d[:]); return binary.BigEndian.Uint64(d[:]) }
	mine := one(1, 65)
	theirs := slices.Clone(mine)

	type vector struct {
		sum    uint64 // xor of the changes that exchanging the chosen records makes
		chosen [65]bool
	}
	basis := map[int]vector{} // by the sum's highest bit
	var forged *vector
	for i := range mine {
		other := mine[i]
		other.version = 2
		v := vector{sum: low(mine[i]) ^ low(other)}
		v.chosen[i] = true
		for bit := 63; bit >= 0 && v.sum != 0; bit-- {
			if v.sum>>bit&1 == 0 {
				continue
			}
			b, ok := basis[bit]
			if !ok {
				basis[bit] = v
				break
			}
			v.sum ^= b.sum
			for k := range v.chosen {
				v.chosen[k] = v.chosen[k] != b.chosen[k]
			}
		}
		if v.sum == 0 {
			forged = &v
			break
		}
	}
	require.NotNil(t, forged, "65 vectors of 64 bits are dependent")
	var before, after uint64
	for i := range mine {
		if forged.chosen[i] {
			theirs[i].version = 2
		}
		before ^= low(mine[i])
		after ^= low(theirs[i])
	}
	require.NotEqual(t, mine, theirs)
	require.Equal(t, before, after, "the forgery works on xor")

	s := NewShape(0, 1<<64-1, 65)
	require.NotEqual(t, mine.tree(t, s).Root(), theirs.tree(t, s).Root())
	require.Equal(t, naive(mine, theirs, Salt{}), mine.compare(t, theirs, s, Salt{}).differences)
}

// TestSalt: what collides in the bits that travel, under one salt, does not under
// another. 20 bits stand for 64, which would take 2^32 trials.
func TestSalt(t *testing.T) {
	seen := map[uint64]Digest{}
	for k := uint32(0); ; k++ {
		d := record{1, 1, k}.digest()
		short := Salt{1}.Short(d) >> 44
		if other, ok := seen[short]; ok {
			require.NotEqual(t, Salt{2}.Short(d)>>44, Salt{2}.Short(other)>>44)
			require.Less(t, k, uint32(20_000))
			return
		}
		seen[short] = d
	}
}
