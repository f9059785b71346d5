package lsm

import (
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// TestBackPressure keeps tables from being created. Memory stays bounded:
// writers wait, Submit is refused, reads go on, and all of it ends when the disk
// goes on.
func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		o := small(vfs.Faulty(vfs.NewMem(1), func(op vfs.Op) error {
			if op.Kind == vfs.OpCreate && strings.HasSuffix(op.Name, ".table") {
				<-gate
			}
			return nil
		}))
		o.LogBufferBytes = 16 << 10
		tree := open(t, o)
		put := 0
		done := make(chan error, 1)
		go func() {
			for ; put < 3000; put++ {
				if err := tree.Put(key(put), make([]byte, 200)); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		synctest.Wait() // everything that can go on has
		require.Less(t, put, 3000)
		require.Greater(t, put, 600)
		require.LessOrEqual(t, tree.Metrics().MemtableBytes, int64(o.MemtableBytes*2*defaultMaxMemtables))
		requireGet(t, tree, key(0), string(make([]byte, 200)))
		refused := 0
		for i := range 1000 {
			d := vclock.Dot{Stamp: uint64(i + 1), Actor: 1}
			tree.Submit([]Record{{Key: []byte("k"), Kind: Value, Min: d, Max: d, Value: make([]byte, 100)}}, func(err error) {
				if err != nil {
					require.ErrorIs(t, err, ErrOverloaded)
					refused++
				}
			})
		}
		require.Greater(t, refused, 500)
		close(gate)
		require.NoError(t, <-done)
		require.NoError(t, tree.Close())
	})
}

// TestSyncEvery counts syncs in virtual time.
func TestSyncEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem(1)
		o := small(disk)
		o.Sync = SyncEvery(time.Second)
		tree := open(t, o)
		require.NoError(t, tree.Put(key(1), []byte("v")))
		requireGet(t, tree, key(1), "v")
		synctest.Wait()
		before := disk.Strict()
		require.Zero(t, tree.Metrics().Syncs)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, uint64(1), tree.Metrics().Syncs)
		after := disk.Strict()
		time.Sleep(time.Hour)
		require.Equal(t, uint64(1), tree.Metrics().Syncs, "nothing to sync")

		d := vclock.Dot{Stamp: 1, Actor: 1}
		require.NoError(t, tree.ApplySync([]Record{{Key: key(2), Token: Token(key(2)), Kind: Value, Min: d, Max: d}}))
		require.Equal(t, uint64(2), tree.Metrics().Syncs)
		for i, disk := range []*vfs.Mem{before, after, disk.Strict()} {
			again := open(t, small(disk))
			for j := range 2 {
				_, ok, err := again.Get(key(j + 1))
				require.NoError(t, err)
				require.Equal(t, i > j, ok)
			}
			require.NoError(t, again.Close())
		}
		require.NoError(t, tree.Close())
	})
}

func TestBadInput(t *testing.T) {
	fs := vfs.NewMem(1)
	tree := open(t, small(fs))
	_, err := Open("db", small(fs))
	require.ErrorIs(t, err, ErrLocked)
	_, err = CheckFS(fs, "db")
	require.ErrorIs(t, err, ErrLocked)
	d := vclock.Dot{Stamp: 1, Actor: 1}
	require.ErrorIs(t, tree.Put(nil, nil), ErrInvalid)
	require.ErrorIs(t, tree.Put(make([]byte, MaxKeyBytes+1), nil), ErrKeyTooLarge)
	require.ErrorIs(t, tree.Put(key(1), make([]byte, MaxValueBytes+1)), ErrValueTooLarge)
	require.ErrorIs(t, tree.Apply([]Record{{Key: key(1), Kind: Value}}), ErrInvalid, "no dot")
	require.ErrorIs(t, tree.Apply([]Record{{Key: key(1), Kind: 9, Min: d, Max: d}}), ErrInvalid)
	require.ErrorIs(t, tree.Apply([]Record{{Key: key(1), Kind: Causal, Value: []byte("x")}}), ErrInvalid)
	require.NoError(t, tree.Close())
	for field, o := range map[string]Options{
		"MemtableBytes":    {MemtableBytes: 1},
		"1125899906842624": {MemtableBytes: 1 << 50},
		"MaxMemtables":     {MaxMemtables: 1e6},
		"LogBufferBytes":   {LogBufferBytes: 32},
		"MemoryBytes":      {MemoryBytes: 1 << 62},
		"CacheBytes":       {CacheBytes: 1 << 50},
		"BitsPerKey":       {BitsPerKey: math.NaN()},
		"Shards":           {Shards: 3},
	} {
		o.FS = vfs.NewMem(2)
		_, err = Open("db", &o)
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, field)
		names, err := o.FS.List("db")
		require.Error(t, err, "%s left %v", field, names)
	}
	_, err = Open("", &Options{FS: fs})
	require.ErrorIs(t, err, ErrInvalid)
	require.Equal(t, SyncAlways, SyncEvery(0))
	require.Equal(t, SyncAlways, SyncEvery(-1))
}

// TestLeadPanics: a writer that recovers from a panic of what the user hung in, while it
// stood in for the log's goroutine, does not leave the others waiting, be they in its
// group or not.
func TestLeadPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := small(vfs.NewMem(1))
		var tree *Tree
		told := make(chan error, 1)
		submit := func(i int, done func(error)) {
			d := vclock.Dot{Stamp: uint64(i), Actor: 1}
			tree.Submit([]Record{{Kind: Value, Token: Token(key(i)), Key: key(i), Min: d, Max: d}}, done)
		}
		o.Events = &EventListener{LogRotated: func(LogInfo) { // into the group that is about to be taken
			submit(1, func(error) { panic("hung in") })
			submit(2, func(err error) { told <- err })
		}}
		tree = open(t, o)
		recovered := any(nil)
		for i := 10; recovered == nil; i++ {
			synctest.Wait() // the log's goroutine sleeps
			func() {
				defer func() { recovered = recover() }()
				require.NoError(t, tree.Put(key(i), make([]byte, 4000)))
			}()
		}
		require.Equal(t, "hung in", recovered)
		require.ErrorIs(t, <-told, ErrUncertain)
		require.ErrorIs(t, tree.Put(key(3), nil), ErrReadOnly)
		require.Error(t, tree.Close())
	})
}

// TestCheck flips one byte of each file; Check finds it or says that nothing
// of value was hit.
func TestCheck(t *testing.T) {
	fs := vfs.NewMem(1)
	tree := open(t, small(fs))
	for i := range 300 {
		require.NoError(t, tree.Put(key(i), key(i)))
		if i == 200 {
			require.NoError(t, tree.Flush())
		}
	}
	require.NoError(t, tree.Close())
	r, err := CheckFS(fs, "db")
	require.NoError(t, err)
	require.Empty(t, r.Problems)
	require.Equal(t, uint64(201), r.TableRecords)
	require.Equal(t, uint64(99), r.LogRecords)
	names, err := fs.List("db")
	require.NoError(t, err)
	found := 0
	for _, name := range names {
		info, err := fs.Stat("db/" + name)
		require.NoError(t, err)
		if info.Size == 0 {
			continue
		}
		disk := fs.CrashSynced()
		require.NoError(t, disk.Corrupt("db/"+name, info.Size/3, 1))
		r, err := CheckFS(disk, "db")
		require.NoError(t, err)
		found += len(r.Problems)
		for _, p := range r.Problems {
			require.ErrorIs(t, p, ErrCorrupt)
		}
	}
	require.GreaterOrEqual(t, found, 4, "two tables, manifest and log")
}
