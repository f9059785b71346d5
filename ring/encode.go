package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Encoding, version 1. A varint is as in encoding/binary, in its shortest form; a
// string is its length in one byte, then its bytes.
//
//	magic      4 bytes "kvr1"
//	epoch      varint
//	log2(q)    1 byte
//	n          1 byte
//	nodes      varint, then for each, in order of id:
//	             id, zone, data centre: string
//	             weight: 8 bytes, little endian, IEEE 754
//	partitions q times: r owners, each a varint, an index into nodes;
//	             epoch - changed, a varint
//
// Equal rings have equal encodings. Checksums are left to what embeds a ring.
const magic = "kvr1"

// MaxEncodedBytes bounds the encoding of the largest ring.
const MaxEncodedBytes = 32 + MaxNodes*(3*(1+MaxNameBytes)+8) + MaxPartitions*(2*MaxReplicas+binary.MaxVarintLen64)

// ErrCorrupt is wrapped by the errors of Decode.
var ErrCorrupt = errors.New("ring: encoding is corrupt")

// AppendBinary appends the encoding of r. The error is always nil.
func (r *Ring) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, magic...)
	b = binary.AppendUvarint(b, r.epoch)
	b = append(b, byte(64-r.shift), byte(r.n))
	b = binary.AppendUvarint(b, uint64(len(r.nodes)))
	for _, n := range r.nodes {
		for _, s := range [...]string{n.ID, n.Zone, n.DataCenter} {
			b = append(append(b, byte(len(s))), s...)
		}
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(n.Weight))
	}
	for p, changed := range r.changed {
		for _, x := range r.Owners(p) {
			b = binary.AppendUvarint(b, uint64(x))
		}
		b = binary.AppendUvarint(b, r.epoch-changed)
	}
	return b, nil
}

// Decode decodes a ring that fills all of b. It accepts exactly what AppendBinary
// gives, checks every invariant of a ring, and does not keep b.
func Decode(b []byte) (*Ring, error) {
	d := decoder{rest: b}
	if string(d.bytes(len(magic))) != magic {
		return nil, fmt.Errorf("%w: no magic", ErrCorrupt)
	}
	epoch := d.uvarint()
	log, n := int(d.byte()), int(d.byte())
	count := d.uvarint()
	if d.bad || epoch == 0 || log > 16 || checkShape(1<<log, n) != nil || count > MaxNodes || count > uint64(len(d.rest)) {
		return nil, fmt.Errorf("%w: bad header", ErrCorrupt)
	}
	nodes := make([]Node, count)
	for i := range nodes {
		nodes[i] = Node{ID: d.string(), Zone: d.string(), DataCenter: d.string(), Weight: math.Float64frombits(d.uint64())}
		if nodes[i].Weight == 0 && math.Signbit(nodes[i].Weight) {
			return nil, fmt.Errorf("%w: weight -0", ErrCorrupt)
		}
	}
	if d.bad {
		return nil, fmt.Errorf("%w: nodes are cut short", ErrCorrupt)
	}
	if err := checkNodes(nodes); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	r := newRing(epoch, 1, n, nodes)
	q := 1 << log
	if len(d.rest) < q*(r.r+1) {
		return nil, fmt.Errorf("%w: partitions are cut short", ErrCorrupt)
	}
	r.shift = uint(64 - log)
	r.changed = make([]uint64, q)
	r.owners = make([]int32, q*r.r)
	for p := range r.changed {
		row := r.Owners(p)
		for i := range row {
			x := d.uvarint()
			if x >= count || nodes[x].Weight == 0 {
				return nil, fmt.Errorf("%w: partition %d has no owner %d", ErrCorrupt, p, x)
			}
			row[i] = int32(x)
			for _, y := range row[:i] {
				if y == row[i] {
					return nil, fmt.Errorf("%w: partition %d has owner %d twice", ErrCorrupt, p, x)
				}
			}
		}
		age := d.uvarint()
		if d.bad || age >= epoch {
			return nil, fmt.Errorf("%w: partition %d has no valid epoch", ErrCorrupt, p)
		}
		r.changed[p] = epoch - age
	}
	if len(d.rest) > 0 {
		return nil, fmt.Errorf("%w: %d bytes too many", ErrCorrupt, len(d.rest))
	}
	return r, nil
}

// A decoder takes fields off rest. After the first bad one all are zero.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) bytes(n int) []byte {
	if n > len(d.rest) {
		d.bad, d.rest = true, nil
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) string() string { return string(d.bytes(int(d.byte()))) }

// uvarint takes a varint in its shortest form.
func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || n > 1 && d.rest[n-1] == 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}
