package kvtest

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// letters draws short words of a few letters.
func letters(r *rand.Rand) []byte {
	b := make([]byte, r.IntN(4))
	for i := range b {
		b[i] = byte('a' + r.IntN(3))
	}
	return b
}

// union merges words as sorted sets of letters.
func union(a, b []byte) []byte {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

func TestCheckMerge(t *testing.T) {
	set := func(r *rand.Rand) []byte { return union(letters(r), nil) }
	CheckMerge(t, union, set)
	CheckMerge(t, func(a, b []byte) []byte {
		if bytes.Compare(a, b) < 0 {
			return b
		}
		return a
	}, letters)
	for law, merge := range map[string]func(a, b []byte) []byte{
		"commutative": func(a, b []byte) []byte { return a },
		"idempotent":  func(a, b []byte) []byte { c := slices.Concat(a, b); slices.Sort(c); return c },
		"modifies":    func(a, b []byte) []byte { return append(a[:0], union(a, b)...) },
	} {
		require.Contains(t, mergeCounterExample(merge, letters), law)
	}
	// Each letter beats one of the others.
	beats := func(a, b []byte) []byte {
		if a[0] == b[0] || (a[0]-b[0]+3)%3 == 1 {
			return a
		}
		return b
	}
	letter := func(r *rand.Rand) []byte { return []byte{byte('a' + r.IntN(3))} }
	require.Contains(t, mergeCounterExample(beats, letter), "associative")
	require.Equal(t, "it is not commutative\n  a = \"a\"\n  b = \"\"\n  merge(a, b) = \"a\"\n  merge(b, a) = \"\"",
		mergeCounterExample(func(a, b []byte) []byte { return a }, func(r *rand.Rand) []byte { return []byte("a")[:r.IntN(2)] }))
}
