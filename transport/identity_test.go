package transport

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIdentityEncoding(t *testing.T) {
	id := Identity{Cluster: [16]byte{1, 2}, Name: "orders", Node: "n1", Addr: "10.0.0.1:7000",
		MinVersion: 1, MaxVersion: 7, Features: 1<<63 | 5, Boot: 1 << 62}
	b, err := AppendIdentity([]byte("x"), id)
	require.NoError(t, err)
	b = b[1:]
	got, err := DecodeIdentity(append(b, "what a later version adds"...))
	require.NoError(t, err)
	require.Equal(t, id, got)
	for n := range b {
		_, err := DecodeIdentity(b[:n])
		require.ErrorIs(t, err, ErrCorrupt)
	}
	_, err = AppendIdentity(nil, Identity{Name: strings.Repeat("x", 256)})
	require.Error(t, err)
	b, err = AppendIdentity(nil, Identity{})
	require.NoError(t, err)
	got, err = DecodeIdentity(b)
	require.NoError(t, err)
	require.Equal(t, Identity{MinVersion: MinVersion, MaxVersion: MaxVersion}, got)
}

// Nodes of all versions meet: each pair agrees on the same version, or both
// refuse.
func TestIdentityVersions(t *testing.T) {
	var ranges []Identity
	for lo := uint16(1); lo <= 4; lo++ {
		for hi := lo; hi <= 4; hi++ {
			ranges = append(ranges, Identity{MinVersion: lo, MaxVersion: hi})
		}
	}
	for _, a := range ranges {
		for _, b := range ranges {
			var want uint16 // the stupid way: try them all
			for v := uint16(1); v <= 4; v++ {
				if a.MinVersion <= v && v <= a.MaxVersion && b.MinVersion <= v && v <= b.MaxVersion {
					want = v
				}
			}
			got, err := a.Version(b)
			back, errBack := b.Version(a)
			require.Equal(t, want, got)
			require.Equal(t, want, back)
			require.Equal(t, want == 0, err != nil)
			require.Equal(t, want == 0, errBack != nil)
			if err != nil {
				require.ErrorIs(t, err, ErrVersion)
			}
		}
	}
}
