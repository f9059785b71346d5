package table

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/offheap"
	"example.com/kvstore/lsm/vfs"
)

// TestMemoryOfReader requires that Close gives back what Open took, and that an
// Open that fails keeps nothing, wherever the damage is.
func TestMemoryOfReader(t *testing.T) {
	f, m := build(t, WriterOptions{BlockBytes: minBlockBytes}, everyFeature())
	good := bytesOf(t, f)
	before := offheap.Live()
	failed := 0
	for at := range good {
		b := bytes.Clone(good)
		b[at] ^= 0x41
		r, err := Open(readOnly{b: b}, m)
		if err != nil {
			failed++
		} else {
			require.GreaterOrEqual(t, int64(r.MemoryBytes()), offheap.Live()-before)
			require.NoError(t, r.Close())
		}
		require.Equal(t, before, offheap.Live(), "byte %d", at)
	}
	require.Greater(t, failed, len(good)/10)
}

// TestMemoryOfWriter requires the same of a writer, finished or not.
func TestMemoryOfWriter(t *testing.T) {
	before := offheap.Live()
	f, err := vfs.NewMem(1).Create(base.TableName(testID))
	require.NoError(t, err)
	w := NewWriter(f, testID, WriterOptions{})
	for i := range uint64(3 * w.tokens.pool.PieceBytes() / 8) {
		require.NoError(t, w.Add(&base.Record{Token: i, Kind: base.Value}))
	}
	require.Greater(t, offheap.Live(), before)
	w.Close()
	require.Equal(t, before, offheap.Live())
	_, err = w.Finish()
	require.Error(t, err)
	build(t, WriterOptions{}, everyFeature())
	require.Equal(t, before, offheap.Live())
}
