package lsm

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
)

// A ordeal is one change of a tree that is tried with every fault: power cuts,
// failing syncs and full volumes at each of its file-system operations.
type ordeal struct {
	// disk has the tree, closed, and everything on it is durable.
	disk *vfs.Mem
	// options are those to open it with.
	options func(fs vfs.FS) *Options
	// act does the change. It may be called again after it has failed.
	act func(tree *Tree) error
	// check verifies a tree that was opened after the fault, or that goes on after
	// it. When done the change was acknowledged before.
	check func(t testing.TB, at string, tree *Tree, done bool)
	// after verifies what lies beside the tree on a disk; nil: nothing does.
	after func(t testing.TB, at string, disk *vfs.Mem, done bool)
}

// base gives a copy of the disk.
func (x *ordeal) base() *vfs.Mem { return x.disk.CrashSynced() }

// reopen verifies a disk.
func (x *ordeal) reopen(t testing.TB, at string, disk *vfs.Mem, done bool) {
	if x.after != nil {
		x.after(t, at, disk, done)
	}
	tree, err := Open("db", x.options(disk))
	require.NoError(t, err, at)
	x.check(t, at, tree, done)
	require.NoError(t, tree.Close(), at)
}

// run tries everything and logs how much that was.
func (x *ordeal) run(t *testing.T) {
	cuts := x.cuts(t)
	syncs := x.syncs(t)
	full := x.full(t)
	t.Logf("%d power cuts, %d failed syncs, %d operations on a full volume", cuts, syncs, full)
	require.Positive(t, cuts)
	require.Positive(t, syncs)
	require.Positive(t, full)
}

// cuts cuts the power before each operation that changes the disk.
func (x *ordeal) cuts(t *testing.T) int {
	disk := x.base()
	var running, done atomic.Bool
	type point struct {
		at   string
		disk *vfs.Mem
		done bool
	}
	var points []point
	seeds := sized[uint64](20, 2, 1)
	keep := func(op vfs.Op) {
		if !running.Load() || !op.Kind.Changes() {
			return
		}
		d := done.Load()
		for i, disk := range []*vfs.Mem{disk.Strict(), disk.CrashSynced()} {
			points = append(points, point{fmt.Sprintf("%v outcome %d", op, i), disk, d})
		}
		for seed := range seeds {
			points = append(points, point{fmt.Sprintf("%v seed %d", op, seed), disk.Crash(seed), d})
		}
	}
	turn := make(chan struct{}, 1)
	tree, err := Open("db", x.options(vfs.Faulty(disk, func(op vfs.Op) error {
		turn <- struct{}{}
		keep(op)
		<-turn
		return nil
	})))
	require.NoError(t, err)
	running.Store(true)
	require.NoError(t, x.act(tree))
	done.Store(true)
	require.NoError(t, tree.Close())
	running.Store(false)
	points = append(points, point{"the end", disk.Strict(), true})
	n := 0
	for i := len(points) - 1; i >= 0; i -= sized(1, 1, 7) {
		x.reopen(t, points[i].at, points[i].disk, points[i].done)
		n++
	}
	return n
}

// syncs lets each sync fail, from the opening on.
func (x *ordeal) syncs(t *testing.T) int {
	n := 0
	for _, pages := range []vfs.Pages{vfs.PagesDropped, vfs.PagesKept} {
		for i := 0; ; i += sized(1, 1, 3) {
			disk := x.base()
			var hit atomic.Bool
			fail := vfs.Nth(i, vfs.Kind.Syncs, func(vfs.Op) error {
				hit.Store(true)
				return &vfs.SyncError{Pages: pages, Err: vfs.ErrInjected}
			})
			at := fmt.Sprintf("sync %d, pages %v", i, pages)
			tree, err := Open("db", x.options(vfs.Faulty(disk, fail)))
			done := false
			if err == nil {
				if err = x.act(tree); err == nil {
					done = true
				} else {
					require.ErrorIs(t, err, vfs.ErrInjected, at)
				}
				if err := tree.Close(); err != nil {
					require.ErrorIs(t, err, vfs.ErrInjected, at)
				}
			}
			for _, disk := range []*vfs.Mem{disk.Strict(), disk.CrashSynced()} {
				x.reopen(t, at, disk, done)
			}
			if !hit.Load() {
				break
			}
			n++
		}
	}
	return n
}

// full lets the volume be full from each operation of the change on. The change
// is refused with ErrNoSpace or done, reads go on, and when there is room it
// succeeds.
func (x *ordeal) full(t *testing.T) int {
	n := 0
	for i := 0; ; i += sized(1, 1, 3) {
		disk := x.base()
		var full, hit atomic.Bool
		var ops atomic.Int64
		tree, err := Open("db", x.options(vfs.Faulty(disk, func(op vfs.Op) error {
			switch op.Kind {
			case vfs.OpCreate, vfs.OpWrite, vfs.OpAllocate, vfs.OpLink, vfs.OpMkdirAll:
				if full.Load() && ops.Add(1) > int64(i) {
					hit.Store(true)
					return vfs.ErrNoSpace
				}
			}
			return nil
		})))
		require.NoError(t, err)
		full.Store(true)
		at := fmt.Sprintf("full from operation %d on", i)
		err = x.act(tree)
		if err != nil {
			require.ErrorIs(t, err, ErrNoSpace, at)
		}
		x.check(t, at, tree, err == nil)
		full.Store(false)
		if err != nil {
			err = x.act(tree)
			if errors.Is(err, ErrNoSpace) { // a flush had begun before there was room
				err = x.act(tree)
			}
			require.NoError(t, err, "%s, then room", at)
		}
		x.check(t, at, tree, true)
		require.NoError(t, tree.Close())
		x.reopen(t, at, disk.Strict(), true)
		if !hit.Load() {
			return n
		}
		n++
	}
}
