package topology

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// ErrCorrupt is wrapped by the errors of decoding an epoch or an agent's state.
var ErrCorrupt = errors.New("topology: encoding is corrupt")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal appends the CRC32C of b from start on.
func seal(b []byte, start int) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// unseal checks magic and checksum and returns what lies between.
func unseal(b []byte, magic string) (*reader, error) {
	body := len(b) - 4
	if body < len(magic) || string(b[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: no %q at its start", ErrCorrupt, magic)
	}
	want, got := binary.LittleEndian.Uint32(b[body:]), crc32.Checksum(b[:body], castagnoli)
	if want != got {
		return nil, fmt.Errorf("%w: checksum %08x, expected %08x", ErrCorrupt, got, want)
	}
	return &reader{rest: b[len(magic):body]}, nil
}

// A reader takes fields off rest. After the first missing byte bad is set and all
// fields are zero. Integers are little endian; a string has its length in one byte
// before it, a blob in four.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) string() string { return string(r.bytes(uint64(r.byte()))) }

// blob aliases the input.
func (r *reader) blob() []byte {
	if b := r.bytes(4); b != nil {
		return r.bytes(uint64(binary.LittleEndian.Uint32(b)))
	}
	return nil
}

func (r *reader) ballot() ballot { return ballot{r.uint64(), r.uint64()} }

func appendString(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }

func appendBlob(b, blob []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(blob))), blob...)
}

func appendBallot(b []byte, n ballot) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, n.round), n.uid)
}

func appendFlag(b []byte, f bool) []byte {
	if f {
		return append(b, 1)
	}
	return append(b, 0)
}
