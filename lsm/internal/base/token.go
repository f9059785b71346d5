package base

import (
	"math"

	"github.com/cespare/xxhash/v2"
)

// Tokens from FirstSystemToken to SystemToken are for the node's own state. No key hashes
// to one of them.
const (
	FirstSystemToken = SystemToken - 1<<32 + 1
	SystemToken      = math.MaxUint64
)

// Token gives the position of a key in the order of everything: its xxHash64
// with seed 0, lowered to stay below FirstSystemToken.
func Token(key []byte) uint64 {
	return min(xxhash.Sum64(key), FirstSystemToken-1)
}

// Mix scrambles a token, so that tokens from a few narrow ranges spread evenly (the
// finalizer of MurmurHash3 with the constants of Stafford's variant 13, as in
// SplitMix64). It is part of the format of filters.
func Mix(token uint64) uint64 {
	token ^= token >> 30
	token *= 0xbf58476d1ce4e5b9
	token ^= token >> 27
	token *= 0x94d049bb133111eb
	return token ^ token>>31
}
