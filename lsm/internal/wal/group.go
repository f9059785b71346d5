package wal

import (
	"encoding/binary"

	"example.com/kvstore/lsm/internal/base"
)

// Version is the newest format of segments that this package reads, and the one
// that it writes.
const Version = 1

// GroupHeaderBytes is the size of the header before the records of a group:
//
//	CRC32C u32 | length u32 | segment u64 | sequence u64 | previous end u64 | synced u64
//
// All numbers are little-endian. The checksum is base.Checksum of the segment,
// the offset of the group, and everything after the checksum. Length counts the
// records' bytes.
const GroupHeaderBytes = 40

// A group is the decoded header.
type group struct {
	length  uint32
	segment uint64
	// sequence numbers the groups of the whole log from 1, without gaps.
	sequence uint64
	// previous is the offset where the group before this one ends, in the same
	// segment or, for the first group, in an earlier one.
	previous uint64
	// synced is the highest sequence known to be durable when this group was
	// written: sequence-1 when every group is synced.
	synced uint64
}

func (g *group) bytes() int64 { return GroupHeaderBytes + int64(g.length) }

// seal fills in the header of b, whose records are in place already, for offset
// off.
func (g *group) seal(b []byte, off int64) {
	binary.LittleEndian.PutUint32(b[4:], g.length)
	binary.LittleEndian.PutUint64(b[8:], g.segment)
	binary.LittleEndian.PutUint64(b[16:], g.sequence)
	binary.LittleEndian.PutUint64(b[24:], g.previous)
	binary.LittleEndian.PutUint64(b[32:], g.synced)
	binary.LittleEndian.PutUint32(b, base.Checksum(g.segment, off, b[4:]))
}

// decodeGroup reads a header of GroupHeaderBytes; nothing is verified.
func decodeGroup(b []byte) (g group, sum uint32) {
	return group{
		length:   binary.LittleEndian.Uint32(b[4:]),
		segment:  binary.LittleEndian.Uint64(b[8:]),
		sequence: binary.LittleEndian.Uint64(b[16:]),
		previous: binary.LittleEndian.Uint64(b[24:]),
		synced:   binary.LittleEndian.Uint64(b[32:]),
	}, binary.LittleEndian.Uint32(b)
}
