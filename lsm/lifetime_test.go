package lsm

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/offheap"
	"example.com/kvstore/lsm/vfs"
)

// TestMemtableLifetime requires that a memtable's memory lasts as long as a
// reader may be in it, and no longer. With -tags=invariants freed memory faults.
func TestMemtableLifetime(t *testing.T) {
	before := offheap.Live()
	o := small(vfs.NewMem(1))
	o.MemtableBytes = 1 << 20
	tree := open(t, o)
	const n = 1000
	for i := range n {
		require.NoError(t, tree.Put(key(i), fmt.Appendf(nil, "value %d", i)))
	}
	next, stop := iter.Pull2(tree.Scan(0, math.MaxUint64))
	first, err, ok := next()
	require.True(t, ok)
	require.NoError(t, err)
	kept := string(first.Value)
	scanned := tree.active.Load()

	require.NoError(t, tree.Flush())
	require.NoError(t, tree.Flush()) // the version with the memtable is history
	v := tree.acquire(0)
	require.NotContains(t, v.mems, scanned)
	tree.release(v, 0)
	require.Positive(t, scanned.versions.Load(), "the scan holds it")
	require.Positive(t, scanned.Bytes())
	require.Equal(t, kept, string(first.Value))
	seen := 1
	for r, err, ok := next(); ok; r, err, ok = next() {
		require.NoError(t, err)
		require.Contains(t, string(r.Value), "value ")
		seen++
	}
	require.Equal(t, n, seen)
	stop()
	require.Zero(t, scanned.versions.Load())
	require.Zero(t, scanned.Bytes())
	requireGet(t, tree, key(7), "value 7")

	require.NoError(t, tree.Close())
	require.Equal(t, before, offheap.Live(), "memory is left after Close")
}

// TestFailedOpenFrees requires that an Open that fails late keeps no memory.
func TestFailedOpenFrees(t *testing.T) {
	before := offheap.Live()
	fs := vfs.NewMem(1)
	tree := open(t, small(fs))
	for i := range 100 {
		require.NoError(t, tree.Put(key(i), key(i)))
	}
	require.NoError(t, tree.Close())
	boom := errors.New("boom")
	failures := 0
	for n := range uint64(60) {
		tree, err := Open("db", small(vfs.Faulty(fs, func(op vfs.Op) error {
			if op.N == n {
				return boom
			}
			return nil
		})))
		if err == nil {
			tree.Close() // fails when it meets the operation
			continue
		}
		failures++
		require.ErrorIs(t, err, boom)
		require.Equal(t, before, offheap.Live(), "after a failure of operation %d", n)
	}
	require.Greater(t, failures, 20)
	require.Equal(t, before, offheap.Live())
}

// TestEmptyBatch: nothing is written, and nothing goes wrong.
func TestEmptyBatch(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncAlways, SyncNever} {
		o := small(vfs.NewMem(1))
		o.Sync = policy
		tree := open(t, o)
		require.NoError(t, tree.Apply(nil))
		require.NoError(t, tree.Put(key(1), nil))
		require.NoError(t, tree.Flush())
		require.NoError(t, tree.Close())
	}
}
