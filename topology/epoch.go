package topology

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"example.com/kvstore/ring"
)

// Limits of an epoch's names; those of a ring come on top.
const MaxNameBytes = ring.MaxNameBytes // of a cluster name, a node id, an address

// A Member is a node of a cluster.
type Member struct {
	ring.Node
	Addr string // where its peers reach it
	UID  uint64 // random, the durable identity of its data directory
}

// Is reports whether m and o are the same node with the same data directory.
func (m Member) Is(o Member) bool { return m.ID == o.ID && m.UID == o.UID }

// An Epoch is one agreed state of a cluster: its members and who owns what. It is
// immutable. Epochs form a chain: each names the hash of the one before.
type Epoch struct {
	Cluster [16]byte // random id of the cluster
	Name    string   // and its name
	Number  uint64   // 1 for the first
	Prev    [32]byte // Hash of the epoch before, zero for the first
	Members []Member // sorted by ID; Members[i].Node is Ring.Nodes()[i]
	Sloppy  bool     // hints may count towards a write's level
	Ring    *ring.Ring
}

// Bootstrap returns the first epoch of a new cluster with one member. q and n are as
// in ring.New. self must have a weight above 0.
func Bootstrap(cluster [16]byte, name string, self Member, q, n int, sloppy bool) (*Epoch, error) {
	if cluster == [16]byte{} {
		return nil, fmt.Errorf("topology: the cluster id is zero, draw a random one")
	}
	if len(name) > MaxNameBytes {
		return nil, fmt.Errorf("topology: the cluster name is longer than %d bytes", MaxNameBytes)
	}
	if err := checkMember(self); err != nil {
		return nil, err
	}
	r, err := ring.New(q, n, []ring.Node{self.Node})
	if err != nil {
		return nil, err
	}
	return &Epoch{Cluster: cluster, Name: name, Number: 1, Members: []Member{self}, Sloppy: sloppy, Ring: r}, nil
}

// checkMember checks what the ring does not, and that a message can carry m.
func checkMember(m Member) error {
	switch {
	case m.ID == "":
		return fmt.Errorf("topology: the member has no id, give it one")
	case m.UID == 0:
		return fmt.Errorf("topology: member %q has no UID, draw a random one", m.ID)
	case max(len(m.ID), len(m.Addr), len(m.Zone), len(m.DataCenter)) > MaxNameBytes:
		return fmt.Errorf("topology: member %.32q has a name or address longer than %d bytes, shorten it", m.ID, MaxNameBytes)
	}
	return nil
}

// next returns the epoch after e, with more members: none leaves all as it is.
func (e *Epoch) next(more []Member) (*Epoch, error) {
	members := append(slices.Clone(e.Members), more...)
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	nodes := make([]ring.Node, len(members))
	for i, m := range members {
		if err := checkMember(m); err != nil {
			return nil, err
		}
		nodes[i] = m.Node
	}
	r, _, err := ring.Rebalance(e.Ring, nodes)
	if err != nil {
		return nil, err
	}
	return &Epoch{Cluster: e.Cluster, Name: e.Name, Number: e.Number + 1, Prev: e.Hash(), Members: members, Sloppy: e.Sloppy, Ring: r}, nil
}

// succeeded returns the epoch after e in which other directories have taken the places of
// the members with their ids. They differ from these in nothing but address and UID.
func (e *Epoch) succeeded(heirs []Member) (*Epoch, error) {
	members := slices.Clone(e.Members)
	var ids []string
	for _, h := range heirs {
		if err := checkMember(h); err != nil {
			return nil, err
		}
		i := e.Ring.Index(h.ID)
		if i < 0 || members[i].Node != h.Node {
			return nil, fmt.Errorf("topology: %q takes the place of no member like it", h.ID)
		}
		members[i] = h
		ids = append(ids, h.ID)
	}
	r, err := e.Ring.Renewed(ids...)
	if err != nil {
		return nil, err
	}
	return &Epoch{Cluster: e.Cluster, Name: e.Name, Number: e.Number + 1, Prev: e.Hash(), Members: members, Sloppy: e.Sloppy, Ring: r}, nil
}

// Member returns the member of that id.
func (e *Epoch) Member(id string) (Member, bool) {
	i := e.Ring.Index(id)
	if i < 0 {
		return Member{}, false
	}
	return e.Members[i], true
}

// index returns the place of the member that is m, or -1.
func (e *Epoch) index(m Member) int {
	if i := e.Ring.Index(m.ID); i >= 0 && e.Members[i].Is(m) {
		return i
	}
	return -1
}

// Hash is the SHA-256 of the encoding.
func (e *Epoch) Hash() [32]byte {
	b, _ := e.AppendBinary(nil)
	return sha256.Sum256(b)
}

const epochMagic = "kve1"

// AppendBinary appends the encoding of e: equal epochs have equal encodings. The error
// is always nil.
//
//	"kve1" | cluster 16 | number 8 | prev 32 | sloppy 1 | name string | ring blob
//	| per node of the ring: address string, UID 8 | CRC32C of all before
func (e *Epoch) AppendBinary(b []byte) ([]byte, error) {
	start := len(b)
	b = append(append(b, epochMagic...), e.Cluster[:]...)
	b = binary.LittleEndian.AppendUint64(b, e.Number)
	b = append(b, e.Prev[:]...)
	b = appendFlag(b, e.Sloppy)
	b = appendString(b, e.Name)
	placement, _ := e.Ring.AppendBinary(nil)
	b = appendBlob(b, placement)
	for _, m := range e.Members {
		b = appendString(b, m.Addr)
		b = binary.LittleEndian.AppendUint64(b, m.UID)
	}
	return seal(b, start), nil
}

// DecodeEpoch decodes an epoch that fills all of b, which it does not keep.
func DecodeEpoch(b []byte) (*Epoch, error) {
	r, err := unseal(b, epochMagic)
	if err != nil {
		return nil, err
	}
	e := &Epoch{}
	copy(e.Cluster[:], r.bytes(16))
	e.Number = r.uint64()
	copy(e.Prev[:], r.bytes(32))
	sloppy := r.byte()
	e.Sloppy = sloppy == 1
	e.Name = r.string()
	if e.Ring, err = ring.Decode(r.blob()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	for _, n := range e.Ring.Nodes() {
		m := Member{Node: n, Addr: r.string(), UID: r.uint64()}
		if r.bad || m.UID == 0 {
			return nil, fmt.Errorf("%w: member %q is cut short", ErrCorrupt, n.ID)
		}
		e.Members = append(e.Members, m)
	}
	first := e.Number == 1
	if len(r.rest) > 0 || sloppy > 1 || e.Cluster == [16]byte{} || e.Ring.Epoch() != e.Number || first != (e.Prev == [32]byte{}) {
		return nil, fmt.Errorf("%w: an epoch with wrong fields", ErrCorrupt)
	}
	return e, nil
}

// follows reports whether e is a link of the chain right after prev, whose hash is
// given; prev is nil before the first.
func (e *Epoch) follows(prev *Epoch, hash [32]byte) bool {
	if prev == nil {
		return e.Number == 1
	}
	return e.Number == prev.Number+1 && e.Cluster == prev.Cluster && e.Name == prev.Name && bytes.Equal(e.Prev[:], hash[:])
}
