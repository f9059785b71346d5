package lsm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/compaction"
	"example.com/kvstore/lsm/vfs"
)

// isolating are small options of a tree whose data others have too.
func isolating(fs vfs.FS) *Options {
	o := small(fs)
	o.Isolate = true
	return o
}

// neverPick leaves compactions to calls of Compact.
func neverPick([][]compaction.Run, compaction.Conditions) (compaction.Job, bool) {
	return compaction.Job{}, false
}

// content is what the keys of a tree should have.
type content map[string]string

// fill puts n keys and gives what the tree then holds.
func fill(t testing.TB, tree *Tree, from, n int) content {
	t.Helper()
	c := content{}
	for i := from; i < from+n; i++ {
		v := fmt.Sprintf("value %d", i)
		require.NoError(t, tree.Put(key(i), []byte(v)))
		c[string(key(i))] = v
	}
	return c
}

func (c content) plus(d content) content {
	sum := content{}
	for _, m := range []content{c, d} {
		for k, v := range m {
			sum[k] = v
		}
	}
	return sum
}

// truthful requires of each key that a read gives what was written or ErrCorrupt,
// never something else and never nothing. It gives the number of refused reads.
func (c content) truthful(t testing.TB, at string, tree *Tree) (refused int) {
	t.Helper()
	for k, want := range c {
		got, ok, err := tree.Get([]byte(k))
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt, at)
			refused++
			continue
		}
		require.True(t, ok, "%s: %s is absent", at, k)
		require.Equal(t, want, string(got), at)
	}
	seen := content{}
	for r, err := range tree.Scan(0, math.MaxUint64) {
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt, at)
			return refused
		}
		seen[string(r.Key)] = string(r.Value)
	}
	for k, want := range c {
		require.Equal(t, want, seen[k], "%s: scan of %s", at, k)
	}
	return refused
}

// whole requires all of it.
func (c content) whole(t testing.TB, at string, tree *Tree) {
	t.Helper()
	require.Zero(t, c.truthful(t, at, tree), at)
}

// damagedDisk gives a closed tree of two tables in each slice and records in the
// log, and what it holds.
func damagedDisk(t testing.TB, n int) (*vfs.Mem, content) {
	disk := vfs.NewMem(1)
	o := small(disk)
	o.pick = neverPick
	tree := open(t, o)
	c := fill(t, tree, 0, n)
	require.NoError(t, tree.Flush())
	c = c.plus(fill(t, tree, n, n))
	require.NoError(t, tree.Flush())
	c = c.plus(fill(t, tree, 2*n, n))
	require.NoError(t, tree.Close())
	return disk.CrashSynced(), c
}

func filesOf(t testing.TB, fs vfs.FS, dir, suffix string) (names []string) {
	all, err := fs.List(dir)
	require.NoError(t, err)
	for _, name := range all {
		if strings.HasSuffix(name, suffix) {
			names = append(names, path.Join(dir, name))
		}
	}
	return names
}

// endure opens a damaged disk with Isolate and requires that it tells the truth,
// goes on writing, and is well again once what was lost is applied again.
func (c content) endure(t testing.TB, at string, disk *vfs.Mem) (refused int) {
	t.Helper()
	tree, err := Open("db", isolating(disk))
	require.NoError(t, err, at)
	refused = c.truthful(t, at, tree)
	more := fill(t, tree, 90000, 3)
	require.NoError(t, tree.Flush(), at)
	require.NoError(t, tree.Compact(context.Background()), at)
	again := c.truthful(t, at, tree)
	require.GreaterOrEqual(t, again, refused, at)
	require.Equal(t, again > 0, len(tree.Damaged()) > 0, "%s: %d refused", at, again)
	require.NoError(t, tree.Close(), at)

	tree, err = Open("db", isolating(disk)) // damage survives a reopening
	require.NoError(t, err, at)
	require.Equal(t, again, c.truthful(t, at, tree), at)
	for k, v := range c.plus(more) {
		require.NoError(t, tree.Put([]byte(k), []byte(v)))
	}
	require.NoError(t, tree.Healed(tree.Damaged()...), at)
	require.Empty(t, tree.Damaged())
	c.plus(more).whole(t, at, tree)
	require.NoError(t, tree.Close(), at)
	report, err := CheckFS(disk, "db")
	require.NoError(t, err, at)
	require.Empty(t, report.Problems, at)
	return again
}

// TestBitRot flips a bit of each byte of each table: row S4 of the faults.
// Reads give what was written or ErrCorrupt, with Isolate and without.
func TestBitRot(t *testing.T) {
	disk, c := damagedDisk(t, 60)
	tables := filesOf(t, disk, "db", ".table")
	require.Len(t, tables, 4)
	flips, refused, harmless := 0, 0, 0
	bits := []int{-1}
	step := sized[int64](1, 17, 67)
	if torture {
		bits = []int{0, 1, 2, 3, 4, 5, 6, 7}
	}
	for i, name := range tables {
		info, err := disk.Stat(name)
		require.NoError(t, err)
		for at := int64(i); at < info.Size; at += step {
			for _, bit := range bits {
				if bit < 0 {
					bit = int(at % 8)
				}
				what := fmt.Sprintf("%s bit %d of byte %d", name, bit, at)
				bad := disk.CrashSynced()
				require.NoError(t, bad.Corrupt(name, at, 1<<bit))
				flips++

				alone := open(t, small(bad))
				n := c.truthful(t, what, alone)
				require.Empty(t, alone.Damaged(), "nobody to isolate for")
				require.NoError(t, alone.Close())
				require.Equal(t, tables, filesOf(t, bad, "db", ".table"))

				again := c.endure(t, what, bad)
				require.GreaterOrEqual(t, again, n)
				if again == 0 {
					harmless++
				}
				refused += again
			}
		}
	}
	t.Logf("%d flips, %d reads refused, %d harmless", flips, refused, harmless)
	require.Zero(t, harmless, "every byte of a table is read by a full compaction")
}

// TestLostTable removes and cuts tables.
func TestLostTable(t *testing.T) {
	disk, c := damagedDisk(t, 60)
	for _, name := range filesOf(t, disk, "db", ".table") {
		info, err := disk.Stat(name)
		require.NoError(t, err)
		bad := disk.CrashSynced()
		require.NoError(t, bad.Remove(name))
		_, err = Open("db", small(bad))
		require.ErrorIs(t, err, ErrCorrupt)
		require.Positive(t, c.endure(t, name+" lost", bad))
		for size := int64(0); size < info.Size; size += 97 {
			bad := disk.CrashSynced()
			f, err := bad.OpenReadWrite(name)
			require.NoError(t, err)
			require.NoError(t, f.Truncate(size))
			require.NoError(t, f.Close())
			at := fmt.Sprintf("%s cut at %d", name, size)
			alone := open(t, small(bad))
			require.Positive(t, c.truthful(t, at, alone))
			require.NoError(t, alone.Close())
			require.Positive(t, c.endure(t, at, bad))
			aside := filesOf(t, bad, "db", base.DamagedSuffix)
			require.Equal(t, []string{name + base.DamagedSuffix}, aside)
		}
	}
}

// TestAside bounds the files that are kept for analysis.
func TestAside(t *testing.T) {
	disk := vfs.NewMem(1)
	o := isolating(disk)
	o.pick = neverPick
	told := make(chan Range, 2*maxAside)
	o.OnDamage = func(r Range) { told <- r }
	tree := open(t, o)
	defer func() { require.NoError(t, tree.Close()) }()
	for i := range maxAside + 3 {
		c := fill(t, tree, i, 1)
		require.NoError(t, tree.Flush())
		tables := filesOf(t, disk, "db", ".table")
		require.Len(t, tables, 1, "the damaged one is gone")
		require.NoError(t, disk.Corrupt(tables[0], 40, 1))
		require.Equal(t, 1, c.truthful(t, "", tree))
		require.NoError(t, tree.isolate())
		require.NoError(t, tree.sweep())
	}
	require.Len(t, tree.Damaged(), maxAside+3)
	for range maxAside + 3 {
		require.Contains(t, tree.Damaged(), <-told)
	}
	require.Equal(t, uint64(maxAside+3), tree.Metrics().SetAside)
	require.Len(t, filesOf(t, disk, "db", base.DamagedSuffix), maxAside)
}

// TestDamagedLog flips bytes of the segments of a log: row S1. What is read is
// right or refused, and what is left is a prefix of the batches.
func TestDamagedLog(t *testing.T) {
	w := newWorkload(0)
	w.disk = vfs.NewMem(1)
	o := small(w.disk)
	o.pick = neverPick
	from := newWriter(3, 20, 800)
	for range 3 { // each opening begins a segment, and keeps the last: it is not short
		tree := open(t, o)
		for range 12 {
			b := from.batch()
			require.NoError(t, tree.Apply(b))
			w.models = append(w.models, w.models[len(w.models)-1].with(b))
		}
		require.NoError(t, tree.Close())
	}
	disk := w.disk.CrashSynced()
	logs := filesOf(t, disk, "db", ".log")
	require.Len(t, logs, 3)
	damaged, torn, harmless := 0, 0, 0
	step := sized[int64](1, 61, 251)
	for i, name := range logs {
		info, err := disk.Stat(name)
		require.NoError(t, err)
		for at := int64(0); at < info.Size+step; at += step {
			bad := disk.CrashSynced()
			what := fmt.Sprintf("%s byte %d", name, at)
			switch {
			case at < info.Size:
				require.NoError(t, bad.Corrupt(name, at, 0x11))
			case i == len(logs)-1:
				continue // nothing tells a lost last segment from one that never was
			default:
				what = name + " lost"
				require.NoError(t, bad.Remove(name))
			}
			strict, alone := Open("db", small(bad.CrashSynced()))
			if alone == nil {
				require.NoError(t, strict.Close())
			}
			tree, err := Open("db", isolating(bad))
			require.NoError(t, err, what)
			if len(tree.Damaged()) > 0 {
				require.ErrorIs(t, alone, ErrCorrupt, what)
				damaged++
				_, _, err := tree.Get(key(1))
				require.ErrorIs(t, err, ErrCorrupt, "%s: every token is damaged", what)
				require.NoError(t, tree.Healed(tree.Damaged()...))
			} else {
				require.NoError(t, alone, what)
			}
			prefix := -1
			for n := range w.models {
				if w.models[n].diff(tree) == "" {
					prefix = n
				}
			}
			require.GreaterOrEqual(t, prefix, 12*i-1, "%s: what is before the damage is there", what)
			if len(tree.Damaged()) == 0 && alone == nil {
				require.GreaterOrEqual(t, prefix, len(w.models)-2, "%s: only the last batch may be torn", what)
				if prefix == len(w.models)-1 {
					harmless++
				} else {
					torn++
				}
			}
			require.NoError(t, tree.Put(key(1), key(1)))
			require.NoError(t, tree.Close())
			again := open(t, small(bad)) // nothing of the damage is left in the way
			requireGet(t, again, key(1), string(key(1)))
			require.NoError(t, again.Close())
		}
	}
	t.Logf("%d times damage, %d torn, %d harmless", damaged, torn, harmless)
	require.Positive(t, damaged)
}

// TestAstray lets single writes be lost or go to another place: row S5. Whatever
// file they were for, reads are right or refused.
func TestAstray(t *testing.T) {
	faults := map[string]error{"lost": vfs.ErrLost, "misdirected": &vfs.MisdirectedError{Off: 4096}}
	detected, harmless := 0, 0
	for what, fault := range faults {
		for i := 0; ; i++ {
			hit := false
			disk := vfs.NewMem(1)
			write := func(k vfs.Kind) bool { return k == vfs.OpWrite }
			o := isolating(vfs.Faulty(disk, vfs.Nth(i, write, func(vfs.Op) error {
				hit = true
				return fault
			})))
			at := fmt.Sprintf("write %d %s", i, what)
			c, err := wander(t, o)
			if !hit {
				break
			}
			refused := 0
			if err == nil {
				var tree *Tree
				if tree, err = Open("db", isolating(disk)); err == nil {
					refused = c.truthful(t, at, tree)
					require.NoError(t, tree.Close())
				}
			}
			if err != nil {
				require.True(t, errors.Is(err, ErrCorrupt), "%s: %v", at, err)
				refused++
			}
			if refused > 0 {
				detected++
			} else {
				harmless++
			}
		}
	}
	t.Logf("%d writes astray detected, %d without consequence", detected, harmless)
	require.Positive(t, detected)
}

// wander fills a tree with flushes and compactions, and writes a little more so
// that no write is the last one of its file.
func wander(t testing.TB, o *Options) (content, error) {
	tree, err := Open("db", o)
	if err != nil {
		return nil, err
	}
	c := content{}
	put := func(i int) {
		if err == nil {
			v := fmt.Sprint("value ", i)
			if err = tree.Put(key(i), []byte(v)); err == nil {
				c[string(key(i))] = v
			}
		}
	}
	for i := range 40 {
		put(i)
		if i%10 == 9 && err == nil {
			err = tree.Flush()
		}
	}
	if err == nil {
		err = tree.Compact(context.Background())
	}
	for i := 40; i < 44; i++ {
		put(i)
	}
	// Nothing tells that the log's last group was lost from that it never was.
	delete(c, string(key(43)))
	return c, errors.Join(err, tree.Close())
}

// TestSetAside tries every fault while a damaged table is set aside.
func TestSetAside(t *testing.T) {
	disk, c := damagedDisk(t, 60)
	bad := filesOf(t, disk, "db", ".table")[1]
	require.NoError(t, disk.Corrupt(bad, 50, 4))
	x := ordeal{
		disk: disk, options: isolating,
		act: func(tree *Tree) error {
			c.truthful(t, "", tree)
			return tree.Compact(context.Background())
		},
		check: func(t testing.TB, at string, tree *Tree, done bool) {
			refused := c.truthful(t, at, tree)
			require.True(t, 0 < refused && refused < 40, "%s: %d refused, a table has about 30 keys", at, refused)
			if done {
				require.Len(t, tree.Damaged(), 1, at)
			}
		},
	}
	x.run(t)
}

// TestIsolateLog cuts the power while a damaged log is set aside by Open: one with a
// bad group, and one of which the end is gone, which only the manifest knows.
func TestIsolateLog(t *testing.T) {
	for what, hurt := range map[string]func(disk *vfs.Mem, log string, size int64) error{
		"bad": func(disk *vfs.Mem, log string, _ int64) error { return disk.Corrupt(log, 900, 4) },
		"cut": func(disk *vfs.Mem, log string, size int64) error {
			f, err := disk.OpenReadWrite(log)
			require.NoError(t, err)
			return errors.Join(f.Truncate(size-1), f.Close())
		},
	} {
		t.Run(what, func(t *testing.T) {
			disk, c := damagedDisk(t, 60)
			logs := filesOf(t, disk, "db", ".log")
			bad := logs[len(logs)-1]
			require.NoError(t, hurt(disk, bad, int64(len(contentOf(t, disk, bad)))))
			isolateLog(t, disk, c)
		})
	}
}

func isolateLog(t *testing.T, disk *vfs.Mem, c content) {
	var points atomic.Int64 // operations come from several goroutines
	work := disk.CrashSynced()
	tree := open(t, isolating(vfs.Faulty(work, func(op vfs.Op) error {
		if !op.Kind.Changes() {
			return nil
		}
		for i, cut := range []*vfs.Mem{work.Strict(), work.CrashSynced(), work.Crash(1), work.Crash(2)} {
			points.Add(1)
			at := fmt.Sprintf("%v outcome %d", op, i)
			again, err := Open("db", isolating(cut))
			require.NoError(t, err, at)
			require.Len(t, again.Damaged(), 1, at)
			require.Equal(t, len(c), c.truthful(t, at, again), at)
			left := 0
			for _, err := range again.Salvage(0, math.MaxUint64) {
				require.NoError(t, err)
				left++
			}
			require.True(t, 120 < left && left < 180, "%s: %d left", at, left)
			require.NoError(t, again.Close())
		}
		return nil
	})))
	require.NoError(t, tree.Close())
	t.Logf("%d power cuts", points.Load())
	require.Greater(t, points.Load(), int64(20))
}

// TestLostLog loses a closed log: what the manifest knows of its end says nothing about
// the one that begins anew.
func TestLostLog(t *testing.T) {
	disk := vfs.NewMem(1)
	tree := open(t, isolating(disk))
	fill(t, tree, 0, 400) // more than Open writes again
	require.NoError(t, tree.Close())
	tree = open(t, isolating(disk))
	require.NoError(t, tree.Close())
	for _, name := range filesOf(t, disk, "db", ".log") {
		require.NoError(t, disk.Remove(name))
	}
	tree = open(t, isolating(disk))
	require.Len(t, tree.Damaged(), 1)
	require.NoError(t, tree.Healed(tree.Damaged()...))
	c := fill(t, tree, 1000, 3)
	killed := disk.CrashSynced()
	require.NoError(t, tree.Close())
	tree = open(t, isolating(killed))
	require.Empty(t, tree.Damaged())
	c.whole(t, "after a kill", tree)
	require.NoError(t, tree.Close())
}

// TestUnreadableCompaction: a compaction of a table that cannot be read is tried again
// about once a second, and not all the time.
func TestUnreadableCompaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, _ := damagedDisk(t, 60)
		var broken atomic.Bool
		var reads atomic.Int64
		o := isolating(vfs.Faulty(disk, func(op vfs.Op) error {
			if op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, ".table") && broken.Load() {
				reads.Add(1)
				return vfs.ErrInjected
			}
			return nil
		}))
		o.CacheBytes = -1
		o.pick = func(slices [][]compaction.Run, _ compaction.Conditions) (compaction.Job, bool) {
			for s, runs := range slices {
				if broken.Load() && len(runs) > 1 && !runs[0].Busy && !runs[1].Busy {
					return compaction.Job{Slice: s, Runs: []int{0, 1}, Level: compaction.Bottom}, true
				}
			}
			return compaction.Job{}, false
		}
		tree := open(t, o)
		fill(t, tree, 100, 50)
		require.NoError(t, tree.Flush())
		broken.Store(true)
		kick(tree.compactKick)
		time.Sleep(unreadableFor / 2)
		synctest.Wait()
		require.NotZero(t, reads.Load())
		require.Less(t, reads.Load(), int64(100))
		broken.Store(false)
		require.NoError(t, tree.Close())
	})
}

// TestUnreadable lets reads of a table fail. Once is nothing. When the second attempt
// fails too the error is told; with Isolate the table is read again later, and counts as
// damaged when that fails still.
func TestUnreadable(t *testing.T) {
	for _, isolate := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			disk, c := damagedDisk(t, 60)
			bad := filesOf(t, disk, "db", ".table")[1]
			var left atomic.Int64
			o := isolating(vfs.Faulty(disk, func(op vfs.Op) error {
				if op.Kind == vfs.OpRead && op.Name == bad && left.Add(-1) >= 0 {
					return vfs.ErrInjected
				}
				return nil
			}))
			o.Isolate, o.CacheBytes, o.pick = isolate, -1, neverPick
			tree := open(t, o)
			left.Store(1)
			c.exactly(t, "one error", tree)
			require.Negative(t, left.Load())

			left.Store(1 << 40)
			outage := func() {
				for k := range c {
					if _, _, err := tree.Get([]byte(k)); err != nil {
						require.NotErrorIs(t, err, ErrCorrupt, "for now")
						return
					}
				}
				t.Fatal("no read fails")
			}
			if isolate {
				outage()
				left.Store(0)
				time.Sleep(2 * unreadableFor)
				synctest.Wait()
				require.Empty(t, tree.Damaged(), "it was short")
				left.Store(1 << 40)
				outage()
				time.Sleep(unreadableFor) // nobody reads
				synctest.Wait()
				require.Len(t, tree.Damaged(), 1)
			}
			refused := 0
			for k, want := range c {
				got, ok, err := tree.Get([]byte(k))
				if err != nil {
					require.Equal(t, isolate, errors.Is(err, ErrCorrupt), "%v", err)
					if !isolate {
						require.ErrorIs(t, err, vfs.ErrInjected)
					}
					refused++
					continue
				}
				require.True(t, ok)
				require.Equal(t, want, string(got))
				synctest.Wait()
			}
			require.True(t, 0 < refused && refused < len(c), "%d", refused)
			synctest.Wait()
			if isolate {
				require.Len(t, tree.Damaged(), 1)
				require.NoError(t, tree.Compact(t.Context()))
				require.NoError(t, tree.Healed(tree.Damaged()...))
				for k := range c {
					_, _, err := tree.Get([]byte(k))
					require.NoError(t, err)
				}
			} else {
				require.Empty(t, tree.Damaged())
				left.Store(0)
				c.exactly(t, "no more errors", tree)
			}
			require.NoError(t, tree.Close())
		})
	}
}

// TestDoubt: what may be missing is refused like what was lost with a file, also
// after a reopening, until it is healed.
func TestDoubt(t *testing.T) {
	disk := vfs.NewMem(1)
	tree := open(t, isolating(disk))
	c := fill(t, tree, 0, 60)
	require.NoError(t, tree.Flush())
	require.ErrorIs(t, tree.Doubt(2, 1, false), ErrInvalid)
	c.whole(t, "before", tree)
	require.NoError(t, tree.Doubt(0, math.MaxUint64-1, false))
	require.Len(t, tree.Damaged(), 1)
	require.Equal(t, len(c), c.truthful(t, "doubted", tree))
	require.NoError(t, tree.Close())
	require.ErrorIs(t, tree.Doubt(0, 1, true), ErrClosed)

	tree = open(t, isolating(disk))
	require.Equal(t, len(c), c.truthful(t, "reopened", tree))
	more := fill(t, tree, 100, 3) // has another file number
	require.NoError(t, tree.Flush())
	require.NoError(t, tree.Healed(tree.Damaged()...))
	c.plus(more).whole(t, "healed", tree)
	require.NoError(t, tree.Close())
}

// TestStale gives back, in each sector and each page of each file of a closed tree, what
// that place held at some moment before, also when the file had another name then: row
// S5. It is reported or does no harm.
func TestStale(t *testing.T) {
	s := &specimen{disk: vfs.NewMem(1), models: []model{{}}, options: specimenOptions}
	var mu sync.Mutex
	var moments []*vfs.Mem
	met := map[uint64]bool{}
	named := map[string]string{} // what a file was called before
	o := specimenOptions(vfs.Faulty(s.disk, func(op vfs.Op) error {
		if !op.Kind.Changes() {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if op.Kind == vfs.OpRename {
			named[op.To] = op.Name
		}
		disk := s.disk.CrashSynced()
		if print := fingerprint(disk); !met[print] {
			met[print] = true
			moments = append(moments, disk)
		}
		return nil
	}))
	o.Compression, o.pick = NoCompression, neverPick
	tree := open(t, o)
	from := newWriter(3, 6, 60)
	for i := range 60 {
		b := from.batch()
		s.models = append(s.models, s.models[i].with(b))
		require.NoError(t, tree.Apply(b))
		switch i % 25 {
		case 7, 15:
			require.NoError(t, tree.Flush())
		case 20:
			require.NoError(t, tree.Compact(context.Background()))
		}
	}
	require.NoError(t, tree.Close())
	before := func(disk *vfs.Mem, name string) bool { // gives the file its name of today
		for was, ok := name, true; ok; was, ok = named[was] {
			if _, err := disk.Stat(was); err == nil {
				return was == name || disk.Rename(was, name) == nil
			}
		}
		return false
	}
	met = map[uint64]bool{fingerprint(s.disk): true}
	reported, harmless := 0, 0
	for i := 0; i < len(moments); i += sized(1, 1, 11) {
		s.files(t, func(name string, size int64) {
			old := moments[i].CrashSynced()
			if !before(old, name) {
				return
			}
			for _, unit := range []int64{512, 4096, size} {
				for off := int64(0); off < size; off += unit {
					bad := s.disk.CrashSynced()
					require.NoError(t, bad.Stale(old, name, off, min(unit, size-off)))
					print := fingerprint(bad)
					if met[print] {
						continue // nothing is stale, or it was tried
					}
					met[print] = true
					at := func() string { return fmt.Sprintf("%s [%d, +%d) as at moment %d", name, off, unit, i) }
					if s.judge(t, bad, len(s.models)-1, at) {
						reported++
					} else {
						harmless++
					}
				}
			}
		})
	}
	require.Positive(t, reported)
	t.Logf("%d moments, %d stale places reported, %d harmless", len(moments), reported, harmless)
}
