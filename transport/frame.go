package transport

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// frameHeader is what precedes each message:
//
//	length 4 | crc 4 | message
const frameHeader = 8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum gives the crc of the message head+body.
func checksum(head, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, body)
}

// appendFrame appends the frame of the message head+body, whose checksum is sum:
// a caller computes that before it takes a lock.
func appendFrame(dst []byte, sum uint32, head, body []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(head)+len(body)))
	dst = binary.LittleEndian.AppendUint32(dst, sum)
	return append(append(dst, head...), body...)
}

// parseFrame looks at the first frame of b. It gives its message, which aliases
// b, and its whole size. If b holds only a part, the message is nil, and so is
// the error; the size is 0 while not even that is known.
func parseFrame(b []byte, limit int) (msg []byte, size int, err error) {
	if len(b) < frameHeader {
		return nil, 0, nil
	}
	n := binary.LittleEndian.Uint32(b)
	if n == 0 || uint64(n) > uint64(limit) {
		return nil, 0, fmt.Errorf("%w: frame of %d bytes, the limit is %d", ErrCorrupt, n, limit)
	}
	size = frameHeader + int(n)
	if len(b) < size {
		return nil, size, nil
	}
	msg = b[frameHeader:size:size]
	if want, got := binary.LittleEndian.Uint32(b[4:]), crc32.Checksum(msg, castagnoli); want != got {
		return nil, 0, fmt.Errorf("%w: frame of %d bytes has checksum %08x instead of %08x", ErrCorrupt, n, got, want)
	}
	return msg, size, nil
}
