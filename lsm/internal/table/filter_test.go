package table

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/kvstore/lsm/internal/base"
)

// The vector of FORMAT.md, scheme 1: tables in the field depend on it.
func TestFilterLocationsVector(t *testing.T) {
	for token, want := range map[uint64][4]uint64{
		0:                  {0, 1, 2, 3},
		1:                  {1, 0x5692161d100b05e6, 0xad242c3a20160bcb, 0x03b64257302111b0},
		0xef46db3751d8e999: {0xef46db3751d8e999, 0x59e69c06e036b918, 0xc4865cd66e948897, 0x2f261da5fcf25816},
		math.MaxUint64:     {0xffffffffffffffff, 0xb4d055fcf2cbbd7a, 0x69a0abf9e5977af5, 0x1e7101f6d8633870},
	} {
		var got [4]uint64
		locations(token, got[:])
		require.Equal(t, want, got, "%#x", got)
	}
}

func TestFilterHasNoFalseNegatives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		token := tokenGenerator(t)
		var tokens []uint64
		for i := range rapid.IntRange(0, 200).Draw(t, "n") {
			tokens = append(tokens, token([]byte{byte(i)}))
		}
		bits := rapid.Float64Range(0.1, maxBitsPerKey).Draw(t, "bits")
		f, known, ok := decodeFilter(appendFilter(nil, newFilter([][]uint64{tokens}, bits)))
		require.True(t, known && ok)
		for _, token := range tokens {
			require.True(t, f.mayContain(token))
		}
	})
}

func TestFilterFalsePositives(t *testing.T) {
	const n = 100_000
	for _, c := range []struct{ bits, low, high float64 }{{10, 0.006, 0.011}, {5, 0.07, 0.12}, {16, 0, 0.001}} {
		tokens := make([]uint64, n)
		for i := range tokens {
			tokens[i] = base.Token([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		}
		f := newFilter([][]uint64{tokens}, c.bits)
		admitted := 0
		for i := range n {
			if f.mayContain(base.Token([]byte{byte(i), byte(i >> 8), byte(i >> 16), 1})) {
				admitted++
			}
		}
		rate := float64(admitted) / n
		t.Logf("%v bits a key: %.3f %% false positives", c.bits, 100*rate)
		require.True(t, rate >= c.low && rate <= c.high, "%v bits: %v", c.bits, rate)
	}
}

func TestFilterDoesNotAllocate(t *testing.T) {
	f, token := newFilter([][]uint64{{1, 2, 3}}, 10), uint64(0)
	require.Zero(t, testing.AllocsPerRun(1000, func() { f.mayContain(token); token++ }))
}
