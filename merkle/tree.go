package merkle

import "fmt"

// A Tree is the digests of the records in a range of tokens. It is never modified,
// so any number of goroutines may use it.
type Tree struct {
	shape Shape
	nodes []Digest // level by level, the root first
}

func newTree(s Shape) *Tree {
	return &Tree{shape: s, nodes: make([]Digest, before(int(s.Depth)+1))}
}

// hashInner computes the inner nodes from the leaves.
func (t *Tree) hashInner() {
	for level := int(t.shape.Depth) - 1; level >= 0; level-- {
		nodes := t.nodes[before(level):before(level+1)]
		for i := range nodes {
			nodes[i] = nodeDigest(t.children(level, uint32(i)))
		}
	}
}

// children are the digests below a node that is no leaf.
func (t *Tree) children(level int, i uint32) []Digest {
	first := before(level+1) + Fanout*uint64(i)
	return t.nodes[first : first+Fanout]
}

// Shape is what the tree covers.
func (t *Tree) Shape() Shape { return t.shape }

// Root is the digest of everything: equal for two trees of one shape only if they
// were built of the same records, zero if of none.
func (t *Tree) Root() Digest { return t.nodes[0] }

// Node is the digest of node i, counted from 0 in token order, of a level: the root
// is level 0, the leaves are level Shape().Depth. It panics if there is none.
func (t *Tree) Node(level, i int) Digest {
	if level < 0 || level > int(t.shape.Depth) || i < 0 || uint64(i) >= nodesAt(level) {
		panic(fmt.Sprintf("merkle: no node %d in level %d of a tree of depth %d", i, level, t.shape.Depth))
	}
	return t.nodes[before(level)+uint64(i)]
}

const treeFormat = 1

// Append appends the encoding of the tree to dst: 34 bytes and 16 for each leaf.
//
//	format 1 = 0x01 | shape 17 | check 16 | leaves, 16 each, in token order
//
// The check is the digest of the shape followed by the root.
func (t *Tree) Append(dst []byte) []byte {
	dst = append(dst, treeFormat)
	dst = t.shape.Append(dst)
	check := t.check()
	dst = append(dst, check[:]...)
	for _, d := range t.nodes[before(int(t.shape.Depth)):] {
		dst = append(dst, d[:]...)
	}
	return dst
}

func (t *Tree) check() Digest {
	root := t.Root()
	return Sum(append(t.shape.Append(make([]byte, 0, shapeBytes+DigestBytes)), root[:]...))
}

// Decode decodes what [Tree.Append] made. It hashes the inner nodes anew, so that
// damage anywhere shows: [ErrMalformed]. The tree needs 4/3 of the memory of data.
func Decode(data []byte) (*Tree, error) {
	if len(data) == 0 || data[0] != treeFormat {
		return nil, fmt.Errorf("%w: no tree of format %d", ErrMalformed, treeFormat)
	}
	shape, rest, err := DecodeShape(data[1:])
	if err != nil {
		return nil, err
	}
	if want := DigestBytes * (1 + shape.leaves()); uint64(len(rest)) != want {
		return nil, fmt.Errorf("%w: %d bytes of digests where depth %d has %d", ErrMalformed, len(rest), shape.Depth, want)
	}
	t := newTree(shape)
	check, rest := Digest(rest[:DigestBytes]), rest[DigestBytes:]
	leaves := t.nodes[before(int(shape.Depth)):]
	for i := range leaves {
		leaves[i] = Digest(rest[i*DigestBytes:][:DigestBytes])
	}
	t.hashInner()
	if t.check() != check {
		return nil, fmt.Errorf("%w: check %x where the leaves give %x", ErrMalformed, check, t.check())
	}
	return t, nil
}
