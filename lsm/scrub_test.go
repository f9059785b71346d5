package lsm

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
)

// TestScrub flips bits in tables that nobody reads.
func TestScrub(t *testing.T) {
	disk, c := damagedDisk(t, 60)
	for _, name := range filesOf(t, disk, "db", ".table") {
		info, err := disk.Stat(name)
		require.NoError(t, err)
		for at := int64(0); at < info.Size; at += 71 {
			bad := disk.CrashSynced()
			o := isolating(bad)
			o.pick = neverPick
			tree := open(t, o)
			require.NoError(t, tree.Scrub(context.Background()))
			require.NoError(t, bad.Corrupt(name, at, 1))
			require.ErrorIs(t, tree.Scrub(context.Background()), ErrCorrupt)
			require.Len(t, tree.Damaged(), 1)
			require.Positive(t, c.truthful(t, name, tree))
			require.NoError(t, tree.Scrub(context.Background()))
			m := tree.Metrics()
			require.Equal(t, uint64(3), m.Scrubs)
			require.Equal(t, uint64(1), m.SetAside)
			require.NoError(t, tree.Close())
			require.ErrorIs(t, tree.Scrub(context.Background()), ErrClosed)
		}
	}
	alone := open(t, small(disk))
	require.NoError(t, disk.Corrupt(filesOf(t, disk, "db", ".table")[0], 100, 1))
	require.ErrorIs(t, alone.Scrub(context.Background()), ErrCorrupt)
	require.Empty(t, alone.Damaged())
	require.NoError(t, alone.Close())
}

// TestScrubLoop lets the background find damage at its pace, in virtual time.
func TestScrubLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem(1)
		o := isolating(disk)
		o.pick = neverPick
		o.MemtableBytes = 16 << 20
		o.ScrubBytesPerSecond = 1000
		o.Compression, o.maxTableBytes = NoCompression, maxTableBytes
		tree := open(t, o)
		synctest.Wait()
		require.Equal(t, uint64(1), tree.Metrics().Scrubs, "nothing to read")
		for i := range 1000 {
			require.NoError(t, tree.Put(key(i), make([]byte, 1000)))
		}
		require.NoError(t, tree.Flush())
		bytes := tree.Metrics().TableBytes
		last := filesOf(t, disk, "db", ".table")[1]
		require.NoError(t, disk.Corrupt(last, 1000, 1))
		time.Sleep(scrubPause)
		time.Sleep(time.Duration(bytes/1000) * time.Second / 2)
		synctest.Wait()
		require.Empty(t, tree.Damaged(), "it is not there yet")
		require.InDelta(t, bytes/2, tree.Metrics().ScrubbedBytes, 600<<10)
		time.Sleep(time.Duration(bytes/1000+1) * time.Second)
		synctest.Wait()
		require.Len(t, tree.Damaged(), 1)

		// A caller's scrub ends with its context, and with the tree.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.ErrorIs(t, tree.Scrub(ctx), context.DeadlineExceeded)
		ended := make(chan error, 1)
		go func() { ended <- tree.Scrub(context.Background()) }()
		synctest.Wait()
		require.NoError(t, tree.Close())
		require.ErrorIs(t, <-ended, ErrClosed)
	})
}

// TestPin keeps a table readable that a compaction has replaced.
func TestPin(t *testing.T) {
	disk, _ := damagedDisk(t, 60)
	tree := open(t, small(disk))
	v := tree.acquire(0)
	var ids []uint64
	for f := range v.tables() {
		ids = append(ids, f.ID)
	}
	tree.release(v, 0)
	f := tree.pin(ids[0])
	require.NoError(t, tree.Compact(context.Background()))
	require.Nil(t, tree.pin(ids[0]))
	require.NoError(t, tree.sweep())
	require.Contains(t, filesOf(t, disk, "db", ".table"), f.name())
	r, err := f.open()
	require.NoError(t, err)
	it := r.Iter(0, math.MaxUint64)
	require.True(t, it.Next())
	require.NoError(t, it.Close())
	require.NoError(t, r.release())
	tree.unpin(f)
	require.NoError(t, tree.sweep())
	require.NotContains(t, filesOf(t, disk, "db", ".table"), f.name())
	require.NoError(t, tree.Close())
}
