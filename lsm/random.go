package lsm

import (
	"crypto/rand"
	"encoding/binary"
)

// systemRandom is the default of Options.Random.
func systemRandom() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}
