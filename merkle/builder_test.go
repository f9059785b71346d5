package merkle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// slowNode hashes a node from the records of its range, as the package comment says.
func slowNode(p replica, s Shape, level, i int) Digest {
	if level == int(s.Depth) {
		leaf := s.leaf(uint32(i))
		data, empty := []byte{leafPrefix}, true
		for _, r := range p {
			if leaf.holds(r.token) {
				d := r.digest()
				data = append(binary.BigEndian.AppendUint64(data, r.token), d[:]...)
				empty = false
			}
		}
		if empty {
			return Digest{}
		}
		sum := sha256.Sum256(data)
		return Digest(sum[:])
	}
	data := []byte{nodePrefix}
	for k := range Fanout {
		d := slowNode(p, s, level+1, i*Fanout+k)
		data = append(data, d[:]...)
	}
	if bytes.Equal(data[1:], make([]byte, Fanout*DigestBytes)) {
		return Digest{}
	}
	sum := sha256.Sum256(data)
	return Digest(sum[:])
}

// TestDigests compares every node with its definition.
func TestDigests(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawShape(t)
		s.Depth = min(s.Depth, 3)
		p, _ := drawReplicas(t, s.Range)
		tree := p.tree(t, s)
		for level := range int(s.Depth) + 1 {
			for i := range int(nodesAt(level)) {
				if slowNode(p, s, level, i) != tree.Node(level, i) {
					t.Fatalf("node %d of level %d", i, level)
				}
			}
		}
		decoded, err := Decode(tree.Append(nil))
		require.NoError(t, err)
		require.Equal(t, tree, decoded)
	})
}

// TestLongLeaves: leaves around the size of the builder's buffer.
func TestLongLeaves(t *testing.T) {
	s := Shape{everything, 1}
	for n := range 3*bufEntries + 2 {
		p := append(one(7, n), one(1<<63, n)...)
		require.Equal(t, slowNode(p, s, 0, 0), p.tree(t, s).Root(), n)
	}
}

// TestLeaves: the leaves of every shape divide its range.
func TestLeaves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawShape(t)
		next := s.Lo
		for i := range s.leaves() {
			leaf := s.leaf(uint32(i))
			if leaf.Lo != next || leaf.Hi < leaf.Lo || s.index(s.leaves(), leaf.Lo) != i || s.index(s.leaves(), leaf.Hi) != i {
				t.Fatalf("leaf %d of %+v is %+v", i, s, leaf)
			}
			next = leaf.Hi + 1
		}
		if next != s.Hi+1 {
			t.Fatalf("leaves of %+v end at %x", s, next)
		}
		if s.node(0, 0) != s.Range {
			t.Fatalf("the root covers %+v", s.node(0, 0))
		}
	})
}

func TestNewShape(t *testing.T) {
	for records, depth := range map[uint64]uint8{
		0: 0, 1: 0, 4: 0, 5: 1, 16: 1, 17: 2, 1_000_000: 9, 1 << 20: 9, 1<<20 + 1: 10, 1 << 40: MaxDepth, 1<<64 - 1: MaxDepth,
	} {
		require.Equal(t, Shape{everything, depth}, NewShape(0, 1<<64-1, records), records)
	}
	require.Equal(t, Shape{Range{9, 9}, 0}, NewShape(9, 9, 1000), "one token is not cut")
	require.Equal(t, Shape{Range{0, 15}, 2}, NewShape(0, 15, 1000))
	require.Panics(t, func() { NewBuilder(NewShape(1, 0, 1)) })
	require.Panics(t, func() { NewBuilder(Shape{Range{1, 2}, 3}) })
}

func TestBuilderOrder(t *testing.T) {
	b := NewBuilder(NewShape(10, 20, 100))
	require.Error(t, b.Add(9, Digest{}))
	require.NoError(t, b.Add(12, Digest{}))
	require.NoError(t, b.Add(12, Digest{}))
	require.Error(t, b.Add(11, Digest{}))
	require.Error(t, b.Add(21, Digest{}))
	require.NoError(t, b.Add(20, Digest{}))
	tree := b.Tree()
	require.Same(t, tree, b.Tree())
	require.ErrorContains(t, b.Add(20, Digest{}), "finished")
	require.Panics(t, func() { tree.Node(0, 1) })
	require.Panics(t, func() { tree.Node(9, 0) })
}

// TestOrderMatters: the records of one token are hashed in order, each once.
func TestOrderMatters(t *testing.T) {
	p := one(3, 3)
	roots := map[Digest]bool{}
	for _, q := range []replica{p, {p[1], p[0], p[2]}, p[:2], {p[0], p[0], p[1], p[2]}, {p[0], p[1], p[2], p[2]}} {
		roots[q.tree(t, NewShape(0, 9, 3)).Root()] = true
	}
	require.Len(t, roots, 5)
}

// TestPinned: trees are compared between nodes of different releases.
func TestPinned(t *testing.T) {
	tree := random(1, 100, everything).tree(t, NewShape(0, 1<<64-1, 100))
	require.Equal(t, "a7aa720acf225ee60f0b263c3441ac70", fmt.Sprintf("%x", tree.Root()))
	sum := Sum(tree.Append(nil))
	require.Equal(t, "6da3aab61d353f66efda7b534e229f02", fmt.Sprintf("%x", sum))
	require.Equal(t, "2ec33b46ad628511", fmt.Sprintf("%x", Salt{1}.Short(sum)))
}

func TestDecodeDamage(t *testing.T) {
	data := random(1, 40, everything).tree(t, NewShape(0, 1<<64-1, 40)).Append(nil)
	for i := range data {
		bad := slices.Clone(data)
		bad[i] ^= 1
		tree, err := Decode(bad)
		require.ErrorIs(t, err, ErrMalformed, i)
		require.Nil(t, tree)
		_, err = Decode(data[:i])
		require.ErrorIs(t, err, ErrMalformed, i)
	}
	_, err := Decode(append(data, 0))
	require.ErrorIs(t, err, ErrMalformed)
}
