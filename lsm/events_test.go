package lsm

import (
	"context"
	"errors"

	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
)

// golden compares text with a file of testdata.
func golden(t testing.TB, name, text string) {
	t.Helper()
	name = "testdata/" + name
	if *rewrite {
		require.NoError(t, os.WriteFile(name, []byte(text), 0o666))
	}
	want, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, string(want), text)
}

// TestTexts pins what metrics and events look like.
func TestTexts(t *testing.T) {
	golden(t, "metrics", Metrics{
		Groups: 1000, Batches: 20000, Syncs: 900, LogBytes: 5 << 20, ReplayedBytes: 1 << 10, Segments: 2, IdleSegments: 3,
		Stalls: 4, StallTime: 120 * time.Millisecond, Delays: 70, DelayTime: 80 * time.Millisecond,
		Memtables: 2, MemtableBytes: 70 << 20, MemtableRecords: 12345,
		Tables: 11, TableBytes: 1200, TableRawBytes: 2000, Records: 90, Tombstones: 5, MaxRuns: 3, DebtBytes: 77,
		Levels: []LevelMetrics{
			{Level: 0, Runs: 8, Tables: 8, Bytes: 150, Records: 20},
			{Level: 1, Runs: 1, Tables: 1, Bytes: 50, Records: 5},
			{Level: MaxLevel, Runs: 1, Tables: 2, Bytes: 1000, Records: 65},
		},
		Flushes: 8, FlushedBytes: 500, Compactions: 2, CompactionReadBytes: 900, CompactedBytes: 750, Purged: 6, Orphans: 1,
		CacheHits: 31, CacheMisses: 32, CacheDropped: 33, CacheRecords: 34, CacheBytes: 35,
		TableReads: 55, FalsePositives: 2, JoinLimits: 1, SetAside: 1, DamagedRanges: 2,
	}.String())
	var b strings.Builder
	for _, i := range []fmt.Stringer{
		FlushInfo{Records: 10, Tables: 2, MemtableBytes: 1000, Bytes: 600, Took: time.Second},
		CompactionInfo{Slice: 3, Runs: 6, Level: 1, ReadBytes: 600, WrittenBytes: 500, Tables: 1, Took: time.Second},
		CompactionInfo{Slice: 3, Runs: 2, Level: MaxLevel, ReadBytes: 600, WrittenBytes: 500, Tables: 2, Took: time.Second},
		StallInfo{Reason: "memtables wait to be flushed"},
		StallInfo{Reason: "memtables wait to be flushed", Took: time.Second},
		LogInfo{Segment: 4, Next: 9, Bytes: 100},
		SpaceInfo{Op: "flush", Err: vfs.ErrNoSpace},
		ErrorInfo{errors.New("input/output error")},
	} {
		fmt.Fprintln(&b, i)
	}
	golden(t, "events", b.String())
}

// TestEvents: everything that happens is told.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var told []fmt.Stringer
		add := func(i fmt.Stringer) {
			mu.Lock()
			told = append(told, i)
			mu.Unlock()
		}
		count := func(like fmt.Stringer) (n int) {
			mu.Lock()
			defer mu.Unlock()
			for _, i := range told {
				if fmt.Sprintf("%T", i) == fmt.Sprintf("%T", like) {
					n++
				}
			}
			return n
		}
		var full, broken atomic.Bool
		o := small(vfs.Faulty(vfs.NewMem(1), func(op vfs.Op) error {
			switch {
			case full.Load() && op.Kind == vfs.OpCreate && strings.HasSuffix(op.Name, ".table"):
				return vfs.ErrNoSpace
			case broken.Load() && op.Kind == vfs.OpSyncData:
				return vfs.ErrInjected
			}
			return nil
		}))
		o.Events = &EventListener{
			Flushed: func(i FlushInfo) { add(i) }, Compacted: func(i CompactionInfo) { add(i) },
			StallBegan: func(i StallInfo) { add(i) }, StallEnded: func(i StallInfo) { add(i) },
			LogRotated: func(i LogInfo) { add(i) }, NoSpace: func(i SpaceInfo) { add(i) }, Failed: func(i ErrorInfo) { add(i) },
		}
		tree := open(t, o)
		for i := range 1000 {
			require.NoError(t, tree.Put(key(i), make([]byte, 200)))
		}
		require.NoError(t, tree.Compact(context.Background()))
		synctest.Wait()
		m := tree.Metrics()
		require.Positive(t, m.Flushes)
		require.EqualValues(t, m.Flushes, count(FlushInfo{}))
		require.EqualValues(t, m.Flushes, count(LogInfo{}))
		require.EqualValues(t, m.Compactions, count(CompactionInfo{}))
		require.Zero(t, m.DebtBytes)
		require.Equal(t, []LevelMetrics{{Level: MaxLevel, Runs: 2, Tables: m.Tables, Bytes: m.TableBytes, Records: 1000}}, m.Levels)
		require.EqualValues(t, 1, m.SpaceAmplification())

		full.Store(true)
		var err error
		for i := 0; err == nil; i++ {
			err = tree.Put(key(i), make([]byte, 200))
		}
		require.ErrorIs(t, err, ErrNoSpace)
		require.Positive(t, count(SpaceInfo{}))
		full.Store(false)
		require.Zero(t, count(ErrorInfo{}))
		time.Sleep(retryAfter)
		synctest.Wait()
		require.NoError(t, tree.Put(key(0), nil))

		broken.Store(true)
		require.ErrorIs(t, tree.Put(key(0), nil), ErrReadOnly)
		require.Equal(t, 1, count(ErrorInfo{}))
		require.Error(t, tree.Close())
	})
}

// TestStallEvents: a stall is told when it begins and when it ends.
func TestStallEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		o := small(vfs.Faulty(vfs.NewMem(1), func(op vfs.Op) error {
			if op.Kind == vfs.OpCreate && strings.HasSuffix(op.Name, ".table") {
				<-gate
			}
			return nil
		}))
		var began, ended []StallInfo // by the log's goroutine, read when it waits
		o.Events = &EventListener{
			StallBegan: func(i StallInfo) { began = append(began, i) },
			StallEnded: func(i StallInfo) { ended = append(ended, i) },
		}
		tree := open(t, o)
		done := make(chan error, 1)
		go func() {
			var err error
			for i := 0; i < 2000 && err == nil; i++ {
				err = tree.Put(key(i), make([]byte, 200))
			}
			done <- err
		}()
		synctest.Wait()
		require.Len(t, began, 1)
		require.Empty(t, ended)
		time.Sleep(time.Second)
		close(gate)
		require.NoError(t, <-done)
		synctest.Wait()
		require.GreaterOrEqual(t, ended[0].Took, time.Second)
		require.Equal(t, len(began), len(ended))
		require.GreaterOrEqual(t, tree.Metrics().StallTime, time.Second)
		require.NoError(t, tree.Close())
	})
}
