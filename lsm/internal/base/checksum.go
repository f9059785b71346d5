package base

import "hash/crc32"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC32C of the place, then the parts: the file's number and
// the offset of the content within it, 8 bytes each, little-endian. Content
// that was written to another place, or to another file, does not verify.
func Checksum(file uint64, off int64, content []byte) uint32 {
	if !Defences.ChecksumPlace {
		file, off = 0, 0
	}
	// Byte by byte and not from a slice, which hash/crc32 would let escape.
	sum := extend64(extend64(0xffffffff, file), uint64(off))
	return Extend(^sum, content)
}

// extend64 takes the 8 bytes of v, lowest first, into an inverted checksum.
func extend64(sum uint32, v uint64) uint32 {
	for range 8 {
		sum = castagnoli[byte(sum)^byte(v)] ^ sum>>8
		v >>= 8
	}
	return sum
}

// Extend continues a checksum over more content.
func Extend(sum uint32, content []byte) uint32 {
	return crc32.Update(sum, castagnoli, content)
}
