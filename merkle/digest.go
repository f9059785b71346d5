package merkle

import (
	"crypto/sha256"
	"encoding/binary"
)

// DigestBytes is the size of a [Digest].
const DigestBytes = 16

// A Digest is a SHA-256 hash cut to its first 128 bits. The zero Digest stands for
// a part of a tree without records.
type Digest [DigestBytes]byte

// Sum is the digest of data: of a record, if data is an encoding of its key and its
// logical content that is equal on all replicas that hold it.
func Sum(data []byte) Digest {
	sum := sha256.Sum256(data)
	return Digest(sum[:DigestBytes])
}

// A Salt is 16 random bytes, drawn anew by the asker of each comparison, once both
// trees are built. Digests travel as 8 bytes of SHA-256(salt, digest): whoever wrote
// the records could not know the salt, so whatever the records are, a difference
// stays unseen with a chance of 2^-64. Without salt 2^32 trials would find two
// records with equal 8 bytes.
type Salt [16]byte

const shortBytes = 8

// Short is the short form of d under the salt, zero for the zero Digest.
func (s Salt) Short(d Digest) uint64 {
	if d == (Digest{}) {
		return 0
	}
	var b [len(s) + DigestBytes]byte
	copy(b[:], s[:])
	copy(b[len(s):], d[:])
	sum := sha256.Sum256(b[:])
	return binary.BigEndian.Uint64(sum[:])
}

// First bytes of what is hashed for leaves and for inner nodes (RFC 6962, section
// 2.1), so that neither can be taken for the other.
const (
	leafPrefix = 0
	nodePrefix = 1
)

// nodeDigest is the digest of an inner node with these children.
func nodeDigest(children []Digest) Digest {
	var b [1 + Fanout*DigestBytes]byte
	b[0] = nodePrefix
	empty := true
	for i, c := range children {
		empty = empty && c == Digest{}
		copy(b[1+i*DigestBytes:], c[:])
	}
	if empty {
		return Digest{}
	}
	return Sum(b[:])
}
