package vfs_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
)

func TestFaultyNumbersOperations(t *testing.T) {
	var ops []string
	fsys := vfs.Faulty(vfs.NewMem(1), func(op vfs.Op) error {
		ops = append(ops, op.String())
		return nil
	})
	require.NoError(t, fsys.MkdirAll("d"))
	f, err := fsys.Create("d/a")
	require.NoError(t, err)
	write(t, f, "abc", 5)
	require.NoError(t, f.Truncate(7))
	require.NoError(t, f.SyncData())
	require.NoError(t, f.Close())
	require.NoError(t, fsys.Rename("d/a", "d/b"))
	require.NoError(t, fsys.SyncDir("d"))
	require.Equal(t, []string{"#0 mkdir d", "#1 create d/a", "#2 write d/a [5, 8)", "#3 truncate d/a to 7",
		"#4 sync data d/a", "#5 close d/a", "#6 rename d/a to d/b", "#7 sync directory d"}, ops)
}

// The failure of every operation reaches the caller.
func TestFaultyFailsEveryOperation(t *testing.T) {
	workload := func(fsys vfs.FS) error { return newJournal(fsys).run(3) }
	var tally vfs.Tally
	require.NoError(t, workload(vfs.Faulty(vfs.NewMem(1), tally.Note)))
	all := func(vfs.Kind) bool { return true }
	require.Positive(t, tally.Count(vfs.Kind.Syncs))
	require.Greater(t, tally.Count(vfs.Kind.Changes), tally.Count(vfs.Kind.Syncs))
	for i := range tally.Count(all) {
		fail := vfs.Nth(i, all, func(vfs.Op) error { return vfs.ErrInjected })
		require.ErrorIs(t, workload(vfs.Faulty(vfs.NewMem(1), fail)), vfs.ErrInjected)
	}
}

func TestFaultyWrites(t *testing.T) {
	var answer error
	m := vfs.NewMem(1)
	fsys := vfs.Faulty(m, func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite || op.Kind == vfs.OpRead {
			return answer
		}
		return nil
	})
	f, err := fsys.Create("a")
	require.NoError(t, err)
	write(t, f, "..........", 0)

	answer = &vfs.PartialError{N: 2, Err: syscall.EIO}
	n, err := f.WriteAt([]byte("abcd"), 0)
	require.Equal(t, 2, n)
	require.ErrorIs(t, err, syscall.EIO)
	n, err = f.ReadAt(make([]byte, 10), 0)
	require.Equal(t, 2, n)
	require.ErrorIs(t, err, syscall.EIO)
	require.Equal(t, "ab........", content(t, m, "a"))

	answer = vfs.ErrLost
	write(t, f, "lost", 0)
	require.Equal(t, "ab........", content(t, m, "a"))

	answer = &vfs.MisdirectedError{Off: 6}
	write(t, f, "xy", 0)
	require.Equal(t, "ab....xy..", content(t, m, "a"))

	answer = vfs.ErrInjected
	n, err = f.WriteAt([]byte("abcd"), 0)
	require.Zero(t, n)
	require.ErrorIs(t, err, vfs.ErrInjected)
	require.Equal(t, "ab....xy..", content(t, m, "a"))
}

// A disk that lies about its syncs loses what was reported durable.
func TestLostSync(t *testing.T) {
	m := vfs.NewMem(1)
	fsys := vfs.Faulty(m, vfs.Nth(0, vfs.Kind.Syncs, func(vfs.Op) error { return vfs.ErrLost }))
	f := create(t, fsys, "a", "data")
	require.NoError(t, f.Sync())
	require.NoError(t, fsys.SyncDir(""))
	require.Equal(t, "", content(t, m.Strict(), "a"))
	require.NoError(t, f.Sync())
	require.Equal(t, "data", content(t, m.Strict(), "a"))
}

func TestFailedSyncLosesPages(t *testing.T) {
	for _, c := range []struct {
		pages vfs.Pages
		reads string
	}{
		{vfs.PagesKept, "oldnew"},
		{vfs.PagesDropped, "old\x00\x00\x00"},
	} {
		t.Run(c.pages.String(), func(t *testing.T) {
			m := vfs.NewMem(1)
			durable(t, m, "a", "old").Close()
			fsys := vfs.Faulty(vfs.Faulty(m, vfs.FailSync(0, c.pages)), func(vfs.Op) error { return nil })
			f, err := fsys.OpenReadWrite("a")
			require.NoError(t, err)
			write(t, f, "new", 3)
			err = f.SyncData()
			require.ErrorIs(t, err, vfs.ErrInjected)
			require.Equal(t, c.reads, content(t, m, "a"))
			require.Equal(t, "old", content(t, m.Strict(), "a"))
			require.Equal(t, "old", content(t, m.CrashSynced(), "a"))
			require.Positive(t, outcomes(t, m, "a")["oldnew"], "a failed sync may have written")

			require.NoError(t, f.Sync(), "a later sync succeeds")
			require.Equal(t, c.reads, content(t, m, "a"))
			require.Equal(t, map[string]int{"old\x00\x00\x00": seeds}, outcomes(t, m, "a"), "and writes nothing")

			write(t, f, "again", 3)
			require.NoError(t, f.Sync())
			require.Equal(t, map[string]int{"oldagain": seeds}, outcomes(t, m, "a"))
		})
	}
}

func TestFailedSyncDirIsFinal(t *testing.T) {
	m := vfs.NewMem(1)
	fsys := vfs.Faulty(m, vfs.FailSync(0, vfs.PagesKept))
	create(t, fsys, "a", "")
	for range 3 {
		require.ErrorIs(t, fsys.SyncDir("."), vfs.ErrInjected)
	}
	require.Len(t, outcomes(t, m, "a"), 2)
}

func TestCrashEachLosesNothingAcknowledged(t *testing.T) {
	m := vfs.NewMem(1)
	var j *journal
	points := 0
	j = newJournal(vfs.Faulty(m, vfs.CrashEach(m, 7, func(op vfs.Op, disk *vfs.Mem) {
		points++
		require.GreaterOrEqual(t, recovered(t, disk), j.acked, "cut before %v", op)
		require.GreaterOrEqual(t, recovered(t, disk.Crash(8)), j.acked, "cut before %v, and another", op)
	})))
	require.NoError(t, j.run(50))
	require.Greater(t, points, 100)
	require.Equal(t, 50, recovered(t, m.Strict()))
}

func TestFailEverySync(t *testing.T) {
	var tally vfs.Tally
	require.NoError(t, newJournal(vfs.Faulty(vfs.NewMem(1), tally.Note)).run(20))
	for _, pages := range []vfs.Pages{vfs.PagesKept, vfs.PagesDropped} {
		for i := range tally.Count(vfs.Kind.Syncs) {
			m := vfs.NewMem(1)
			j := newJournal(vfs.Faulty(m, vfs.FailSync(i, pages)))
			require.ErrorIs(t, j.run(20), vfs.ErrInjected)
			for seed := range uint64(10) {
				require.GreaterOrEqual(t, recovered(t, m.Crash(seed)), j.acked)
			}
		}
	}
}

// The crash at one operation is the same whether the workload goes on or not.
func TestCrashAt(t *testing.T) {
	for i := range 30 {
		m := vfs.NewMem(1)
		var disk *vfs.Mem
		go1 := vfs.CrashAt(m, 3, i, func(d *vfs.Mem) { disk = d })
		require.NoError(t, newJournal(vfs.Faulty(m, go1)).run(20))

		stopped := vfs.NewMem(1)
		stop := vfs.Nth(i, vfs.Kind.Changes, func(vfs.Op) error { return vfs.ErrInjected })
		require.Error(t, newJournal(vfs.Faulty(stopped, stop)).run(20))
		require.Equal(t, image(t, stopped.Crash(3)), image(t, disk))
	}
}
