package wal

import (
	"encoding/binary"
	"fmt"

	"example.com/kvstore/lsm/internal/base"
)

// Version is the newest format of segments that this package reads, and the one
// that it writes.
const Version = 1

// headBytes is the size of what a segment begins with:
//
//	header | salt u64 | checksum u32
//
// The salt is random and drawn anew for each use of a file: whatever else comes
// into the file, be it from an earlier use or out of a value, cannot have it.
const headBytes = base.HeaderBytes + 12

// appendHead appends the head of a segment.
func appendHead(dst []byte, number, salt uint64) []byte {
	dst = base.AppendHeader(dst, base.LogMagic, base.Header{Version: Version, Number: number})
	dst = binary.LittleEndian.AppendUint64(dst, salt)
	return binary.LittleEndian.AppendUint32(dst, base.Checksum(number, base.HeaderBytes, dst[len(dst)-8:]))
}

// decodeHead reads the head of the segment number and gives its salt.
func decodeHead(b []byte, number uint64, name string) (salt uint64, err error) {
	h, err := base.DecodeHeader(b, base.LogMagic, Version, name)
	switch {
	case err != nil:
		return 0, err
	case h.Number != number:
		return 0, base.Corrupt(name, 0, fmt.Sprintf("segment %d", number), fmt.Sprintf("segment %d", h.Number))
	case len(b) < headBytes:
		return 0, base.Corrupt(name, base.HeaderBytes, "a salt", "the end of the file")
	}
	b = b[base.HeaderBytes:headBytes]
	if sum := base.Checksum(number, base.HeaderBytes, b[:8]); sum != binary.LittleEndian.Uint32(b[8:]) {
		return 0, base.Corrupt(name, base.HeaderBytes, fmt.Sprintf("checksum %08x", sum), fmt.Sprintf("%08x", binary.LittleEndian.Uint32(b[8:])))
	}
	return binary.LittleEndian.Uint64(b), nil
}

// GroupHeaderBytes is the size of the header before the records of a group:
//
//	CRC32C u32 | length u32 | salt u64 | sequence u64 | previous end u64 | synced u64
//
// All numbers are little-endian. The checksum is base.Checksum of the segment,
// the offset of the group, and everything after the checksum. Length counts the
// records' bytes.
const GroupHeaderBytes = 40

// A group is the decoded header.
type group struct {
	length uint32
	salt   uint64 // of the segment
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

// seal fills in the header of b, whose records are in place already, for a place
// in a segment.
func (g *group) seal(b []byte, segment uint64, off int64) {
	binary.LittleEndian.PutUint32(b[4:], g.length)
	binary.LittleEndian.PutUint64(b[8:], g.salt)
	binary.LittleEndian.PutUint64(b[16:], g.sequence)
	binary.LittleEndian.PutUint64(b[24:], g.previous)
	binary.LittleEndian.PutUint64(b[32:], g.synced)
	binary.LittleEndian.PutUint32(b, base.Checksum(segment, off, b[4:]))
}

// decodeGroup reads a header of GroupHeaderBytes; nothing is verified.
func decodeGroup(b []byte) (g group, sum uint32) {
	return group{
		length:   binary.LittleEndian.Uint32(b[4:]),
		salt:     binary.LittleEndian.Uint64(b[8:]),
		sequence: binary.LittleEndian.Uint64(b[16:]),
		previous: binary.LittleEndian.Uint64(b[24:]),
		synced:   binary.LittleEndian.Uint64(b[32:]),
	}, binary.LittleEndian.Uint32(b)
}
