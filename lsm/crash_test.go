package lsm

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"path"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/manifest"
	"example.com/kvstore/lsm/vfs"
)

// A crashPoint is a disk as a power cut left it, and what had happened by then.
type crashPoint struct {
	disk *vfs.Mem
	finding
	at string
}

// A workload submits batches, some at a time, and takes the disk apart before
// every operation that changes it.
type workload struct {
	disk   *vfs.Mem
	seeds  uint64  // outcomes that are drawn for each operation
	models []model // models[i] is the state after i batches

	mu struct {
		sync.Mutex
		acked, started int
		failed         bool // a batch was refused
		late           int  // batches submitted after that and acknowledged
		ops, rewrites  int  // of the manifest
		points         []crashPoint
		met            map[finding]bool // of the points
	}
}

// A finding is all that tells one crash point from another.
type finding struct {
	print   uint64 // of the disk
	acked   int    // batches acknowledged before the cut
	started int    // batches submitted before it
}

func newWorkload(seeds uint64) *workload {
	w := &workload{disk: vfs.NewMem(1), seeds: seeds, models: []model{{}}}
	w.mu.met = map[finding]bool{}
	return w
}

// cut is a hook that keeps what every kind of power cut would leave, each disk once.
func (w *workload) cut(op vfs.Op) error {
	if !op.Kind.Changes() {
		return nil
	}
	// The counts are read on both sides: what was acknowledged before the cut
	// must be there, what was submitted before it may.
	w.mu.Lock()
	acked := w.mu.acked
	w.mu.Unlock()
	disks := []*vfs.Mem{w.disk.Strict(), w.disk.CrashSynced()}
	for way := range vfs.Tears {
		if sized(true, true, uint64(way) == op.N%uint64(vfs.Tears)) {
			disks = append(disks, w.disk.CrashTorn(op.N, way))
		}
	}
	for seed := range w.seeds {
		disks = append(disks, w.disk.Crash(seed+op.N<<8))
	}
	var prints []uint64
	for _, d := range disks {
		prints = append(prints, fingerprint(d))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.ops++
	if op.Kind == vfs.OpRename && op.To == "db/manifest" {
		w.mu.rewrites++
	}
	for i, d := range disks {
		f := finding{prints[i], acked, w.mu.started}
		if w.mu.met[f] {
			continue
		}
		w.mu.met[f] = true
		w.mu.points = append(w.mu.points, crashPoint{d, f, fmt.Sprintf("%v outcome %d", op, i)})
	}
	return nil
}

var printSeed = maphash.MakeSeed()

// fingerprint is the same for disks that hold the same.
func fingerprint(disk *vfs.Mem) uint64 {
	var h maphash.Hash
	h.SetSeed(printSeed)
	var b []byte
	var add func(dir string)
	add = func(dir string) {
		names, _ := disk.List(dir)
		for _, base := range names {
			name := path.Join(dir, base)
			info, _ := disk.Stat(name)
			fmt.Fprintln(&h, name, info)
			if info.Dir {
				add(name)
			} else if f, err := disk.Open(name); err == nil {
				b = slices.Grow(b[:0], int(info.Size))[:info.Size]
				f.ReadAt(b, 0)
				f.Close()
				h.Write(b)
			}
		}
	}
	add(".")
	return h.Sum64()
}

// run submits n batches to the tree, up to 4 at a time, and flushes and compacts
// in between. It goes on after an error.
func (w *workload) run(t testing.TB, tree *Tree, from *writer, n int) {
	window := make(chan struct{}, 4)
	for i := range n {
		b := from.batch()
		w.models = append(w.models, w.models[len(w.models)-1].with(b))
		w.mu.Lock()
		w.mu.started++
		failed := w.mu.failed
		w.mu.Unlock()
		window <- struct{}{}
		tree.Submit(b, func(err error) {
			w.mu.Lock()
			switch {
			case err != nil:
				w.mu.failed = true
			case failed:
				w.mu.late++
			default:
				w.mu.acked++
			}
			w.mu.Unlock()
			<-window
		})
		var err error
		switch {
		case i%40 == 39:
			err = tree.Compact(context.Background())
		case i%11 == 10:
			err = tree.Flush()
		}
		if err != nil && !errors.Is(err, ErrReadOnly) && !errors.Is(err, ErrNoSpace) {
			t.Error(err)
		}
	}
	for range cap(window) {
		window <- struct{}{}
	}
}

// verify opens the disk and requires a prefix of the batches on it, at or past
// the last one that was acknowledged. It gives the length of the prefix.
func (w *workload) verify(t testing.TB, p crashPoint, fs vfs.FS) int {
	tree, err := Open("db", small(fs))
	if err != nil {
		t.Fatalf("%s: %+v", p.at, err)
	}
	defer tree.Close()
	n, last := -1, ""
	for i := p.acked; i <= p.started && i < len(w.models); i++ {
		if last = w.models[i].diff(tree); last == "" {
			n = i
			break
		}
	}
	if n < 0 {
		t.Fatalf("%s: no prefix from %d to %d: %s", p.at, p.acked, p.started, last)
	}
	require.NoError(t, tree.Close())
	return n
}

// cutEverywhere runs a workload, reopening now and then, and keeps what a power
// cut would leave before each of its operations.
func cutEverywhere(t testing.TB, seeds uint64, reopenings int) *workload {
	w := newWorkload(seeds)
	from := newWriter(1, 12, 200)
	for range reopenings {
		tree := open(t, small(vfs.Faulty(w.disk, w.cut)))
		w.run(t, tree, from, 50)
		require.NoError(t, tree.Close())
	}
	require.Equal(t, 50*reopenings, w.mu.acked)
	return w
}

// TestCrash cuts the power before every file-system operation of a workload with
// flushes, compactions, rewritten manifests and reopenings, then before each operation
// of the recovery from that, and in some of those recoveries again.
func TestCrash(t *testing.T) {
	defer func(n int64) { manifest.MinRewriteBytes = n }(manifest.MinRewriteBytes)
	manifest.MinRewriteBytes = 0
	w := cutEverywhere(t, sized[uint64](5, 1, 1), 4)
	require.Greater(t, w.mu.rewrites, 1)
	step, nest := sized(1, 1, 17), sized(1, 149, 1700)
	d := descent{w: w, deep: sized(97, 199, 199), met: map[finding]bool{}}
	cuts, began := 0, time.Now()
	for i, p := range w.mu.points {
		if i%step != 0 {
			continue
		}
		cuts++
		if i%nest == 0 {
			again := p
			again.disk = p.disk.CrashSynced() // a copy: nothing on it is unsynced
			d.from(t, again, 0)
		}
		n := w.verify(t, p, p.disk)
		if i%15 == 0 {
			w.goOn(t, p, n)
		}
		w.mu.points[i].disk = nil
	}
	t.Logf("%d operations, %d different crash points, %d during %d recoveries, %d during %d recoveries from those, in %v",
		w.mu.ops, cuts, d.cuts[0], d.recoveries[0], d.cuts[1], d.recoveries[1], time.Since(began))
}

// goOn writes to a recovered disk and cuts the power again.
func (w *workload) goOn(t testing.TB, p crashPoint, n int) {
	next := &workload{models: []model{w.models[n]}}
	tree := open(t, small(p.disk))
	defer tree.Close()
	from := newWriter(uint64(n), 12, 200)
	from.stamp = 10_000
	for range 3 {
		b := from.batch()
		require.NoError(t, tree.Apply(b))
		next.models[0] = next.models[0].with(b)
	}
	for _, disk := range []*vfs.Mem{p.disk.Strict(), p.disk.Crash(1)} {
		next.verify(t, crashPoint{at: p.at + ", 3 batches later"}, disk)
	}
	require.NoError(t, tree.Close())
	requireTidy(t, p.at, p.disk)
}

// A descent cuts the power before each operation of recoveries from crash points, and
// of some recoveries from those.
type descent struct {
	w          *workload
	deep       int // each deep-th of the latter
	met        map[finding]bool
	recoveries [2]int // by depth
	cuts       [2]int // that differ from all before
}

func (d *descent) from(t testing.TB, p crashPoint, depth int) {
	d.recoveries[depth]++
	second := newWorkload(1)
	second.disk, second.models = p.disk, d.w.models
	second.mu.acked, second.mu.started = p.acked, p.started
	second.verify(t, p, vfs.Faulty(p.disk, second.cut))
	for _, q := range second.mu.points {
		if d.met[q.finding] {
			continue
		}
		d.met[q.finding] = true
		d.cuts[depth]++
		q.at = p.at + ", then " + q.at
		if depth == 0 && d.cuts[depth]%d.deep == 0 {
			again := q
			again.disk = q.disk.CrashSynced()
			d.from(t, again, 1)
		}
		d.w.verify(t, q, q.disk)
	}
}
