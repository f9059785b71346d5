package lsm

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
)

// The storage faults that the engine must survive, by their rows, and the tests that
// show it. All orders, or all places, are tried where (x) is said; some of them only in
// torture.
//
//	S1   torn tail, damage in the log     wal: TestDamage (x), TestLazyTail; TestEveryBit (x), TestEveryCut (x), TestDamagedLog
//	S2   a sync fails                     TestFailedSync (x), the ordeals (x)
//	S3   full disk                        TestQuota (x), TestNoSpace, TestReserve, TestColdFull, TestSmallVolume (a real one); manifest: TestFullVolume
//	S4   bit rot                          TestEveryBit (x), TestRestoreRefuses (x), TestManyFlips, TestBitRot, TestScrub; table, manifest: TestEveryBit... (x)
//	     a read fails                     TestUnreadable
//	S5   misdirected, lost, stale writes  TestMisplacedWrites (x), TestStale (x), TestSwappedBlocks, TestAstray
//	S6   rename without directory sync    TestCrash (x); manifest: TestEveryCrashPoint (x)
//	S7   crash in flush, compaction,
//	     log switch, manifest switch      TestCrash (x), TestRotationDuringEdit, TestDropIsAtomic, TestRestoreCrash, the ordeals (x), TestOrphans
//	S8   crash in recovery, repeated      TestCrash (x to depth 2, some to 3), the ordeals (x to depth 2), TestOracle
//	S9   hole in recovery                 TestCrash (prefixes), TestOracle, TestKill, TestStrayValue
//	S10  slow disk                        TestBackPressure, TestRegulate, TestVisibleWhenSynced
//	S11  checkpoint half copied           TestRestoreRefuses (x), TestRestoreCrash
//	S12  close during traffic, leaks      TestStress, TestCloseDuring (x), TestOracle (handles), TestMain (goroutines)
//
// The ordeals are TestIngest, TestDropRange, TestCheckpoint, TestCold and TestSetAside.

// TestFailedSync lets the i-th sync fail, for every i. Nothing may be
// acknowledged after a failed sync of the log, and nothing that was acknowledged
// may be lost, whatever the kernel does with the pages.
func TestFailedSync(t *testing.T) {
	step := sized(1, 1, 5)
	failedSyncs(t, vfs.PagesDropped, step, 200)
	failedSyncs(t, vfs.PagesKept, step, 2000)
	if torture {
		failedSyncs(t, vfs.PagesDropped, 1, 2000)
		failedSyncs(t, vfs.PagesKept, 1, 200)
	}
}

// failedSyncs writes values up to a length, and fails each step-th sync.
func failedSyncs(t testing.TB, pages vfs.Pages, step, value int) {
	var tally vfs.Tally
	clean := newWorkload(0)
	tree := open(t, small(vfs.Faulty(clean.disk, tally.Note)))
	clean.run(t, tree, newWriter(1, 12, value), 100)
	require.NoError(t, tree.Close())
	syncs := tally.Count(vfs.Kind.Syncs)
	opened, refused := 0, 0
	for i := 0; i < syncs; i += step {
		w := newWorkload(0)
		tree, err := Open("db", small(vfs.Faulty(w.disk, vfs.FailSync(i, pages))))
		if err != nil {
			require.ErrorIs(t, err, vfs.ErrInjected)
			refused++
		} else {
			opened++
			w.run(t, tree, newWriter(1, 12, value), 100)
			if err := tree.Close(); err != nil {
				require.ErrorIs(t, err, vfs.ErrInjected)
			}
		}
		require.Zero(t, w.mu.late, "acknowledged after a failure")
		at := fmt.Sprintf("sync %d, pages %v", i, pages)
		// The machine loses power, or only the process is gone. After that the
		// page cache still shows what a failed sync lost; a directory whose
		// sync failed never syncs again, and then Open has to say so.
		disks := []*vfs.Mem{w.disk.Strict(), w.disk.CrashSynced(), w.disk.Crash(1), w.disk}
		for j, disk := range disks {
			p := crashPoint{disk, finding{acked: w.mu.acked, started: w.mu.started}, fmt.Sprintf("%s, disk %d", at, j)}
			if disk == w.disk && disk.SyncDir(".") != nil || disk == w.disk && disk.SyncDir("db") != nil {
				_, err := Open("db", small(disk))
				require.ErrorIs(t, err, vfs.ErrInjected)
				continue
			}
			if n := w.verify(t, p, disk); disk == w.disk {
				w.goOn(t, p, n)
			}
		}
	}
	t.Logf("%d failed syncs under a running tree, %d during Open", opened, refused)
}

// TestFailedWrite lets the i-th change fail, for a sample of i, with an error
// that is not the want of space.
func TestFailedWrite(t *testing.T) {
	step := sized(1, 5, 23)
	for i := 0; i < 400; i += step {
		w := newWorkload(0)
		fail := vfs.Nth(i, vfs.Kind.Changes, func(vfs.Op) error { return vfs.ErrInjected })
		tree, err := Open("db", small(vfs.Faulty(w.disk, fail)))
		if err == nil {
			w.run(t, tree, newWriter(1, 12, 200), 100)
			if err := tree.Close(); err != nil {
				require.ErrorIs(t, err, vfs.ErrInjected)
			}
		}
		for j, disk := range []*vfs.Mem{w.disk.Strict(), w.disk} {
			w.verify(t, crashPoint{disk, finding{acked: w.mu.acked, started: w.mu.started}, fmt.Sprintf("change %d, disk %d", i, j)}, disk)
		}
	}
}

// TestNoSpace fills the volume at a sample of operations. Writes are refused,
// reads go on, and writes succeed again when there is room.
func TestNoSpace(t *testing.T) {
	step := sized(1, 9, 45)
	resumed, final := 0, 0
	for i := 40; i < 400; i += step {
		disk := vfs.NewMem(1)
		var full atomic.Bool
		n := 0
		o := small(vfs.Faulty(disk, func(op vfs.Op) error {
			if full.Load() && (op.Kind == vfs.OpCreate || op.Kind == vfs.OpWrite || op.Kind == vfs.OpAllocate) {
				return vfs.ErrNoSpace
			}
			return nil
		}))
		tree := open(t, o)
		m, from := model{}, newWriter(2, 30, 400)
		refused := 0
		for range 120 {
			if n++; n == i/3 {
				full.Store(true)
			}
			b := from.batch()
			err := tree.Apply(b)
			if err == nil {
				m = m.with(b)
			} else {
				require.ErrorIs(t, err, ErrNoSpace)
				refused++
			}
			if n%13 == 0 {
				if err := tree.Flush(); err != nil {
					require.ErrorIs(t, err, ErrNoSpace)
				}
			}
			if refused == 5 {
				m.require(t, tree)
				full.Store(false)
			}
		}
		full.Store(false)
		b := from.batch()
		if err := tree.Apply(b); err == nil {
			m = m.with(b)
			resumed++
		} else {
			require.True(t, errors.Is(err, ErrReadOnly) && errors.Is(err, ErrNoSpace), "%v", err)
			final++
		}
		m.require(t, tree)
		tree.Close()
		tree = open(t, small(disk.Strict()))
		m.require(t, tree)
		require.NoError(t, tree.Close())
	}
	t.Logf("resumed %d times, failed for good %d times", resumed, final)
}
