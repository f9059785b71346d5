package check

import (
	"bytes"
	"fmt"
	"hash/fnv"
)

// Value makes a value that tells what it is: the key it belongs to, a number
// that no other value of the history has, and a checksum. It is padded to size.
func Value(key string, id, size int) []byte {
	b := fmt.Appendf(nil, "%s #%d ", key, id)
	for i := len(b); i < size-17; i++ {
		b = append(b, "0123456789abcdef"[(i*7+id)%16])
	}
	return fmt.Appendf(b, "=%016x", sum(b))
}

func sum(b []byte) uint64 {
	h := fnv.New64a()
	h.Write(b)
	return h.Sum64()
}

// Intact reports whether b is, byte for byte, something that Value made for
// this key.
func Intact(key string, b []byte) bool {
	i := len(b) - 17
	return i >= 0 && bytes.Equal(b[i:], fmt.Appendf(nil, "=%016x", sum(b[:i]))) && bytes.HasPrefix(b, []byte(key+" #"))
}

// describe shortens a value to what tells it from others.
func describe(b []byte) string {
	const most = 40
	if i := bytes.IndexByte(b, '#'); i >= 0 && i < most {
		if j := bytes.IndexByte(b[i:], ' '); j > 0 {
			return fmt.Sprintf("%q…(%d bytes)", b[:i+j], len(b))
		}
	}
	if len(b) > most {
		return fmt.Sprintf("%q…(%d bytes)", b[:most], len(b))
	}
	return fmt.Sprintf("%q", b)
}
