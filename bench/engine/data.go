package main

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
)

const (
	keyBytes    = 16
	headerBytes = 16      // of a value: its seed, and a check of seed and key
	absentKeys  = 1 << 62 // numbers from here on are of keys that nobody writes
	poolBytes   = 1 << 20 // random bytes that values are cut from
)

// pool is the same in every process: a value follows from key, seed and size.
var pool = func() []byte {
	p := make([]byte, poolBytes)
	src := rand.NewChaCha8([32]byte{1})
	src.Read(p)
	return p
}()

// mix is a bijection that scatters its argument (the finalizer of MurmurHash3).
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// putKey writes the key of a number: 16 hexadecimal digits. Consecutive numbers
// are far apart in the order of keys, different numbers have different keys.
func putKey(key []byte, number uint64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], mix(number+0x9e3779b97f4a7c15))
	hex.Encode(key, b[:])
}

// putValue fills value with what belongs to a key and a seed. The second half is
// a copy of the first, which is random: it compresses to about a half.
func putValue(value []byte, number, seed uint64) {
	check := mix(seed ^ mix(number))
	half := (len(value) + 1) / 2
	binary.LittleEndian.PutUint64(value, seed)
	binary.LittleEndian.PutUint64(value[8:], check)
	body := value[headerBytes:half]
	copy(body, pool[check%uint64(poolBytes-len(body)):])
	copy(value[half:], value)
}

// validValue tells whether a value is one that putValue makes for a key. It
// builds the value again in scratch and compares every byte.
func validValue(value []byte, number uint64, size int, scratch []byte) bool {
	if len(value) != size {
		return false
	}
	putValue(scratch[:size], number, binary.LittleEndian.Uint64(value))
	return string(scratch[:size]) == string(value)
}
