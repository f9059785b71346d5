package lsm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
)

// A crashPoint is a disk as a power cut left it, and what had happened by then.
type crashPoint struct {
	disk    *vfs.Mem
	acked   int // batches acknowledged before the cut
	started int // batches submitted before it
	at      string
}

// A workload submits batches, some at a time, and takes the disk apart before
// every operation that changes it.
type workload struct {
	disk   *vfs.Mem
	seeds  uint64  // torn outcomes for each operation
	models []model // models[i] is the state after i batches

	mu struct {
		sync.Mutex
		acked, started int
		failed         bool // a batch was refused
		late           int  // batches submitted after that and acknowledged
		points         []crashPoint
	}
}

func newWorkload(seeds uint64) *workload {
	return &workload{disk: vfs.NewMem(1), seeds: seeds, models: []model{{}}}
}

// cut is a hook that keeps what every kind of power cut would leave.
func (w *workload) cut(op vfs.Op) error {
	if !op.Kind.Changes() {
		return nil
	}
	// The counts are read on both sides: what was acknowledged before the cut
	// must be there, what was submitted before it may.
	w.mu.Lock()
	acked := w.mu.acked
	w.mu.Unlock()
	var disks []*vfs.Mem
	disks = append(disks, w.disk.Strict(), w.disk.CrashSynced())
	for seed := range w.seeds {
		disks = append(disks, w.disk.Crash(seed+op.N<<8))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, d := range disks {
		w.mu.points = append(w.mu.points, crashPoint{d, acked, w.mu.started, fmt.Sprintf("%v outcome %d", op, i)})
	}
	return nil
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
// flushes, compactions and a reopening. Torture cuts it before each operation of each
// recovery too, and in some of those recoveries again.
func TestCrash(t *testing.T) {
	w := cutEverywhere(t, sized[uint64](20, 1, 1), 4)
	step, nest := sized(1, 1, 17), sized(1, 307, 1700)
	cuts, again := 0, 0
	for i, p := range w.mu.points {
		if i%step != 0 {
			continue
		}
		cuts++
		p.disk = p.disk.CrashSynced() // a copy: nothing on it is unsynced
		n := w.verify(t, w.mu.points[i], w.mu.points[i].disk)
		if i%15 == 0 {
			w.goOn(t, w.mu.points[i], n)
		}
		if i%nest == 0 {
			again += w.crashAgain(t, p, 3)
		}
	}
	t.Logf("%d crash points, %d more during recovery, to depth 3", cuts, again)
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
}

// crashAgain cuts the power before each operation of a recovery, and of some of
// those recoveries again, down to a depth.
func (w *workload) crashAgain(t testing.TB, p crashPoint, depth int) int {
	second := newWorkload(1)
	second.disk, second.models = p.disk, w.models
	second.mu.acked, second.mu.started = p.acked, p.started
	second.verify(t, p, vfs.Faulty(p.disk, second.cut))
	n := len(second.mu.points)
	for i, q := range second.mu.points {
		q.at = p.at + ", then " + q.at
		if depth > 2 && i%23 == 0 {
			again := q
			again.disk = q.disk.CrashSynced()
			n += w.crashAgain(t, again, depth-1)
		}
		w.verify(t, q, q.disk)
	}
	return n
}
