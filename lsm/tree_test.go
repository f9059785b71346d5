package lsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(dir))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// small are options under which a few hundred writes reach every part.
func small(fs vfs.FS) *Options {
	return &Options{FS: fs, MemtableBytes: minMemtableBytes, CacheBytes: 1 << 20, Slices: 2, Shards: 4, Identity: [16]byte{1}, Random: salts(), maxTableBytes: 8 << 10}
}

// salts gives a source for Options.Random that is the same each time: what a power
// cut leaves of a write depends on the bytes.
func salts() func() uint64 {
	var n atomic.Uint64
	return func() uint64 { return n.Add(1) * 0x9e3779b97f4a7c15 }
}

func open(t testing.TB, o *Options) *Tree {
	t.Helper()
	tree, err := Open("db", o)
	require.NoError(t, err)
	return tree
}

func key(i int) []byte { return fmt.Appendf(nil, "key-%05d", i) }

func requireGet(t testing.TB, tree *Tree, key []byte, want string) {
	t.Helper()
	got, ok, err := tree.Get(key)
	require.NoError(t, err)
	require.True(t, ok, "key %s is not there", key)
	require.Equal(t, want, string(got))
}

func TestPutGetDeleteReopen(t *testing.T) {
	fs := vfs.NewMem(1)
	tree := open(t, small(fs))
	for i := range 2000 {
		require.NoError(t, tree.Put(key(i), fmt.Appendf(nil, "value %d", i)))
	}
	for i := 0; i < 2000; i += 3 {
		require.NoError(t, tree.Delete(key(i)))
	}
	check := func() {
		for i := range 2000 {
			v, ok, err := tree.Get(key(i))
			require.NoError(t, err)
			require.Equal(t, i%3 != 0, ok)
			if ok {
				require.Equal(t, fmt.Sprintf("value %d", i), string(v))
			}
		}
	}
	check()
	require.NoError(t, tree.Close())
	require.NoError(t, tree.Close())
	require.ErrorIs(t, tree.Put(key(1), nil), ErrClosed)
	tree = open(t, small(fs))
	check()
	require.NoError(t, tree.Flush())
	check()
	require.NoError(t, tree.Compact(context.Background()))
	check()
	t.Logf("\n%s", tree.Metrics())
	require.NoError(t, tree.Close())
	tree = open(t, small(fs))
	check()
	require.NoError(t, tree.Close())
}

func TestSubmit(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncAlways, SyncNever, SyncEvery(1e6)} {
		t.Run(policy.String(), func(t *testing.T) {
			o := small(vfs.NewMem(1))
			o.Sync = policy
			o.MemtableBytes = 1 << 20 // nothing is flushed: Newer is exact
			groups := 0
			o.GroupDone = func() { groups++ }
			tree := open(t, o)
			var wg sync.WaitGroup
			const n = 500
			batches := make([][]Record, n)
			buf := make([]byte, 0, 64)
			for i := range n {
				buf = append(buf[:0], key(i)...) // reused at once
				d := vclock.Dot{Stamp: uint64(i + 1), Actor: 7}
				batches[i] = []Record{{Token: Token(buf), Key: buf, Kind: Value, Min: d, Max: d, Value: buf}}
				wg.Add(1)
				tree.Submit(batches[i], func(err error) {
					if err != nil {
						t.Error(err)
					}
					wg.Done()
				})
			}
			wg.Wait()
			for i := range n {
				requireGet(t, tree, key(i), string(key(i)))
				require.Zero(t, batches[i][0].Newer)
			}
			here := make(chan error, 1)
			d := vclock.Dot{Stamp: n + 1, Actor: 7}
			tree.SubmitHere([]Record{{Token: Token(key(n)), Key: key(n), Kind: Value, Min: d, Max: d, Value: key(n)}}, func(err error) { here <- err })
			require.True(t, !policy.lazy || len(here) == 1)
			require.NoError(t, <-here)
			requireGet(t, tree, key(n), string(key(n)))
			old := vclock.Dot{Stamp: 1, Actor: 1}
			late := []Record{{Token: Token(key(9)), Key: key(9), Kind: Tombstone, Min: old, Max: old}}
			require.NoError(t, tree.ApplySync(late))
			require.Equal(t, vclock.Dot{Stamp: 10, Actor: 7}, late[0].Newer)
			r, found, certain := tree.ReadMemory(Token(key(9)), key(9), nil)
			require.True(t, found && certain)
			require.Equal(t, vclock.Dot{Stamp: 10, Actor: 7}, r.Max)
			require.NoError(t, tree.Close())
			require.Positive(t, groups)
			called := false
			tree.Submit(batches[0], func(err error) { called = errors.Is(err, ErrClosed) })
			require.True(t, called)
			called = false
			tree.SubmitHere(batches[0], func(err error) { called = errors.Is(err, ErrClosed) })
			require.True(t, called)
		})
	}
}
