package kvstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// A sick disk is full, or fails to sync, while it is told to.
type sick struct{ full, broken atomic.Bool }

var errDisk = errors.New("input/output error")

func (s *sick) hook(op vfs.Op) error {
	switch {
	case s.full.Load() && (op.Kind == vfs.OpWrite || op.Kind == vfs.OpAllocate || op.Kind == vfs.OpCreate):
		return vfs.ErrNoSpace
	case s.broken.Load() && op.Kind.Syncs():
		return errDisk
	}
	return nil
}

// disk puts the sickness into node i of a simulated cluster.
func (s *sick) disk(i int) func(int, *kvstore.Options) {
	return func(j int, o *kvstore.Options) {
		if i == j {
			o.FS = vfs.Faulty(o.FS, s.hook)
		}
	}
}

// TestFailedLog: the write under way when the log fails may be there or not;
// those after it are refused, and reads go on.
func TestFailedLog(t *testing.T) {
	var s sick
	disk := vfs.NewMem(1)
	db, err := kvstore.Open("/node", &kvstore.Options{FS: vfs.Faulty(disk, s.hook)})
	require.NoError(t, err)
	defer db.Close()
	ready(t, db)
	_, err = db.Put(ctx, "k", []byte("before"))
	require.NoError(t, err)

	s.broken.Store(true)
	_, err = db.Put(ctx, "k", []byte("under way"))
	require.ErrorIs(t, err, kvstore.ErrPartial)
	require.Equal(t, kvstore.Unknown, kvstore.OutcomeOf(err))
	s.broken.Store(false) // the page is clean now, and its content lost: no later sync proves anything
	for range 3 {
		_, err = db.Put(ctx, "k", []byte("after"))
		require.ErrorIs(t, err, kvstore.ErrReadOnly)
		require.Equal(t, kvstore.NotApplied, kvstore.OutcomeOf(err))
		require.False(t, kvstore.Retryable(err))
	}
	it, err := db.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "before", string(it.Value))
	require.Error(t, db.Close(), "Close says that not all is well")

	db = open(t, "/node", &kvstore.Options{FS: disk})
	ready(t, db)
	it, err = db.Get(ctx, "k")
	require.NoError(t, err)
	require.NotEqual(t, "after", string(it.Value))
	_, err = db.Put(ctx, "k", []byte("healthy"))
	require.NoError(t, err)
}

// TestFailedLogIsRead: a node whose log failed takes no writes, but the others go
// on reading from it.
func TestFailedLogIsRead(t *testing.T) {
	var s sick
	simulate(t, 1, &kvtest.Options{Configure: s.disk(1)}, func(c *kvtest.Cluster) {
		c.Ready()
		put(c, 0, "k", 1)
		s.broken.Store(true)
		for id := range 5 {
			_, _ = c.Node(1).Put(ctx, "other", check.Value("other", 10+id, 80))
		}
		time.Sleep(time.Minute)
		for _, n := range []int{0, 2} {
			st, err := c.Node(n).DB().Status(ctx)
			require.NoError(c.T, err)
			require.Equal(c.T, "alive", st.Members[1].State)
		}
		get(c, 0, "k", 1, kvstore.All)
		put(c, 2, "k", 2)
		require.ErrorIs(c.T, putError(c, 1), kvstore.ErrReadOnly)
	})
}

// TestFailedLogOfOwner: the same, seen by another node that coordinates.
func TestFailedLogOfOwner(t *testing.T) {
	var s sick
	one := s.disk(1)
	o := &kvtest.Options{Nodes: 2, Configure: func(i int, o *kvstore.Options) { o.N = 1; one(i, o) }}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		waitMembers(c, 2)
		c.Settle()
		key := keyOf(c.Node(0).DB(), "n1")
		put(c, 0, key, 1)
		s.broken.Store(true)
		_, err := c.Node(0).Put(ctx, key, check.Value(key, 2, 80))
		require.ErrorIs(c.T, err, kvstore.ErrPartial)
		require.Equal(c.T, kvstore.Unknown, kvstore.OutcomeOf(err))
		_, err = c.Node(0).Put(ctx, key, check.Value(key, 3, 80))
		require.ErrorIs(c.T, err, kvstore.ErrReadOnly)
		require.Equal(c.T, kvstore.NotApplied, kvstore.OutcomeOf(err))
		get(c, 0, key, 1)
		s.broken.Store(false)
		c.Crash(1)
		c.Restart(1)
		c.Check() // what was not applied stays unseen
	})
}

// TestFullVolume: a member whose volume is full takes no writes, remains a
// member, and takes writes again when there is room.
func TestFullVolume(t *testing.T) {
	var s sick
	simulate(t, 1, &kvtest.Options{Configure: s.disk(1)}, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		put(c, 1, "k", 0)
		s.full.Store(true)
		_, err := c.Node(1).Put(ctx, "k", check.Value("k", 1, 80), kvstore.All)
		require.ErrorIs(c.T, err, kvstore.ErrPartial, "the others have it")
		require.ErrorContains(c.T, err, kvstore.ErrNoSpace.Error())
		require.Equal(c.T, 1, strings.Count(err.Error(), "no space left"), "%v", err)
		id := 2
		for end := c.Now() + time.Minute; c.Now() < end; id++ { // stamps run out, and suspicion ripens
			_, _ = c.Node(1).Put(ctx, "k", check.Value("k", id, 80))
			time.Sleep(200 * time.Millisecond)
		}
		require.Empty(c.T, states(c, "suspect", "dead"))
		_, err = c.Node(1).Put(ctx, "k", check.Value("k", id, 80))
		require.ErrorIs(c.T, err, kvstore.ErrNoSpace, "no stamps without room")
		require.Equal(c.T, kvstore.NotApplied, kvstore.OutcomeOf(err))
		require.True(c.T, kvstore.Retryable(err))
		put(c, 0, "k", id+1)
		get(c, 1, "k", id+1)

		s.full.Store(false)
		put(c, 1, "k", id+2)
		_, err = c.Node(0).Put(ctx, "k", check.Value("k", id+3, 80), kvstore.All)
		require.NoError(c.T, err)
		c.Check()
	})
}

// TestFullVolumeLazily: under a lazy policy, too, a full volume is over when there is room,
// and holds up no Close.
func TestFullVolumeLazily(t *testing.T) {
	var s sick
	disk := vfs.NewMem(1)
	o := &kvstore.Options{FS: vfs.Faulty(disk, s.hook), Sync: kvstore.SyncNever}
	db, err := kvstore.Open("/node", o)
	require.NoError(t, err)
	ready(t, db)
	_, err = db.Put(ctx, "k", []byte("before"))
	require.NoError(t, err)
	refused := func() {
		s.full.Store(true)
		for err = nil; err == nil; {
			_, err = db.Put(ctx, "another", []byte("value"))
		}
		require.ErrorIs(t, err, kvstore.ErrNoSpace)
		require.Equal(t, kvstore.NotApplied, kvstore.OutcomeOf(err))
	}
	refused()
	s.full.Store(false)
	for err != nil {
		require.ErrorIs(t, err, kvstore.ErrNoSpace)
		_, err = db.Put(ctx, "k", []byte("after"))
	}
	require.NoError(t, db.Close())
	db, err = kvstore.Open("/node", o)
	require.NoError(t, err)
	ready(t, db)
	refused()
	_ = db.Close()
	s.full.Store(false)
	db, err = kvstore.Open("/node", o)
	require.NoError(t, err)
	defer db.Close()
	ready(t, db)
	it, err := db.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "after", string(it.Value))
}

// TestLazyPressure: callers that write faster than the log wait for it, and are not refused.
func TestLazyPressure(t *testing.T) {
	db, err := kvstore.Open(t.TempDir(), &kvstore.Options{Sync: kvstore.SyncNever, MemoryBytes: 16 << 20})
	require.NoError(t, err)
	defer db.Close()
	ready(t, db)
	var callers sync.WaitGroup
	for n := range 16 {
		callers.Go(func() {
			for i := range 1000 {
				if _, err := db.Put(ctx, fmt.Sprint(n, i), make([]byte, 8<<10)); err != nil {
					t.Errorf("put %d: %v", i, err)
					return
				}
			}
		})
	}
	callers.Wait()
}

// states tells which members some node takes to be in one of the states.
func states(c *kvtest.Cluster, of ...string) (found []string) {
	c.T.Helper()
	for _, n := range c.Nodes() {
		if !n.Runs() {
			continue
		}
		s, err := n.DB().Status(ctx)
		require.NoError(c.T, err)
		for _, m := range s.Members {
			for _, state := range of {
				if m.State == state {
					found = append(found, n.ID()+" takes "+m.ID+" for "+state)
				}
			}
		}
	}
	return found
}

// TestFullVolumeDuringJoin: a member that cannot keep its promise says nothing; a
// join that needs it waits until there is room.
func TestFullVolumeDuringJoin(t *testing.T) {
	var s sick
	simulate(t, 1, &kvtest.Options{Nodes: 4, Stopped: true, Configure: s.disk(1)}, func(c *kvtest.Cluster) {
		for i := range 3 {
			c.Restart(i)
		}
		c.Settle()
		waitRunning(c, 3)
		s.full.Store(true)
		c.Restart(3)
		time.Sleep(20 * time.Second)
		waitRunning(c, 3)
		require.Empty(c.T, states(c, "suspect", "dead"))
		s.full.Store(false)
		c.Settle()
		waitMembers(c, 4)
		put(c, 1, "k", 1)
		get(c, 3, "k", 1, kvstore.All)
	})
}

// TestStuckDisk: a Put returns when its deadline is over, also when the node
// needs its disk to go on. What was not sent is not applied.
func TestStuckDisk(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		put(c, 1, "k", 0)
		c.SlowDisk(1, time.Minute)
		unsent := 0
		for id := 1; id <= 10; id++ {
			const patience = 300 * time.Millisecond
			start := c.Now()
			short, cancel := context.WithTimeout(ctx, patience)
			_, err := c.Node(1).Put(short, "k", check.Value("k", id, 80))
			cancel()
			require.Less(c.T, c.Now()-start, patience+50*time.Millisecond)
			if err != nil { // no stamp without the disk
				unsent++
				require.ErrorIs(c.T, err, kvstore.ErrTimeout)
				require.Equal(c.T, kvstore.NotApplied, kvstore.OutcomeOf(err))
			}
			time.Sleep(500 * time.Millisecond)
		}
		require.Greater(c.T, unsent, 3)
		c.SlowDisk(1, 0)
		time.Sleep(3 * time.Minute)
		put(c, 1, "k", 100)
		c.Check()
	})
}

// TestCopiedDirectory: of a directory and its copy each start has an actor of
// its own, so that no two writes have one dot (I6).
func TestCopiedDirectory(t *testing.T) {
	disk := vfs.NewMem(1)
	db, err := kvstore.Open("/node", &kvstore.Options{FS: disk})
	require.NoError(t, err)
	require.NoError(t, db.Close())
	seen := map[uint64]bool{}
	for _, d := range []*vfs.Mem{disk.CrashSynced(), disk.CrashSynced(), disk} {
		db := open(t, "/node", &kvstore.Options{FS: d})
		ready(t, db)
		v, err := db.Put(ctx, "k", []byte("v"))
		require.NoError(t, err)
		seen[actorOf(t, v)] = true
	}
	require.Len(t, seen, 3)
}

// actorOf is the actor in a version that one plain write made.
func actorOf(t *testing.T, v kvstore.Version) uint64 {
	t.Helper()
	text, err := v.MarshalText()
	require.NoError(t, err)
	var seen vclock.Version
	require.NoError(t, seen.UnmarshalText(text))
	require.NotZero(t, seen.Past.Floor.Actor)
	return seen.Past.Floor.Actor
}

// TestOnlyReplica: where a cluster keeps one replica, nobody can give back what is lost:
// Open fails, rather than to go on without it.
func TestOnlyReplica(t *testing.T) {
	dir := t.TempDir()
	open := func(n int) (*kvstore.DB, error) {
		return kvstore.Open(dir, &kvstore.Options{Listen: "127.0.0.1:0", N: n})
	}
	db, err := open(1)
	require.NoError(t, err)
	require.NoError(t, db.Ready(ctx))
	for i := range 100 {
		_, err := db.Put(ctx, fmt.Sprint("key", i), []byte("value"))
		require.NoError(t, err)
	}
	require.NoError(t, kvstore.Flush(db))
	require.NoError(t, db.Close())
	names, err := filepath.Glob(filepath.Join(kvstore.DataDir(dir), "*.table"))
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		for i := 0; i < len(b); i += 32 {
			b[i] ^= 4
		}
		require.NoError(t, os.WriteFile(name, b, 0o600))
	}
	for _, n := range []int{1, 0} { // 0: it is the cluster's that counts
		db, err = open(n)
		if err == nil {
			db.Close()
		}
		require.ErrorIs(t, err, kvstore.ErrCorrupt)
	}
	names, err = filepath.Glob(filepath.Join(kvstore.DataDir(dir), "*.table"))
	require.NoError(t, err)
	require.NotEmpty(t, names, "nothing was set aside")
}
