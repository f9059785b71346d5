package lsm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/vfs"
)

// cooling are small options of a tree whose tables are cold a millisecond after
// they were written, and move when the test says so.
func cooling(fs vfs.FS) *Options {
	o := isolating(fs)
	o.ColdDir, o.ColdAfter = "cold", time.Millisecond
	o.Now = func() time.Time { return time.Unix(2_000_000_000, 0) }
	return o
}

var coldHome = coldDir("cold", small(nil).Identity)

// bottomTime is when the records of a bottomDisk were written.
var bottomTime = time.Unix(1_900_000_000, 0)

// bottomDisk gives a closed tree of which all is in bottom runs, a range dropped,
// but for some keys in the log.
func bottomDisk(t testing.TB) (*vfs.Mem, content) {
	disk := vfs.NewMem(1)
	o := small(disk)
	o.Now = func() time.Time { return bottomTime }
	tree := open(t, o)
	c := fill(t, tree, 0, 120)
	require.NoError(t, tree.Compact(context.Background()))
	require.NoError(t, tree.DropRange(quarter/2, quarter))
	c = c.without(quarter/2, quarter).plus(fill(t, tree, 200, 20))
	require.NoError(t, tree.Close())
	return disk.CrashSynced(), c
}

// TestCold tries every fault while tables move to the cold directory.
func TestCold(t *testing.T) {
	disk, c := bottomDisk(t)
	x := ordeal{
		disk: disk, options: cooling,
		act: func(tree *Tree) error { return tree.moveCold() },
		check: func(t testing.TB, at string, tree *Tree, done bool) {
			c.exactly(t, at, tree)
			m := tree.Metrics()
			require.Equal(t, m.TableBytes, m.HotBytes+m.ColdBytes)
			if done {
				require.Equal(t, 2, m.ColdTables, at)
			}
		},
		after: func(t testing.TB, at string, disk *vfs.Mem, done bool) {
			disk = disk.CrashSynced()
			tree, err := Open("db", cooling(disk))
			require.NoError(t, err, at)
			require.NoError(t, tree.moveCold(), at)
			require.Len(t, filesOf(t, disk, coldHome, ".table"), 2, at)
			require.NoError(t, tree.Checkpoint("copy"), at)
			require.NoError(t, tree.Compact(context.Background()), at) // from the cold, to the hot
			c.exactly(t, at, tree)
			require.NoError(t, tree.Close(), at)
			report, err := CheckFS(disk, "db", "cold")
			require.NoError(t, err, at)
			require.Empty(t, report.Problems, at)
			require.NotContains(t, strings.Join(report.Orphans, " "), ".table", at)
			c.restored(t, at, disk, "copy")
		},
	}
	x.run(t)
}

// TestColdFull fills one of the volumes while tables should move. Reads go on, and
// writes too where it is the cold one; when there is room the tables move.
func TestColdFull(t *testing.T) {
	for what, of := range map[string]string{"cold": "cold/", "hot": "db/"} {
		synctest.Test(t, func(t *testing.T) {
			disk, c := bottomDisk(t)
			var full atomic.Bool
			full.Store(true)
			o := cooling(vfs.Faulty(disk, func(op vfs.Op) error {
				if (op.Kind == vfs.OpCreate || op.Kind == vfs.OpWrite) && strings.HasPrefix(op.Name, of) && full.Load() {
					return vfs.ErrNoSpace
				}
				return nil
			}))
			full.Store(false)
			var now atomic.Int64 // before anything is old, then after
			now.Store(1_800_000_000)
			o.Now = func() time.Time { return time.Unix(now.Load(), 0) }
			tree := open(t, o)
			full.Store(true)
			now.Store(2_000_000_000)
			time.Sleep(3 * coldEvery)
			synctest.Wait()
			require.Zero(t, tree.Metrics().ColdTables, what)
			c.exactly(t, what, tree)
			err := tree.Put(key(300), []byte("v"))
			if of == "cold/" {
				require.NoError(t, err)
				c[string(key(300))] = "v"
			} else {
				require.ErrorIs(t, err, ErrNoSpace)
			}
			full.Store(false)
			time.Sleep(2 * coldEvery)
			synctest.Wait()
			require.Equal(t, 2, tree.Metrics().ColdTables, what)
			c.exactly(t, what, tree)
			require.NoError(t, tree.Close())
			require.Empty(t, filesOf(t, disk, "cold", ".table"))
			require.Len(t, filesOf(t, disk, coldHome, ".table"), 2, "no half copies")
		})
	}
}

// TestColdMissing opens a tree without the cold directory that it needs, and with
// one from which a table is gone.
func TestColdMissing(t *testing.T) {
	disk, c := bottomDisk(t)
	tree := open(t, cooling(disk))
	require.NoError(t, tree.moveCold())
	require.NoError(t, tree.Close())

	_, err := Open("db", isolating(disk))
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "ColdDir")
	o := cooling(disk)
	o.ColdDir = "elsewhere"
	_, err = Open("db", o)
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "elsewhere")
	_, err = CheckFS(disk, "db")
	require.ErrorIs(t, err, ErrInvalid)

	name := filesOf(t, disk, coldHome, ".table")[0]
	require.NoError(t, disk.Remove(name))
	o = cooling(disk)
	o.Isolate = false
	_, err = Open("db", o)
	require.ErrorIs(t, err, ErrCorrupt)
	report, err := CheckFS(disk, "db", "cold")
	require.NoError(t, err)
	require.Len(t, report.Problems, 1)
	tree = open(t, cooling(disk))
	require.Len(t, tree.Damaged(), 2, "both sides of what was dropped before")
	require.Positive(t, c.truthful(t, "", tree))
	require.NoError(t, tree.Close())
}

// TestColdDamage has a damaged table refuse to move, and one that is damaged where
// it is cold set aside there.
func TestColdDamage(t *testing.T) {
	disk, c := bottomDisk(t)
	hot := filesOf(t, disk, "db", ".table")
	require.NoError(t, disk.Corrupt(hot[0], 60, 1))
	o := cooling(disk)
	tree := open(t, o)
	if err := tree.moveCold(); err != nil { // nil when the background met it before
		require.ErrorIs(t, err, ErrCorrupt)
	}
	require.NoError(t, tree.moveCold())
	require.NoError(t, tree.isolate())
	require.NotEmpty(t, tree.Damaged())
	require.Equal(t, 1, tree.Metrics().ColdTables)
	require.Positive(t, c.truthful(t, "", tree))
	cold := filesOf(t, disk, coldHome, ".table")
	require.NoError(t, disk.Corrupt(cold[0], 60, 1))
	require.ErrorIs(t, tree.Scrub(context.Background()), ErrCorrupt)
	aside := filesOf(t, disk, coldHome, base.DamagedSuffix)
	for ; len(aside) == 0; aside = filesOf(t, disk, coldHome, base.DamagedSuffix) {
		runtime.Gosched() // the background may hold the version with it
		require.NoError(t, tree.sweep())
	}
	require.Equal(t, []string{cold[0] + base.DamagedSuffix}, aside)
	require.NoError(t, tree.Close())
}

// TestColdSharing has two trees with one cold directory: neither takes the other's
// tables for leftovers.
func TestColdSharing(t *testing.T) {
	disk, c := bottomDisk(t)
	first := open(t, cooling(disk))
	require.NoError(t, first.moveCold())
	o := cooling(disk)
	o.Identity = [16]byte{9}
	second, err := Open("second", o)
	require.NoError(t, err)
	d := content{}
	for i := range 10 {
		d[string(key(i))] = "second"
	}
	require.NoError(t, second.Apply(d.ordered(1)))
	require.NoError(t, second.Compact(context.Background()))
	require.NoError(t, second.moveCold())
	require.NoError(t, first.Close())
	require.NoError(t, second.Close())
	names, err := disk.List("cold")
	require.NoError(t, err)
	require.Len(t, names, 2, fmt.Sprint(names))
	first = open(t, cooling(disk))
	c.exactly(t, "first", first)
	require.Contains(t, filesOf(t, disk, path.Dir(coldHome), ""), coldHome)
	require.NoError(t, first.Close())
}

// TestColdUnmounted takes the cold volume away while the tree is open. That is no
// damage, and no directory is made in its place.
func TestColdUnmounted(t *testing.T) {
	disk, c := bottomDisk(t)
	var gone atomic.Bool
	var made atomic.Int64
	o := cooling(vfs.Faulty(disk, func(op vfs.Op) error {
		if gone.Load() && strings.HasPrefix(op.Name, "cold/") {
			if op.Kind == vfs.OpMkdirAll {
				made.Add(1)
			}
			return fs.ErrNotExist
		}
		return nil
	}))
	o.pick, o.MaxOpenFiles, o.CacheBytes = neverPick, 1, -1
	tree := open(t, o)
	v := tree.acquire(0)
	for f := range v.tables() {
		f.strays = 7
	}
	tree.release(v, 0)
	require.NoError(t, tree.moveCold())
	v = tree.acquire(0)
	for f := range v.tables() {
		require.True(t, f.Cold)
		require.Equal(t, uint64(7), f.strays, "the log is the same as before")
	}
	tree.release(v, 0)
	gone.Store(true)
	err := tree.Scrub(context.Background())
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.False(t, errors.Is(err, ErrCorrupt), fmt.Sprint(err))
	require.NoError(t, tree.isolate())
	require.Empty(t, tree.Damaged())
	require.ErrorIs(t, tree.makeColdDir(), fs.ErrNotExist)
	require.Zero(t, made.Load())
	gone.Store(false)
	c.exactly(t, "mounted again", tree)
	require.NoError(t, tree.Close())
}

// TestColdLocked opens a copy of a directory, of the same identity, that shares the
// cold directory: not before the other is closed, whoever had it first.
func TestColdLocked(t *testing.T) {
	disk, _ := bottomDisk(t)
	require.NoError(t, disk.MkdirAll("copy"))
	for _, name := range filesOf(t, disk, "db", "") {
		f, err := disk.Create("copy/" + path.Base(name))
		require.NoError(t, err)
		_, err = f.WriteAt(contentOf(t, disk, name), 0)
		require.NoError(t, errors.Join(err, f.Close()))
	}
	young := func() (*Options, *atomic.Bool) { // moves nothing in the background before it is told
		o, old := cooling(disk), new(atomic.Bool)
		later := o.Now
		o.Now = func() time.Time {
			if old.Load() {
				return later()
			}
			return bottomTime
		}
		return o, old
	}
	o, old := young()
	tree := open(t, o)
	o, otherOld := young()
	other, err := Open("copy", o)
	require.NoError(t, err, "nothing is cold yet")
	old.Store(true)
	require.NoError(t, tree.moveCold())
	otherOld.Store(true)
	require.ErrorIs(t, other.moveCold(), ErrLocked)
	require.NoError(t, other.Close())
	_, err = Open("copy", cooling(disk))
	require.ErrorIs(t, err, ErrLocked)
	require.Len(t, filesOf(t, disk, coldHome, ".table"), 2)
	require.NoError(t, tree.Close())
	require.Empty(t, disk.Handles())
}
