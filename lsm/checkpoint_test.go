package lsm

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/offheap"
	"example.com/kvstore/lsm/vfs"
)

// another are small options with another identity.
func another(fs vfs.FS) *Options {
	o := small(fs)
	o.Identity = [16]byte{2}
	return o
}

// restored requires that the directory opens as a tree with just this content.
func (c content) restored(t testing.TB, at string, disk vfs.FS, dir string) {
	t.Helper()
	tree, err := Open(dir, another(disk))
	require.NoError(t, err, at)
	require.Equal(t, [16]byte{2}, tree.Identity())
	c.exactly(t, at, tree)
	require.NoError(t, tree.Put([]byte("more"), []byte("more")), at)
	require.NoError(t, tree.Compact(context.Background()), at)
	require.NoError(t, tree.Close(), at)
	tree, err = Open(dir, another(disk))
	require.NoError(t, err, at)
	c.plus(content{"more": "more"}).exactly(t, at, tree)
	require.NoError(t, tree.Close(), at)
	require.NotContains(t, filesOf(t, disk, dir, ""), path.Join(dir, base.CheckpointName))
}

// noLinks is a file system without hard links, like another volume.
type noLinks struct{ vfs.FS }

func (noLinks) Link(string, string) error { return errors.ErrUnsupported }

// TestCheckpoint tries every fault while a checkpoint is made, of tables, memtable
// and log. There is a whole one or none.
func TestCheckpoint(t *testing.T) {
	disk, c := damagedDisk(t, 60)
	for what, options := range map[string]func(vfs.FS) *Options{
		"links":  small,
		"copies": func(fs vfs.FS) *Options { return small(noLinks{fs}) },
	} {
		t.Run(what, func(t *testing.T) {
			x := ordeal{
				disk: disk, options: options,
				act: func(tree *Tree) error { return tree.Checkpoint("copy") },
				check: func(t testing.TB, at string, tree *Tree, done bool) {
					c.exactly(t, at, tree)
				},
				after: func(t testing.TB, at string, disk *vfs.Mem, done bool) {
					disk = disk.CrashSynced()
					names, err := disk.List("copy")
					if !done && (errors.Is(err, fs.ErrNotExist) || len(names) == 0 || slices.Equal(names, []string{base.LockName})) {
						return // nothing there that could be taken for one
					}
					require.NoError(t, err, at)
					tree, err := Open("copy", another(disk.CrashSynced()))
					if err == nil {
						require.NoError(t, tree.Close())
						c.restored(t, at, disk, "copy")
						return
					}
					require.False(t, done, "%s: %v", at, err)
					require.ErrorIs(t, err, ErrCorrupt, at)
				},
			}
			x.run(t)
		})
	}
}

// checkpoint gives a disk with a tree, a checkpoint of it, and what that holds.
func checkpoint(t testing.TB) (*vfs.Mem, content) {
	disk, c := damagedDisk(t, 60)
	tree := open(t, small(disk))
	require.NoError(t, tree.DropRange(0, quarter))
	require.NoError(t, tree.Checkpoint("copy"))
	require.NoError(t, tree.Put(key(7), []byte("later")))
	require.NoError(t, tree.Compact(context.Background()))
	require.ErrorIs(t, tree.Checkpoint("copy"), ErrInvalid, "it is not empty")
	require.NoError(t, tree.Close())
	require.ErrorIs(t, tree.Checkpoint("other"), ErrClosed)
	return disk.CrashSynced(), c.without(0, quarter)
}

// TestRestoreRefuses cuts copies of a checkpoint at each file and byte and alters
// bytes: row S11. What opens is complete.
func TestRestoreRefuses(t *testing.T) {
	disk, c := checkpoint(t)
	c.restored(t, "untouched", disk.CrashSynced(), "copy")
	names, err := disk.List("copy")
	require.NoError(t, err)
	require.Greater(t, len(names), 3)
	refused, complete := 0, 0
	try := func(at string, bad *vfs.Mem, whole bool) {
		tree, err := Open("copy", another(bad))
		if err != nil {
			require.True(t, errors.Is(err, ErrCorrupt) && !whole, "%s: %v", at, err)
			o := another(bad)
			o.Isolate = true
			_, err := Open("copy", o)
			require.ErrorIs(t, err, ErrCorrupt, "%s: a copy is refused also when others have the data", at)
			refused++
			return
		}
		require.NoError(t, tree.Close())
		require.True(t, whole, at)
		c.restored(t, at, bad, "copy")
		complete++
	}
	// Copied in any order, up to some file.
	for i := range names {
		for _, order := range [][]string{names, reversed(names), append(slices.Clone(names[i:]), names[:i]...)} {
			part := disk.CrashSynced()
			for _, name := range order[i:] {
				require.NoError(t, part.Remove("copy/"+name))
			}
			if left := order[:i]; i > 0 && !slices.Equal(left, []string{base.LockName}) {
				try(fmt.Sprintf("only %v", left), part, slices.Equal(order[i:], []string{base.LockName}))
			}
		}
		lacking := disk.CrashSynced()
		require.NoError(t, lacking.Remove("copy/"+names[i]))
		try("without "+names[i], lacking, names[i] == base.LockName)
	}
	step := sized[int64](1, 53, 211)
	for _, name := range names {
		info, err := disk.Stat("copy/" + name)
		require.NoError(t, err)
		for at := int64(0); at < info.Size; at += step {
			for bit := range 8 {
				if torture || int64(bit) == at%8 {
					bad := disk.CrashSynced()
					require.NoError(t, bad.Corrupt("copy/"+name, at, 1<<bit))
					try(fmt.Sprintf("%s, bit %d of byte %d", name, bit, at), bad, false)
				}
			}
			short := disk.CrashSynced()
			f, err := short.OpenReadWrite("copy/" + name)
			require.NoError(t, err)
			require.NoError(t, f.Truncate(at))
			require.NoError(t, f.Close())
			try(fmt.Sprintf("%s cut at %d", name, at), short, false)
		}
	}
	t.Logf("%d refused, %d complete", refused, complete)
}

// TestRestoreExtra refuses a copy with a table too many, and changes nothing in it.
func TestRestoreExtra(t *testing.T) {
	disk, c := checkpoint(t)
	extra := "copy/" + base.TableName(1<<40)
	f, err := disk.Create(extra)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	before, err := disk.List("copy")
	require.NoError(t, err)
	_, err = Open("copy", another(disk))
	require.ErrorIs(t, err, ErrCorrupt)
	after, err := disk.List("copy")
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.NoError(t, disk.Remove(extra))
	c.restored(t, "without it", disk, "copy")
}

// TestDamagedCopy damages a copy, and then a table that is copied. Only the table is
// set aside.
func TestDamagedCopy(t *testing.T) {
	disk, c := damagedDisk(t, 60)
	live := offheap.Live()
	tree := open(t, isolating(noLinks{vfs.Faulty(disk, func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && strings.HasPrefix(op.Name, "bad/") && strings.HasSuffix(op.Name, ".table") {
			return disk.Corrupt(op.Name, 60, 1)
		}
		return nil
	})}))
	require.ErrorIs(t, tree.Checkpoint("bad"), ErrCorrupt)
	require.NoError(t, tree.isolate())
	require.Empty(t, tree.Damaged())
	c.exactly(t, "healthy", tree)
	name := filesOf(t, disk, "db", ".table")[0]
	f, err := disk.OpenReadWrite(name)
	require.NoError(t, err)
	size, err := f.Size()
	require.NoError(t, err)
	require.NoError(t, f.Truncate(size-1))
	require.NoError(t, f.Close())
	require.ErrorIs(t, tree.Checkpoint("copy"), ErrCorrupt)
	require.NoError(t, tree.isolate())
	require.Len(t, tree.Damaged(), 1)
	require.NoError(t, tree.Close())
	require.Equal(t, live, offheap.Live())
}

func reversed(s []string) []string {
	s = slices.Clone(s)
	slices.Reverse(s)
	return s
}

// TestRestoreCrash cuts the power at each operation of a restore.
func TestRestoreCrash(t *testing.T) {
	disk, c := checkpoint(t)
	var points atomic.Int64 // operations come from several goroutines
	tree, err := Open("copy", another(vfs.Faulty(disk, func(op vfs.Op) error {
		if op.Kind.Changes() {
			for i, cut := range []*vfs.Mem{disk.Strict(), disk.CrashSynced(), disk.Crash(1)} {
				points.Add(1)
				c.restored(t, fmt.Sprintf("%v outcome %d", op, i), cut, "copy")
			}
		}
		return nil
	})))
	require.NoError(t, err)
	require.NoError(t, tree.Close())
	require.Greater(t, points.Load(), int64(30))
}

// TestCheckpointUnderLoad makes several at once while keys are written in order:
// each holds all that was written before it began, and a prefix of what came after.
func TestCheckpointUnderLoad(t *testing.T) {
	disk := vfs.NewMem(1)
	tree := open(t, small(disk))
	const n = 3000
	written := make(chan int, n)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			if err := tree.Put(key(i), key(i)); err != nil {
				t.Error(err)
			}
			written <- i
		}
		close(written)
	})
	least := map[string]int{}
	for i := range written {
		if i%500 != 499 {
			continue
		}
		for j := range 2 {
			dir := fmt.Sprintf("copy-%d-%d", i, j)
			least[dir] = i + 1
			wg.Go(func() {
				if err := tree.Checkpoint(dir); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	require.NoError(t, tree.Close())
	for dir, least := range least {
		copied, err := Open(dir, another(disk))
		require.NoError(t, err)
		count := 0
		for {
			_, ok, err := copied.Get(key(count))
			require.NoError(t, err)
			if !ok {
				break
			}
			count++
		}
		require.GreaterOrEqual(t, count, least)
		for i := count; i < n; i++ {
			_, ok, err := copied.Get(key(i))
			require.NoError(t, err)
			require.False(t, ok, "%s has key %d and not %d", dir, i, count)
		}
		require.NoError(t, copied.Close())
	}
}

// TestCloseDuringCheckpoint closes the tree while files are copied, and has two
// checkpoints go to one directory.
func TestCloseDuringCheckpoint(t *testing.T) {
	disk, _ := damagedDisk(t, 60)
	begun, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	tree := open(t, small(noLinks{vfs.Faulty(disk, func(op vfs.Op) error {
		if op.Kind == vfs.OpCreate && strings.HasPrefix(op.Name, "copy/") && strings.HasSuffix(op.Name, ".table") {
			once.Do(func() {
				close(begun)
				<-goOn
			})
		}
		return nil
	})}))
	made := make(chan error, 1)
	go func() { made <- tree.Checkpoint("copy") }()
	<-begun
	require.ErrorIs(t, tree.Checkpoint("copy"), ErrLocked)
	closed := make(chan error, 1)
	go func() { closed <- tree.Close() }()
	<-tree.ending
	close(goOn)
	require.ErrorIs(t, <-made, ErrClosed)
	require.NoError(t, <-closed)
	names, err := disk.List("copy")
	require.NoError(t, err)
	require.Equal(t, []string{base.LockName}, names)
}

var rewrite = flag.Bool("rewrite", false, "write the fixtures of the newest format version; those of released versions stay as they are")

// TestFixtures opens a directory and a checkpoint as the first release of the
// formats wrote them. Every later version does.
func TestFixtures(t *testing.T) {
	const home = "testdata/v1"
	c := content{}
	for i := range 40 {
		c[string(key(i))] = fmt.Sprintf("value %d", i)
	}
	c = c.without(3*quarter, 1<<64-1)
	c[string(key(100))] = "in the log"
	if *rewrite {
		require.NoError(t, os.RemoveAll(home))
		require.NoError(t, os.MkdirAll(home, 0o755))
		dir := filepath.ToSlash(home)
		o := small(vfs.OS)
		o.Now = func() time.Time { return time.Unix(1_700_000_000, 0) }
		tree, err := Open(dir+"/tree", o)
		require.NoError(t, err)
		fill(t, tree, 0, 40)
		require.NoError(t, tree.DropRange(3*quarter, 1<<64-1))
		require.NoError(t, tree.Checkpoint(dir+"/checkpoint"))
		require.NoError(t, tree.Put(key(100), []byte("in the log")))
		require.NoError(t, tree.Close())
	}
	disk := vfs.NewMem(1)
	for _, dir := range []string{"tree", "checkpoint"} {
		require.NoError(t, disk.MkdirAll(dir))
		files, err := os.ReadDir(filepath.Join(home, dir))
		require.NoError(t, err)
		for _, file := range files {
			b, err := os.ReadFile(filepath.Join(home, dir, file.Name()))
			require.NoError(t, err)
			f, err := disk.Create(dir + "/" + file.Name())
			require.NoError(t, err)
			_, err = f.WriteAt(b, 0)
			require.NoError(t, err)
			require.NoError(t, f.Close())
		}
		report, err := CheckFS(disk, dir)
		require.NoError(t, err)
		require.Empty(t, report.Problems)
		tree, err := Open(dir, another(disk))
		require.NoError(t, err)
		c.exactly(t, dir, tree)
		require.NoError(t, tree.Close())
		delete(c, string(key(100)))
	}
}
