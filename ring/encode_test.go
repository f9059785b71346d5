package ring

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func testRing(t testing.TB) *Ring {
	r, err := New(16, 3, append(named(5, 2), Node{ID: "proxy", DataCenter: "east"}))
	require.NoError(t, err)
	r, _, err = Rebalance(r, r.Nodes()[1:])
	require.NoError(t, err)
	return r
}

func TestEncoding(t *testing.T) {
	for _, nodes := range [][]Node{named(1, 1), named(500, 3), testRing(t).Nodes()} {
		r, err := New(256, 3, nodes)
		require.NoError(t, err)
		b, err := r.AppendBinary([]byte("before"))
		require.NoError(t, err)
		require.LessOrEqual(t, len(b), MaxEncodedBytes)
		got, err := Decode(b[len("before"):])
		require.NoError(t, err)
		require.Equal(t, r, got)
	}
}

// A damaged encoding is refused, or it is the encoding of another valid ring.
func TestDecodeDamaged(t *testing.T) {
	b, err := testRing(t).AppendBinary(nil)
	require.NoError(t, err)
	for i := range b {
		_, err := Decode(b[:i])
		require.ErrorIs(t, err, ErrCorrupt, "cut at %d", i)
		for bit := range 8 {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << bit
			checkDecode(t, bad)
		}
	}
	_, err = Decode(append(b, 0))
	require.ErrorIs(t, err, ErrCorrupt)
}

func checkDecode(t *testing.T, b []byte) {
	r, err := Decode(b)
	if err != nil {
		require.ErrorIs(t, err, ErrCorrupt)
		return
	}
	again, err := r.AppendBinary(nil)
	require.NoError(t, err)
	require.Equal(t, b, again, "one encoding per ring")
	for p := range r.Partitions() {
		require.LessOrEqual(t, r.Changed(p), r.Epoch())
	}
	require.Len(t, r.AppendPreference(nil, 0), holders(r.nodes))
}

func FuzzDecode(f *testing.F) {
	b, err := testRing(f).AppendBinary(nil)
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte(magic))
	f.Fuzz(checkDecode)
}
