package merkle

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
)

const (
	entryBytes = 8 + DigestBytes // a record's part of what its leaf hashes
	bufEntries = 32
)

// A Builder makes a [Tree] of a stream of records. Its memory is that of the tree,
// however many records a leaf gets.
type Builder struct {
	tree *Tree
	leaf uint64 // being filled
	end  uint64 // last token of that leaf
	last uint64 // token added last
	done bool

	buf  []byte    // what the leaf hashes: prefix, then (token 8 | digest 16) by record
	long hash.Hash // has taken what did not fit buf
	used bool      // long has taken some
}

// NewBuilder returns a builder of a tree of this shape, which comes from [NewShape] or
// [DecodeShape]. It panics for a shape that cannot be.
func NewBuilder(s Shape) *Builder {
	if !s.valid() {
		panic(fmt.Sprintf("merkle: no shape: %+v", s))
	}
	b := &Builder{
		tree: newTree(s),
		end:  s.leaf(0).Hi,
		last: s.Lo,
		buf:  make([]byte, 1, 1+bufEntries*entryBytes),
		long: sha256.New(),
	}
	b.buf[0] = leafPrefix
	return b
}

// Add takes the next record. Records come in the order of (token, key), which must
// be the same on all replicas for records that are equal; their digests tell keys
// apart. It fails for a token outside the shape's range or before the last one.
func (b *Builder) Add(token uint64, d Digest) error {
	if token < b.last || token > b.tree.shape.Hi {
		return fmt.Errorf("merkle: token %x after %x in a range that ends at %x: add records in token order", token, b.last, b.tree.shape.Hi)
	}
	if b.done {
		return errors.New("merkle: the tree is finished: start another Builder")
	}
	b.last = token
	if token > b.end {
		b.seal()
		b.leaf = b.tree.shape.index(b.tree.shape.leaves(), token)
		b.end = b.tree.shape.leaf(uint32(b.leaf)).Hi
	}
	if len(b.buf) == cap(b.buf) {
		b.long.Write(b.buf)
		b.buf, b.used = b.buf[:0], true
	}
	b.buf = binary.BigEndian.AppendUint64(b.buf, token)
	b.buf = append(b.buf, d[:]...)
	return nil
}

// seal ends the leaf being filled.
func (b *Builder) seal() {
	if len(b.buf) == 1 && !b.used {
		return // no records: stays the zero Digest
	}
	digest := &b.tree.nodes[before(int(b.tree.shape.Depth))+b.leaf]
	if b.used {
		b.long.Write(b.buf)
		b.buf = b.long.Sum(b.buf[:0])
		*digest = Digest(b.buf[:DigestBytes])
		b.long.Reset()
		b.used = false
	} else {
		*digest = Sum(b.buf)
	}
	b.buf = append(b.buf[:0], leafPrefix)
}

// Tree ends the stream and returns the tree of all that was added.
func (b *Builder) Tree() *Tree {
	if !b.done {
		b.seal()
		b.tree.hashInner()
		b.done = true
	}
	return b.tree
}
