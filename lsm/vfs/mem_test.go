package vfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
)

func TestMemWorksInABubble(t *testing.T) {
	run := func(t *testing.T) (disk string) {
		synctest.Test(t, func(t *testing.T) {
			m := vfs.NewMem(1)
			slow := vfs.Faulty(m, func(op vfs.Op) error {
				if op.Kind.Syncs() {
					time.Sleep(10 * time.Millisecond)
				}
				return nil
			})
			started := time.Now()
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					f, err := slow.Create(fmt.Sprint("f", i))
					if err != nil {
						t.Error(err)
						return
					}
					for k := range 10 {
						f.WriteAt([]byte("data"), int64(4*k))
						f.SyncData()
					}
					slow.SyncDir("")
					f.WriteAt([]byte("more"), 0)
				})
			}
			wg.Wait()
			require.Equal(t, 110*time.Millisecond, time.Since(started), "syncs of different files overlap")
			disk = image(t, m.Crash(5))
		})
		return disk
	}
	require.Equal(t, run(t), run(t))
}

func TestCapacity(t *testing.T) {
	const block = 4096
	m := vfs.NewMem(1)
	m.SetCapacity(4*block + 100)
	f, err := m.Create("a")
	require.NoError(t, err)
	free := func() int64 {
		n, err := m.Free("")
		require.NoError(t, err)
		return n
	}
	require.EqualValues(t, 4*block, free())
	write(t, f, "x", 0)
	write(t, f, "x", 1)
	require.EqualValues(t, 3*block, free())
	require.NoError(t, f.Allocate(0, 2*block))
	require.EqualValues(t, 2*block, free())
	require.NoError(t, f.Sync())
	require.NoError(t, m.SyncDir(""))
	require.EqualValues(t, 2*block, m.Strict().Used(), "reserved space is durable")
	require.ErrorIs(t, f.Allocate(0, 5*block), vfs.ErrNoSpace)
	require.EqualValues(t, 2*block, free())

	n, err := f.WriteAt(make([]byte, 3*block), 2*block-10)
	require.Equal(t, 2*block+10, n, "what fits is written")
	require.ErrorIs(t, err, vfs.ErrNoSpace)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Zero(t, free())
	for _, err := range []error{
		second(m.Create("b")),
		m.Link("a", "b"),
		m.MkdirAll("d"),
	} {
		require.ErrorIs(t, err, vfs.ErrNoSpace)
	}
	write(t, f, "yy", block-1)
	require.NoError(t, f.Sync())
	require.NoError(t, m.SyncDir(""))
	disk := m.Crash(1)
	_, err = disk.Create("b")
	require.ErrorIs(t, err, vfs.ErrNoSpace, "the capacity outlives a crash")

	require.NoError(t, f.Truncate(block+1))
	require.EqualValues(t, 2*block, free())
	require.NoError(t, m.Remove("a"))
	require.EqualValues(t, 2*block, free(), "an open file keeps its space")
	require.NoError(t, f.Close())
	require.EqualValues(t, 4*block, free())
	require.Zero(t, m.Used())
	m.SetCapacity(-1)
	require.Zero(t, free())
}

func TestHandles(t *testing.T) {
	m := vfs.NewMem(1)
	f, err := m.Create("b")
	require.NoError(t, err)
	g, err := m.Open("b")
	require.NoError(t, err)
	lock, err := m.Lock("a")
	require.NoError(t, err)
	require.NoError(t, m.Remove("b"))
	require.Equal(t, []string{"a", "b", "b"}, m.Handles())
	require.Empty(t, m.CrashSynced().Handles())
	require.NoError(t, errors.Join(f.Close(), g.Close(), lock.Close()))
	require.Empty(t, m.Handles())
}

func second[T any](_ T, err error) error { return err }

func TestDamage(t *testing.T) {
	m := vfs.NewMem(1)
	f := durable(t, m, "a", "one two")
	old := m.Crash(1)
	write(t, f, "ONE TWO THREE", 0)
	require.NoError(t, f.Sync())

	require.NoError(t, m.Corrupt("a", 1, 0x20))
	for _, disk := range []*vfs.Mem{m, m.Strict(), m.Crash(4)} {
		require.Equal(t, "OnE TWO THREE", content(t, disk, "a"))
	}
	require.NoError(t, m.Stale(old, "a", 4, 6))
	for _, disk := range []*vfs.Mem{m, m.Strict(), m.Crash(4)} {
		require.Equal(t, "OnE two\x00\x00\x00REE", content(t, disk, "a"))
	}
	require.Equal(t, "one two", content(t, old, "a"))

	require.ErrorIs(t, m.Corrupt("none", 0, 1), fs.ErrNotExist)
	require.ErrorIs(t, m.Corrupt("a", 13, 1), fs.ErrInvalid)
	require.ErrorIs(t, m.Stale(old, "none", 0, 1), fs.ErrNotExist)
}
