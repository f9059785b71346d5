package base

import (
	"encoding/binary"
	"strconv"
)

// HeaderBytes is the size of the header that starts every file.
const HeaderBytes = 32

// A Magic names a kind of file.
type Magic string

const (
	TableMagic    Magic = "kvstable"
	LogMagic      Magic = "kvs-log\n"
	ManifestMagic Magic = "kvsmanif"
	// CheckpointMagic is that of a manifest that was made once, for a copy.
	CheckpointMagic Magic = "kvscheck"
)

// A Header starts every file:
//
//	magic 8 | version u16 | cipher u8 | 0 u8 | key id u32 | file number u64 | 0 u32 | CRC32C u32
//
// The checksum is Checksum(number, 0, the 28 bytes before it). The layout and
// the checksum stay the same in all versions, so that a newer file is told
// from a damaged one.
type Header struct {
	Version uint16
	Cipher  uint8  // 0: not encrypted; the only one of version 1
	KeyID   uint32 // the key of the cipher, 0 without
	Number  uint64 // part of every checksum in the file
}

// AppendHeader appends the HeaderBytes bytes of a header.
func AppendHeader(dst []byte, m Magic, h Header) []byte {
	start := len(dst)
	dst = append(dst, m...)
	dst = binary.LittleEndian.AppendUint16(dst, h.Version)
	dst = append(dst, h.Cipher, 0)
	dst = binary.LittleEndian.AppendUint32(dst, h.KeyID)
	dst = binary.LittleEndian.AppendUint64(dst, h.Number)
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	return binary.LittleEndian.AppendUint32(dst, Checksum(h.Number, 0, dst[start:]))
}

// DecodeHeader reads the header at the start of b. It fails with a
// *CorruptError when the bytes are no header of kind m, and with
// ErrIncompatible when the version is above newest or the file is encrypted.
func DecodeHeader(b []byte, m Magic, newest uint16, file string) (Header, error) {
	if len(b) < HeaderBytes {
		return Header{}, Corrupt(file, 0, "a header of 32 bytes", len(b))
	}
	if found := string(b[:8]); found != string(m) {
		return Header{}, Corrupt(file, 0, "magic "+string(m), strconv.Quote(found))
	}
	h := Header{
		Version: binary.LittleEndian.Uint16(b[8:]),
		Cipher:  b[10],
		KeyID:   binary.LittleEndian.Uint32(b[12:]),
		Number:  binary.LittleEndian.Uint64(b[16:]),
	}
	if want, found := Checksum(h.Number, 0, b[:28]), binary.LittleEndian.Uint32(b[28:]); want != found {
		return Header{}, Corrupt(file, 0, want, found)
	}
	switch {
	case h.Version == 0:
		return Header{}, Corrupt(file, 0, "a version of at least 1", 0)
	case h.Version > newest:
		return Header{}, incompatible(file, "format version %d, this library reads up to %d", h.Version, newest)
	case h.Cipher != 0 || h.KeyID != 0:
		return Header{}, incompatible(file, "cipher %d, key %d", h.Cipher, h.KeyID)
	}
	return h, nil
}
