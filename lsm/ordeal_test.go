package lsm

import (
	"errors"
	"fmt"
	"sync"
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

// reopen verifies a disk, and that what a crash left over is gone after the second
// opening.
func (x *ordeal) reopen(t testing.TB, at string, disk *vfs.Mem, done bool) {
	if x.after != nil {
		x.after(t, at, disk, done)
	}
	for range 2 {
		tree, err := Open("db", x.options(disk))
		require.NoError(t, err, at)
		x.check(t, at, tree, done)
		require.NoError(t, tree.Close(), at)
	}
	requireTidy(t, at, disk)
}

// run tries everything and logs how much that was.
func (x *ordeal) run(t *testing.T) {
	cuts, again := x.cuts(t)
	syncs := x.syncs(t)
	full := x.full(t)
	t.Logf("%d power cuts, %d more while the tree was opened again, %d failed syncs, %d operations on a full volume", cuts, again, syncs, full)
	require.Positive(t, cuts)
	require.Positive(t, syncs)
	require.Positive(t, full)
}

// An outcome is a disk after a power cut, before which the change was done or not.
type outcome struct {
	at   string
	disk *vfs.Mem
	done bool
}

// A cutter keeps what every kind of power cut would leave of a disk before each
// operation that changes it, each different disk once.
type cutter struct {
	disk          *vfs.Mem
	running, done atomic.Bool
	mu            struct {
		sync.Mutex
		met      map[finding]bool
		outcomes []outcome
	}
}

func newCutter(disk *vfs.Mem, met map[finding]bool) *cutter {
	c := &cutter{disk: disk}
	c.mu.met = met
	return c
}

func (c *cutter) cut(op vfs.Op) error {
	if !c.running.Load() || !op.Kind.Changes() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	done := c.done.Load()
	disks := []*vfs.Mem{c.disk.Strict(), c.disk.CrashSynced()}
	for way := range vfs.Tears {
		if torture || uint64(way) == op.N%uint64(vfs.Tears) {
			disks = append(disks, c.disk.CrashTorn(op.N, way))
		}
	}
	for seed := range sized[uint64](5, 1, 0) {
		disks = append(disks, c.disk.Crash(seed))
	}
	for i, disk := range disks {
		f := finding{print: fingerprint(disk)}
		if done {
			f.acked = 1
		}
		if !c.mu.met[f] {
			c.mu.met[f] = true
			c.mu.outcomes = append(c.mu.outcomes, outcome{fmt.Sprintf("%v outcome %d", op, i), disk, done})
		}
	}
	return nil
}

// cuts cuts the power before each operation that changes the disk. Torture then cuts
// it again while the tree is opened.
func (x *ordeal) cuts(t *testing.T) (n, again int) {
	met := map[finding]bool{}
	c := newCutter(x.base(), met)
	tree, err := Open("db", x.options(vfs.Faulty(c.disk, c.cut)))
	require.NoError(t, err)
	c.running.Store(true)
	require.NoError(t, x.act(tree))
	c.done.Store(true)
	require.NoError(t, tree.Close())
	c.running.Store(false)
	outcomes := append(c.mu.outcomes, outcome{"the end", c.disk.Strict(), true})
	for i := len(outcomes) - 1; i >= 0; i -= sized(1, 1, 7) {
		o := outcomes[i]
		if torture {
			again += x.cutAgain(t, o, met)
		}
		x.reopen(t, o.at, o.disk, o.done)
		n++
	}
	return n, again
}

// cutAgain cuts the power before each operation of an opening.
func (x *ordeal) cutAgain(t *testing.T, o outcome, met map[finding]bool) int {
	c := newCutter(o.disk.CrashSynced(), met)
	c.running.Store(true)
	c.done.Store(o.done)
	tree, err := Open("db", x.options(vfs.Faulty(c.disk, c.cut)))
	require.NoError(t, err, o.at)
	require.NoError(t, tree.Close(), o.at)
	for _, next := range c.mu.outcomes {
		x.reopen(t, o.at+", then "+next.at, next.disk, next.done)
	}
	return len(c.mu.outcomes)
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
