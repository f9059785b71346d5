package lsm

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/manifest"
	"example.com/kvstore/lsm/internal/offheap"
	"example.com/kvstore/lsm/vfs"
)

// TestCloseDuring closes the tree at each operation of each call that is more than
// a read. The call holds that operation back until Close is as far as it gets
// without it; it then succeeds or gives ErrClosed, and the directory is well.
func TestCloseDuring(t *testing.T) {
	disk, _ := bottomDisk(t)
	before := offheap.Live()
	more := content{"more": "v", "and": "w"}
	calls := map[string]func(*Tree) error{
		"Ingest":     func(tree *Tree) error { return tree.Ingest(slices.Values(more.ordered(1 << 40))) },
		"DropRange":  func(tree *Tree) error { return tree.DropRange(quarter, 2*quarter) },
		"Checkpoint": func(tree *Tree) error { return tree.Checkpoint("copy") },
		"Healed":     func(tree *Tree) error { return tree.Healed(Range{File: 1, Hi: 1 << 63}) },
		"Scrub":      func(tree *Tree) error { return tree.Scrub(context.Background()) },
		"Flush":      (*Tree).Flush,
		"Compact":    func(tree *Tree) error { return tree.Compact(context.Background()) },
	}
	for name, call := range calls {
		closed := 0
		for k := int64(1); ; k += sized[int64](1, 1, 5) {
			if err, hit := closeDuring(t, disk.CrashSynced(), call, k); errors.Is(err, ErrClosed) {
				closed++
			} else if require.NoError(t, err, "%s, operation %d", name, k); !hit {
				break
			}
		}
		require.Equal(t, before, offheap.Live(), name)
		t.Logf("%s: %d times ended by Close", name, closed)
	}
}

// closeDuring closes a tree at the k-th operation of the call; hit reports whether
// there was one.
func closeDuring(t *testing.T, disk *vfs.Mem, call func(*Tree) error, k int64) (err error, hit bool) {
	var tree *Tree
	var armed atomic.Bool
	var n atomic.Int64
	begin := make(chan struct{})
	var once sync.Once
	o := small(noLinks{vfs.Faulty(disk, func(op vfs.Op) error {
		if !armed.Load() || n.Add(1) != k {
			return nil
		}
		once.Do(func() { close(begin) })
		if strings.HasSuffix(op.Name, ".log") || op.Kind == vfs.OpSyncDir {
			<-tree.ending // the log's goroutine may be here: Close waits for it
		} else {
			<-tree.stopping
		}
		return nil
	})})
	o.pick = neverPick
	tree = open(t, o)
	armed.Store(true)
	done := make(chan error, 1)
	go func() { done <- call(tree) }()
	select {
	case <-begin:
		hit = true
		require.NoError(t, tree.Close())
		err = <-done
	case err = <-done:
		armed.Store(false)
		require.NoError(t, tree.Close())
	}
	require.ErrorIs(t, call(tree), ErrClosed)
	report, bad := CheckFS(disk.Strict(), "db")
	require.NoError(t, bad)
	require.Empty(t, report.Problems)
	return err, hit
}

// TestVersionDuringEdit has a version made between an edit of the manifest and the
// edit's own version, as a rotation does: it holds the old tables still, and what
// was dropped of them.
func TestVersionDuringEdit(t *testing.T) {
	disk, c := bottomDisk(t)
	o := small(disk)
	o.pick = neverPick
	tree := open(t, o)
	v := tree.acquire(0)
	require.NotEmpty(t, v.dropped)
	tree.edits <- struct{}{}
	e := manifest.Edit{NextFile: tree.nextFile.Load()}
	for id := range v.dropped {
		e.Remove = append(e.Remove, id)
	}
	require.NoError(t, tree.manifest.Apply(e))
	tree.change(func(*version) {})
	<-tree.edits
	tree.release(v, 0)
	c.exactly(t, "between", tree)
	require.NoError(t, tree.Close())
}

// TestSecondAttempt has the volume full when a write is stamped again: the first
// attempt was written, and the error says so.
func TestSecondAttempt(t *testing.T) {
	disk := vfs.NewMem(1)
	var full atomic.Bool
	var groups atomic.Int64
	o := small(vfs.Faulty(disk, func(op vfs.Op) error {
		if full.Load() && op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".log") {
			return vfs.ErrNoSpace
		}
		return nil
	}))
	o.GroupDone = func() { full.Store(groups.Add(1) == 2) } // after the first attempt
	tree := open(t, o)
	ahead := uint64(systemNow().Add(time.Minute).UnixMilli()) << stampShift
	require.NoError(t, tree.Apply(content{string(key(1)): "later"}.ordered(ahead)))
	err := tree.Put(key(1), []byte("v"))
	require.ErrorIs(t, err, ErrUncertain)
	require.ErrorIs(t, err, ErrNoSpace)
	require.NoError(t, tree.Put(key(1), []byte("w")))
	requireGet(t, tree, key(1), "w")
	require.NoError(t, tree.Close())
}

// TestCloseScrubbing closes a tree without tables that scrubs in the background.
func TestCloseScrubbing(t *testing.T) {
	o := small(vfs.NewMem(1))
	o.ScrubBytesPerSecond = 1000
	require.NoError(t, open(t, o).Close())
}

// TestHold has Close wait for a call that has begun, and refuse those that begin
// after it.
func TestHold(t *testing.T) {
	tree := open(t, small(vfs.NewMem(1)))
	require.True(t, tree.hold())
	closed := make(chan error, 1)
	go func() { closed <- tree.Close() }()
	<-tree.stopping
	require.False(t, tree.hold())
	require.NoError(t, tree.edit(manifest.Edit{}, nil))
	require.NotNil(t, tree.version.Load())
	tree.letGo()
	require.NoError(t, <-closed)
	require.Nil(t, tree.version.Load())
}
