package lsm

import (
	"context"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/compaction"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// TestDeletedSpaceComesBack puts and deletes all keys. Nothing goes before the
// horizon has passed, and next to nothing stays afterwards, without any write.
func TestDeletedSpaceComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var horizon atomic.Uint64
		o := small(vfs.NewMem(1))
		o.Horizon = func(uint64) vclock.Dot { return vclock.Dot{Stamp: horizon.Load(), Actor: math.MaxUint64} }
		tree := open(t, o)
		const n = 5000
		stamp := uint64(0)
		apply := func(kind Kind, deadline int64, value []byte) {
			for i := range n {
				stamp++
				d := vclock.Dot{Stamp: stamp, Actor: 1}
				require.NoError(t, tree.Apply([]Record{{Token: Token(key(i)), Key: key(i), Kind: kind, Min: d, Max: d, Deadline: deadline, Value: value}}))
			}
			require.NoError(t, tree.Flush())
			synctest.Wait()
		}
		apply(Value, 0, make([]byte, 100))
		peak := tree.Metrics().TableBytes
		apply(Tombstone, 0, nil)
		peak = max(peak, tree.Metrics().TableBytes)
		tree.HorizonMoved()
		synctest.Wait()
		require.Zero(t, tree.Metrics().Purged, "a value may still arrive that is older than a tombstone")

		horizon.Store(stamp)
		tree.HorizonMoved()
		synctest.Wait()
		require.LessOrEqual(t, tree.Metrics().TableBytes, peak/100)
		require.Equal(t, uint64(n), tree.Metrics().Purged)

		// Values that expire are no different.
		stamp = 5 << stampShift
		apply(Value, 7, make([]byte, 100))
		require.Greater(t, tree.Metrics().TableBytes, peak/4)
		horizon.Store(8 << stampShift)
		tree.HorizonMoved()
		synctest.Wait()
		require.LessOrEqual(t, tree.Metrics().TableBytes, peak/100)

		// What cannot go, because a memtable holds something older, is not tried
		// again and again.
		tombstones := func(stamp uint64) {
			for i := range 100 {
				d := vclock.Dot{Stamp: stamp << stampShift, Actor: 1}
				require.NoError(t, tree.Apply([]Record{{Token: Token(key(i)), Key: key(i), Kind: Tombstone, Min: d, Max: d}}))
			}
		}
		tombstones(10)
		require.NoError(t, tree.Flush())
		tombstones(9)
		horizon.Store(11 << stampShift)
		tree.HorizonMoved()
		synctest.Wait()
		m := tree.Metrics()
		require.Equal(t, uint64(100), m.Tombstones)
		tree.HorizonMoved()
		synctest.Wait()
		require.Equal(t, m.Compactions, tree.Metrics().Compactions)
		require.NoError(t, tree.Flush())
		synctest.Wait()
		require.Zero(t, tree.Metrics().Records)
		require.NoError(t, tree.Close())
	})
}

// TestAwaitedHorizon: the horizon of some tokens comes later than that of those by
// which tables are judged. What was kept for it goes then, without any write.
func TestAwaitedHorizon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 5000
		var horizon, late atomic.Uint64
		o := small(vfs.NewMem(1))
		o.Horizon = func(token uint64) vclock.Dot {
			stamp := horizon.Load()
			if token>>56%16 == 5 {
				stamp = late.Load()
			}
			return vclock.Dot{Stamp: stamp, Actor: math.MaxUint64}
		}
		tree := open(t, o)
		for i := range n {
			d := vclock.Dot{Stamp: uint64(i + 1), Actor: 1}
			require.NoError(t, tree.Apply([]Record{{Token: Token(key(i)), Key: key(i), Kind: Tombstone, Min: d, Max: d}}))
		}
		require.NoError(t, tree.Flush())
		horizon.Store(n)
		tree.HorizonMoved()
		synctest.Wait()
		m := tree.Metrics()
		require.Greater(t, m.Records, uint64(n/32))
		require.Less(t, m.Records, uint64(n/2)) // more than the late ones, where one of them is what a table is judged by
		tree.HorizonMoved()
		synctest.Wait()
		require.Equal(t, m.Compactions, tree.Metrics().Compactions, "nothing has changed, and it is tried again")
		late.Store(n)
		tree.HorizonMoved()
		synctest.Wait()
		require.Zero(t, tree.Metrics().Records)
		require.NoError(t, tree.Close())
	})
}

// TestRest: what is above the bottom is merged into it when writers have gone
// quiet for a while.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := open(t, small(vfs.NewMem(1)))
		fill := func(from, to int) {
			for i := from; i < to; i++ {
				require.NoError(t, tree.Put(key(i), make([]byte, 100)))
			}
			require.NoError(t, tree.Flush())
			synctest.Wait()
		}
		fill(0, 2000)
		require.NoError(t, tree.Compact(context.Background()))
		fill(0, 500)
		require.Equal(t, uint64(2500), tree.Metrics().Records)
		time.Sleep(restAfter)
		synctest.Wait()
		require.Equal(t, uint64(2000), tree.Metrics().Records)
		require.NoError(t, tree.Close())
	})
}

// TestRuns: tables of a run do not overlap and all of them are found, also
// after reopening.
func TestRuns(t *testing.T) {
	disk := vfs.NewMem(1)
	tree := open(t, small(disk))
	require.NoError(t, tree.Put(key(0), key(0)))
	require.NoError(t, tree.Compact(context.Background()))
	require.Equal(t, MaxLevel, tree.Metrics().Levels[0].Level, "one flushed table is not yet what Compact promises")
	for i := range 3000 {
		require.NoError(t, tree.Put(key(i), key(i)))
	}
	require.NoError(t, tree.Compact(context.Background()))
	for range 2 {
		v := tree.acquire(0)
		for _, s := range v.slices {
			require.Len(t, s, 1)
			require.Equal(t, uint8(compaction.Bottom), s[0].level)
			require.Greater(t, len(s[0].files), 3)
			for i, f := range s[0].files[1:] {
				require.Less(t, s[0].files[i].MaxToken, f.MinToken)
			}
		}
		tree.release(v, 0)
		n := 0
		for r, err := range tree.Scan(0, math.MaxUint64) {
			require.NoError(t, err)
			require.Equal(t, r.Key, r.Value)
			n++
		}
		require.Equal(t, 3000, n)
		for i := range 3000 {
			requireGet(t, tree, key(i), string(key(i)))
		}
		require.NoError(t, tree.Close())
		tree = open(t, small(disk))
	}
	require.NoError(t, tree.Close())
}

// TestShortLives opens and closes a tree again and again without ever flushing:
// the log stays within its allotment, and nothing is lost.
func TestShortLives(t *testing.T) {
	disk := vfs.NewMem(1)
	o := small(disk)
	for i := range 30 {
		tree := open(t, o)
		for j := range i {
			requireGet(t, tree, key(j), "v")
		}
		require.NoError(t, tree.Put(key(i), []byte("v")))
		require.NoError(t, tree.Close())
		names, err := disk.List("db")
		require.NoError(t, err)
		logs := 0
		for _, name := range names {
			if strings.HasSuffix(name, ".log") {
				logs++
			}
		}
		require.LessOrEqual(t, logs, defaultMaxMemtables+2)
	}
}
