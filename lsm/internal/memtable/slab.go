package memtable

import (
	"encoding/binary"

	"example.com/kvstore/lsm/internal/base"
)

// A ref is the place of a record in the slabs of a shard: slab number << 32 |
// offset + 1; 0 is none.
type ref uint64

func makeRef(slab, off int) ref { return ref(slab)<<32 | ref(off) + 1 }

func (r ref) slab() int { return int(r >> 32) }
func (r ref) off() int  { return int(uint32(r)) - 1 }

// A record in a slab:
//
//	token u64 | stamp u64 | actor u64 | value length u32 | key length u16 | flags u8 | 0 u8 |
//	[min stamp u64 | min actor u64] | [deadline i64] | key | value
//
// The flags, and which optional parts there are, are those of base.Record.Flags.
const headerBytes = 32

// slabs is what readers see of a shard's memory. The list only grows; a copy is
// published for each new slab.
type slabs [][]byte

func recordBytes(r *base.Record) int {
	n := headerBytes + len(r.Key) + len(r.Value)
	if r.Min != r.Max {
		n += 16
	}
	if r.Deadline != 0 {
		n += 8
	}
	return n
}

// put writes r into b, which has recordBytes(r) bytes.
func put(b []byte, r *base.Record) {
	binary.LittleEndian.PutUint64(b, r.Token)
	binary.LittleEndian.PutUint64(b[8:], r.Max.Stamp)
	binary.LittleEndian.PutUint64(b[16:], r.Max.Actor)
	binary.LittleEndian.PutUint32(b[24:], uint32(len(r.Value)))
	binary.LittleEndian.PutUint16(b[28:], uint16(len(r.Key)))
	b[30] = r.Flags()
	b = b[headerBytes:]
	if r.Min != r.Max {
		binary.LittleEndian.PutUint64(b, r.Min.Stamp)
		binary.LittleEndian.PutUint64(b[8:], r.Min.Actor)
		b = b[16:]
	}
	if r.Deadline != 0 {
		binary.LittleEndian.PutUint64(b, uint64(r.Deadline))
		b = b[8:]
	}
	copy(b[copy(b, r.Key):], r.Value)
}

// at gives the record at p; it aliases the slab.
func (s slabs) at(p ref) base.Record {
	b := s[p.slab()][p.off():]
	flags := b[30]
	r := base.Record{
		Token: binary.LittleEndian.Uint64(b),
		Max:   base.Dot(b[8:]),
		Kind:  base.Kind(flags & base.FlagKind),
	}
	vlen, klen := int(binary.LittleEndian.Uint32(b[24:])), int(binary.LittleEndian.Uint16(b[28:]))
	b = b[headerBytes:]
	r.Min = r.Max
	if flags&base.FlagRange != 0 {
		r.Min, b = base.Dot(b), b[16:]
	}
	if flags&base.FlagDeadline != 0 {
		r.Deadline, b = int64(binary.LittleEndian.Uint64(b)), b[8:]
	}
	r.Key, r.Value = b[:klen:klen], b[klen:klen+vlen:klen+vlen]
	return r
}

// key gives the token and key of the record at p.
func (s slabs) key(p ref) (token uint64, key []byte) {
	b := s[p.slab()][p.off():]
	n := headerBytes
	if b[30]&base.FlagRange != 0 {
		n += 16
	}
	if b[30]&base.FlagDeadline != 0 {
		n += 8
	}
	return binary.LittleEndian.Uint64(b), b[n : n+int(binary.LittleEndian.Uint16(b[28:]))]
}
