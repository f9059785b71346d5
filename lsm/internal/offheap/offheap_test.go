package offheap

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

func TestAlloc(t *testing.T) {
	require.Nil(t, Alloc(0))
	Free(nil)
	require.Panics(t, func() { Alloc(-1) })
	before := Live()
	var all [][]byte
	sum := int64(0)
	for _, n := range []int{1, 100, pageBytes - 1, pageBytes, pageBytes + 1, 256 << 10, 5<<20 + 3} {
		b := Alloc(n)
		require.Len(t, b, n)
		require.GreaterOrEqual(t, cap(b), (n+pageBytes-1)/pageBytes*pageBytes)
		require.True(t, zero(b[:cap(b)]))
		b[0], b[n-1] = 1, 2
		all = append(all, b)
		sum += int64(n+pageBytes-1) / pageBytes * pageBytes
		require.Equal(t, before+sum, Live())
	}
	for _, b := range all {
		Free(b[:0])
	}
	require.Equal(t, before, Live())
}

// TestFreshIsZero requires zeroed memory also where freed memory comes back.
func TestFreshIsZero(t *testing.T) {
	for range 100 {
		b := Alloc(64 << 10)
		require.True(t, zero(b))
		copy(b, bytes.Repeat([]byte{0xff}, len(b)))
		Free(b)
	}
}

// TestOnHeap frees what Alloc gives when the operating system refuses.
func TestOnHeap(t *testing.T) {
	b := onHeap(pageBytes)
	require.True(t, isOnHeap(b))
	live.Add(pageBytes)
	before := Live()
	Free(b)
	require.Equal(t, before-pageBytes, Live())
}

// TestForeign requires a panic for memory that is not from Alloc.
func TestForeign(t *testing.T) {
	mapped := Alloc(1)
	defer Free(mapped)
	if isOnHeap(mapped) {
		return // there is no telling
	}
	before := Live()
	require.Panics(t, func() { Free(make([]byte, pageBytes)) })
	live.Store(before)
	if !Traps {
		b := Alloc(1)
		Free(b)
		require.Panics(t, func() { Free(b) })
		live.Store(before)
	}
}
