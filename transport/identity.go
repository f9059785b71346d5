package transport

import (
	"encoding/binary"
	"fmt"
)

// Versions of the protocol that this package speaks. An Identity that leaves
// its range zero gets these.
const (
	MinVersion = 1
	MaxVersion = 1
)

// maxNameBytes bounds each string of an Identity.
const maxNameBytes = 255

// Identity is what a node says of itself in a handshake.
type Identity struct {
	Cluster [16]byte // zero: not a member of a cluster yet
	Name    string   // the cluster's name, at most 255 bytes, like Node and Addr
	Node    string
	Addr    string // where the node is dialed
	// MinVersion and MaxVersion are the protocol versions the node speaks. Both
	// zero: those of this package.
	MinVersion, MaxVersion uint16
	// Features is a set of bits. The upper half are requirements: a peer that
	// lacks one of them is refused.
	Features uint64
	Boot     uint64 // random, drawn at each start of the node
}

// requiredFeatures are the bits of Identity.Features that both sides must have.
const requiredFeatures = 0xffffffff_00000000

// complete fills in the default version range.
func (id Identity) complete() Identity {
	if id.MinVersion == 0 && id.MaxVersion == 0 {
		id.MinVersion, id.MaxVersion = MinVersion, MaxVersion
	}
	return id
}

// Version gives the highest protocol version that both sides speak, or the
// reason why the two must not talk: ErrWrongCluster or ErrVersion. Both sides
// come to the same answer.
func (id Identity) Version(other Identity) (uint16, error) {
	id, other = id.complete(), other.complete()
	var none [16]byte
	switch {
	case id.Name != other.Name:
		return 0, fmt.Errorf("%w: the names are %q and %q", ErrWrongCluster, id.Name, other.Name)
	case id.Cluster != none && other.Cluster != none && id.Cluster != other.Cluster:
		return 0, fmt.Errorf("%w: the ids are %x and %x", ErrWrongCluster, id.Cluster, other.Cluster)
	case (id.Features^other.Features)&requiredFeatures != 0:
		return 0, fmt.Errorf("%w: the required features are %#x and %#x",
			ErrVersion, id.Features&requiredFeatures, other.Features&requiredFeatures)
	}
	v := min(id.MaxVersion, other.MaxVersion)
	if v < id.MinVersion || v < other.MinVersion {
		return 0, fmt.Errorf("%w: %d to %d and %d to %d",
			ErrVersion, id.MinVersion, id.MaxVersion, other.MinVersion, other.MaxVersion)
	}
	return v, nil
}

// AppendIdentity appends the encoding of id to dst:
//
//	min version 2 | max version 2 | features 8 | boot 8 | cluster 16 |
//	name 1+n | node 1+n | addr 1+n
//
// Integers are little-endian; each string has its length in front.
func AppendIdentity(dst []byte, id Identity) ([]byte, error) {
	id = id.complete()
	dst = binary.LittleEndian.AppendUint16(dst, id.MinVersion)
	dst = binary.LittleEndian.AppendUint16(dst, id.MaxVersion)
	dst = binary.LittleEndian.AppendUint64(dst, id.Features)
	dst = binary.LittleEndian.AppendUint64(dst, id.Boot)
	dst = append(dst, id.Cluster[:]...)
	for _, s := range []string{id.Name, id.Node, id.Addr} {
		if len(s) > maxNameBytes {
			return nil, fmt.Errorf("transport: %.20q... exceeds the %d bytes of a name", s, maxNameBytes)
		}
		dst = append(dst, byte(len(s)))
		dst = append(dst, s...)
	}
	return dst, nil
}

// DecodeIdentity decodes what AppendIdentity wrote. Bytes that follow are left
// alone: later versions may say more.
func DecodeIdentity(b []byte) (Identity, error) {
	const fixed = 2 + 2 + 8 + 8 + 16
	if len(b) < fixed {
		return Identity{}, fmt.Errorf("%w: identity of %d bytes", ErrCorrupt, len(b))
	}
	id := Identity{
		MinVersion: binary.LittleEndian.Uint16(b),
		MaxVersion: binary.LittleEndian.Uint16(b[2:]),
		Features:   binary.LittleEndian.Uint64(b[4:]),
		Boot:       binary.LittleEndian.Uint64(b[12:]),
		Cluster:    [16]byte(b[20:36]),
	}
	if id.MinVersion == 0 || id.MaxVersion < id.MinVersion {
		return Identity{}, fmt.Errorf("%w: versions %d to %d", ErrCorrupt, id.MinVersion, id.MaxVersion)
	}
	b = b[fixed:]
	for _, s := range []*string{&id.Name, &id.Node, &id.Addr} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return Identity{}, fmt.Errorf("%w: identity cut short", ErrCorrupt)
		}
		*s, b = string(b[1:1+int(b[0])]), b[1+int(b[0]):]
	}
	return id, nil
}
