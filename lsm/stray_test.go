package lsm

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// stray leaves, under a lazy policy, a record of a memtable that is in tables by
// now in a segment of the log that is not released: an old value of a key whose
// tombstone came first.
func stray(t testing.TB, horizon *atomic.Uint64) (disk *vfs.Mem, o *Options, tree *Tree) {
	disk = vfs.NewMem(1)
	var armed atomic.Bool
	reached, goOn := make(chan struct{}), make(chan struct{})
	o = small(vfs.Faulty(disk, func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".log") && op.Off > 72 && armed.CompareAndSwap(true, false) {
			close(reached)
			<-goOn
		}
		return nil
	}))
	o.Sync = SyncNever
	o.Horizon = func(uint64) vclock.Dot { return vclock.Dot{Stamp: horizon.Load(), Actor: math.MaxUint64} }
	tree = open(t, o)
	apply := func(k string, kind Kind, stamp uint64) {
		d := vclock.Dot{Stamp: stamp, Actor: 1}
		require.NoError(t, tree.Apply([]Record{{Token: Token([]byte(k)), Key: []byte(k), Kind: kind, Min: d, Max: d}}))
	}
	apply("k", Tombstone, 10)
	require.NoError(t, tree.ApplySync([]Record{{Token: 1, Key: []byte("x"), Kind: Value, Min: vclock.Dot{Stamp: 1}, Max: vclock.Dot{Stamp: 1}}}))
	armed.Store(true)
	apply("y", Value, 11)
	<-reached // the log is writing y
	apply("k", Value, 5)
	flushed := make(chan error, 1)
	go func() { flushed <- tree.Flush() }()
	for asked := false; !asked; {
		tree.mu.Lock()
		asked = len(tree.mu.rotations) > 0
		tree.mu.Unlock()
	}
	close(goOn) // the memtable is sealed before the log takes the value
	require.NoError(t, <-flushed)
	return disk, o, tree
}

// TestStrayValue: the tombstone is not purged while the log may bring back what
// is older (I5).
func TestStrayValue(t *testing.T) { strayValue(t) }

func strayValue(t testing.TB) {
	var horizon atomic.Uint64
	_, o, tree := stray(t, &horizon)
	horizon.Store(20)
	require.NoError(t, tree.Compact(context.Background()))
	require.NoError(t, tree.Close())
	tree = open(t, o)
	_, ok, err := tree.Get([]byte("k"))
	require.NoError(t, errors.Join(err, tree.Close()))
	require.False(t, ok, "a deleted key is back")
}

// TestStraysGo: the tombstone goes once the log holds nothing older.
func TestStraysGo(t *testing.T) {
	var horizon atomic.Uint64
	_, _, tree := stray(t, &horizon)
	horizon.Store(20)
	require.NoError(t, tree.Compact(context.Background()))
	require.Equal(t, uint64(1), tree.Metrics().Tombstones)
	require.NoError(t, tree.flushStrays())
	require.NoError(t, tree.Compact(context.Background()))
	require.Zero(t, tree.Metrics().Tombstones)
	require.NoError(t, tree.Close())
}

// TestStrayDropped: what a range drop removed does not come back from the log.
func TestStrayDropped(t *testing.T) {
	_, o, tree := stray(t, new(atomic.Uint64))
	require.NoError(t, tree.DropRange(0, math.MaxUint64))
	require.NoError(t, tree.Close())
	tree = open(t, o)
	for r, err := range tree.Scan(0, math.MaxUint64) {
		require.NoError(t, err)
		t.Errorf("%q is back", r.Key)
	}
	require.NoError(t, tree.Close())
}
