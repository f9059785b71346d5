package base

import (
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC32C of the place, then the parts: the file's number and
// the offset of the content within it, 8 bytes each, little-endian. Content
// that was written to another place, or to another file, does not verify.
func Checksum(file uint64, off int64, content []byte) uint32 {
	var place [16]byte
	binary.LittleEndian.PutUint64(place[:], file)
	binary.LittleEndian.PutUint64(place[8:], uint64(off))
	return Extend(crc32.Checksum(place[:], castagnoli), content)
}

// Extend continues a checksum over more content.
func Extend(sum uint32, content []byte) uint32 {
	return crc32.Update(sum, castagnoli, content)
}
