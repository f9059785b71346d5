package base

import (
	"math"

	"github.com/cespare/xxhash/v2"
)

// SystemToken is the token of the node's own state. No key hashes to it.
const SystemToken = math.MaxUint64

// Token gives the position of a key in the order of everything: its xxHash64
// with seed 0, where the highest value, reserved for SystemToken, is lowered
// by one.
func Token(key []byte) uint64 {
	return min(xxhash.Sum64(key), SystemToken-1)
}
