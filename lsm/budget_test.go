package lsm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/offheap"
	"example.com/kvstore/lsm/vfs"
)

// TestDivide holds the formula of the budget.
func TestDivide(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		o                                    Options
		memtable, log, cache, tables, budget int64
	}{
		"nothing set": {Options{}, 64 * mib, 8 * mib, 256 * mib, 256 * mib, 592 * mib},
		"no cache":    {Options{CacheBytes: -1}, 64 * mib, 8 * mib, -1, 64 * mib, 400 * mib},
		"fields":      {Options{MemtableBytes: mib, LogBufferBytes: mib, CacheBytes: 10 * mib}, mib, mib, 10 * mib, 10 * mib, 4*mib + 2*mib + mib/2 + 32*mib + 10*mib},
		"1 GiB":       {Options{MemoryBytes: 1024 * mib}, 64 * mib, 8 * mib, 688 * mib, 688 * mib, 1024 * mib},
		"256 MiB":     {Options{MemoryBytes: 256 * mib}, 16 * mib, 4 * mib, 160 * mib, 160 * mib, 256 * mib},
		"1 MiB":       {Options{MemoryBytes: mib}, 64 << 10, 64 << 10, 544 << 10, 544 << 10, mib},
		"some set":    {Options{MemoryBytes: 256 * mib, MemtableBytes: 32 * mib, CacheBytes: 50 * mib}, 32 * mib, 4 * mib, 50 * mib, 88 * mib, 256 * mib},
		"two":         {Options{MemoryBytes: 256 * mib, MaxMemtables: 2}, 32 * mib, 4 * mib, 152 * mib, 152 * mib, 256 * mib},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := c.o.withDefaults()
			require.NoError(t, err)
			require.Equal(t, c.memtable, o.MemtableBytes)
			require.Equal(t, c.log, int64(o.LogBufferBytes))
			require.Equal(t, c.cache, o.CacheBytes)
			require.Equal(t, c.tables, o.tableMemory)
			require.Equal(t, c.budget, o.MemoryBytes)
			if c.cache > 0 {
				require.Equal(t, c.tables*3/4, o.metadataBytes)
			} else {
				require.Equal(t, c.tables, o.metadataBytes)
			}
		})
	}
	for name, o := range map[string]Options{
		"too little":          {MemoryBytes: mib/2 - 1},
		"negative":            {MemoryBytes: -1},
		"memtables above it":  {MemoryBytes: 64 * mib, MemtableBytes: 16 * mib},
		"many memtables":      {MemoryBytes: mib, MaxMemtables: 20},
		"log buffer above it": {MemoryBytes: 64 * mib, LogBufferBytes: 32 * mib},
		"cache above it":      {MemoryBytes: 64 * mib, CacheBytes: 60 * mib},
	} {
		t.Run(name, func(t *testing.T) {
			o.FS = vfs.NewMem(1)
			_, err := Open("db", &o)
			require.ErrorIs(t, err, ErrInvalid)
			require.ErrorContains(t, err, fmt.Sprint(o.MemoryBytes))
		})
	}
}

// TestBudgetHolds writes, reads, flushes and compacts, and looks at the memory off
// the Go heap all the while. (Of the process one cannot tell: other tests were in
// it.)
func TestBudgetHolds(t *testing.T) {
	const budget, keys = 8 << 20, 20_000
	before := offheap.Live()
	tree, err := Open(t.TempDir(), &Options{MemoryBytes: budget, Sync: SyncNever})
	require.NoError(t, err)
	var most atomic.Int64
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-done:
				return
			default:
			}
			most.Store(max(most.Load(), offheap.Live()-before))
			runtime.Gosched()
		}
	}()
	var wg sync.WaitGroup
	for w := range uint64(4) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(w, 1))
			value := make([]byte, 400)
			for range keys / 4 {
				for i := range 100 {
					value[i] = byte(r.Uint32())
				}
				if err := tree.Put(key(r.IntN(keys)), value); err != nil {
					t.Error(err)
				}
				if _, _, err := tree.AppendGet(value[:0], key(r.IntN(keys))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	m := tree.Metrics()
	require.NoError(t, tree.Compact(context.Background()))
	close(done)
	<-watched
	require.Greater(t, m.Flushes, uint64(10))
	require.Greater(t, most.Load(), int64(budget/4), "the budget is used")
	// A reader may still be in a memtable that was flushed.
	require.LessOrEqual(t, most.Load(), int64(budget+budget*15/100))
	require.NoError(t, tree.Close())
	require.Equal(t, before, offheap.Live())
}

// TestCacheGivesWay requires that the cache shrinks while indexes and filters need
// its room, and grows again when they do not.
func TestCacheGivesWay(t *testing.T) {
	o, keys := manyTables(t, vfs.NewMem(1))
	o.CacheBytes = 6 << 20
	tree := open(t, o)
	require.Equal(t, int64(6<<20), tree.Metrics().CacheCapacity)
	for i := range keys {
		requireGet(t, tree, key(i), fmt.Sprintf("value %d", i))
		if i%100 == 0 {
			m := tree.Metrics()
			require.LessOrEqual(t, m.MetadataBytes+m.CacheCapacity, tree.o.tableMemory)
			require.LessOrEqual(t, m.CacheBytes, m.CacheCapacity)
		}
	}
	m := tree.Metrics()
	require.Equal(t, 320, m.OpenTables)
	require.Less(t, m.CacheCapacity, int64(4<<20))
	require.Contains(t, m.String(), fmt.Sprintf("cache %d of %d", m.CacheBytes, m.CacheCapacity))
	require.NoError(t, tree.Compact(context.Background()))
	require.NoError(t, tree.sweep())
	require.Greater(t, tree.Metrics().CacheCapacity, m.CacheCapacity)
	require.NoError(t, tree.Close())
}
