package lsm

import (
	"context"
	"fmt"
	"math"
	"path"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/compaction"
	"example.com/kvstore/lsm/internal/offheap"
	"example.com/kvstore/lsm/vfs"
)

// tableTally counts the tables that are open.
type tableTally struct{ now, most atomic.Int64 }

func (c *tableTally) hook(op vfs.Op) error {
	if !strings.HasSuffix(op.Name, base.TableName(1)[len(base.TableName(1))-4:]) {
		return nil
	}
	switch op.Kind {
	case vfs.OpCreate, vfs.OpOpen:
		n := c.now.Add(1)
		for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); {
			most = c.most.Load()
		}
	case vfs.OpClose:
		c.now.Add(-1)
	}
	return nil
}

// manyTables makes a tree of 320 tables, and gives options that leave them as
// they are.
func manyTables(t *testing.T, fs vfs.FS) (o *Options, keys int) {
	o = small(fs)
	o.Slices, o.MemtableBytes, o.CacheBytes = 32, 4<<20, -1
	o.pick = func([][]compaction.Run, compaction.Conditions) (compaction.Job, bool) {
		return compaction.Job{}, false
	}
	tree := open(t, o)
	const flushes, each = 10, 400
	for i := range flushes {
		for j := range each {
			require.NoError(t, tree.Put(key(i*each+j), fmt.Appendf(nil, "value %d", i*each+j)))
		}
		require.NoError(t, tree.Flush())
	}
	require.Equal(t, 320, tree.Metrics().Tables)
	require.NoError(t, tree.Close())
	return o, flushes * each
}

// TestMetadataBounds opens, reads, scans and compacts a tree whose indexes and
// filters are 4 times what may be in memory, or whose tables are more than may be
// open.
func TestMetadataBounds(t *testing.T) {
	const readers = 4
	before := offheap.Live()
	disk := vfs.NewMem(1)
	o, keys := manyTables(t, disk)
	tree := open(t, o)
	for i := range keys {
		requireGet(t, tree, key(i), fmt.Sprintf("value %d", i))
	}
	all := tree.Metrics()
	require.Equal(t, 320, all.OpenTables)
	require.NoError(t, tree.Close())

	for name, bound := range map[string]func(o *Options){
		"bytes": func(o *Options) { o.metadataBytes = all.MetadataBytes / 4 },
		"files": func(o *Options) { o.MaxOpenFiles = 30 },
	} {
		t.Run(name, func(t *testing.T) {
			tally := &tableTally{}
			o := *o
			o.FS = vfs.Faulty(disk.CrashSynced(), tally.hook)
			bound(&o)
			tree := open(t, &o)
			within := func(pinned int64) {
				m := tree.Metrics()
				each := all.MetadataBytes / int64(all.OpenTables)
				files := min(int64(tree.metadata.files), tree.metadata.limit.Load()/each*5/4)
				require.LessOrEqual(t, tally.most.Load(), files+pinned)
				require.LessOrEqual(t, m.MetadataBytes, min(tree.metadata.limit.Load(), files*each*5/4)+pinned*2*each)
			}
			require.Zero(t, tally.most.Load(), "tables are opened when they are needed")
			var wg sync.WaitGroup
			for w := range readers {
				wg.Go(func() {
					for i := range 200 {
						k := (i*7 + w*1000) % keys
						if v, ok, err := tree.Get(key(k)); err != nil || !ok || string(v) != fmt.Sprintf("value %d", k) {
							t.Errorf("key %d: %q, %v, %v", k, v, ok, err)
							return
						}
						if _, ok, err := tree.Get([]byte(fmt.Sprint("absent", i))); ok || err != nil {
							t.Error("absent:", ok, err)
							return
						}
					}
				})
			}
			wg.Wait()
			within(readers + maxGoing + 2)
			require.Greater(t, tree.Metrics().Evicted, uint64(500))
			n := 0
			for r, err := range tree.Scan(0, math.MaxUint64) {
				require.NoError(t, err)
				require.Contains(t, string(r.Value), "value ")
				n++
			}
			require.Equal(t, keys, n)
			within(320) // a scan is in all runs of all slices at once
			tally.most.Store(0)
			require.NoError(t, tree.Compact(context.Background()))
			within(int64(compactors()) * 12)
			for i := 0; i < keys; i += 3 {
				requireGet(t, tree, key(i), fmt.Sprintf("value %d", i))
			}
			require.NoError(t, tree.Close())
			require.Zero(t, tally.now.Load(), "open tables after Close")
		})
	}
	require.Equal(t, before, offheap.Live(), "memory is left after Close")
}

// TestDamagedMetadata requires an error, and neither absence nor a crash, when an
// index or filter is damaged while it is not in memory.
func TestDamagedMetadata(t *testing.T) {
	disk := vfs.NewMem(1)
	o, keys := manyTables(t, disk)
	o.MaxOpenFiles = 1
	tree := open(t, o)
	for i := range 100 {
		requireGet(t, tree, key(i), fmt.Sprintf("value %d", i))
	}
	v := tree.acquire(0)
	damaged := map[*tableFile]bool{}
	for f := range v.tables() {
		if f.reader.Load() == nil && len(damaged) < 20 {
			// Somewhere in the filter, which is before index, properties and footer.
			require.NoError(t, disk.Corrupt(path.Join("db", base.TableName(f.ID)), int64(f.Bytes)-400+int64(len(damaged))*10, 0x10))
			damaged[f] = true
		}
	}
	failed := 0
	for i := 0; i < keys; i += 2 {
		value, ok, err := tree.Get(key(i))
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			failed++
			continue
		}
		require.True(t, ok)
		require.Equal(t, fmt.Sprintf("value %d", i), string(value))
	}
	require.Greater(t, failed, 20)
	tree.release(v, 0)
	require.NoError(t, tree.Close())
}

// TestGrace requires that a reader who entered before a moment holds it up, and
// one who entered after two flips does not.
func TestGrace(t *testing.T) {
	g := &grace{}
	for range 4 {
		a := g.enter(1)
		moment := g.now()
		require.False(t, g.passed(moment))
		b := g.enter(2) // in the next phase
		require.False(t, g.passed(moment))
		leave(a)
		require.True(t, g.passed(moment) || g.now() < moment+2)
		later := g.now()
		require.False(t, g.passed(later))
		leave(b)
		require.True(t, g.passed(moment))
		require.True(t, g.passed(later))
	}
}

// TestGraceUnderLoad frees what readers look at: nobody may see freed memory.
func TestGraceUnderLoad(t *testing.T) {
	type thing struct{ freed atomic.Bool }
	g := &grace{}
	var now atomic.Pointer[thing]
	now.Store(&thing{})
	var wg sync.WaitGroup
	var stop atomic.Bool
	var reads atomic.Int64
	for r := range 4 {
		wg.Go(func() {
			for !stop.Load() {
				in := g.enter(r)
				x := now.Load()
				runtime.Gosched() // others go on
				if x.freed.Load() {
					t.Error("a reader is in freed memory")
				}
				leave(in)
				reads.Add(1)
			}
		})
	}
	type gone struct {
		*thing
		moment uint64
	}
	var going []gone
	freed := 0
	for freed < 20_000 || reads.Load() < 20_000 {
		old := now.Swap(&thing{})
		going = append(going, gone{old, g.now()})
		for len(going) > 0 && g.passed(going[0].moment) {
			going[0].freed.Store(true)
			going = going[1:]
			freed++
		}
	}
	stop.Store(true)
	wg.Wait()
}

// TestEvictDuringDiscard takes a table out of memory while it is being discarded: it
// is closed once.
func TestEvictDuringDiscard(t *testing.T) {
	disk, _ := damagedDisk(t, 60)
	tree := open(t, small(disk))
	v := tree.acquire(0)
	var files []*tableFile
	for f := range v.tables() {
		files = append(files, f)
	}
	o, err := files[0].open()
	require.NoError(t, err)
	require.NoError(t, o.release())
	require.Same(t, o, files[0].reader.Swap(nil)) // as discard begins
	tree.metadata.files = 1
	other, err := files[1].open()
	require.NoError(t, err)
	require.NotContains(t, tree.metadata.mu.going, o)
	tree.metadata.remove(o)
	require.NoError(t, o.release()) // as it ends
	require.NoError(t, other.release())
	tree.release(v, 0)
	require.NoError(t, tree.Close())
}
