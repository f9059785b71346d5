package lsm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/compaction"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// TestReserve fills the volume to the last block. What is in memory can be flushed
// and a range be dropped all the same; writes are refused, and go on by themselves
// when there is room.
func TestReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem(1)
		o := small(disk)
		o.pick = neverPick
		tree := open(t, o)
		c := fill(t, tree, 0, 100)
		synctest.Wait()
		reserve := tree.reserveName()
		require.Contains(t, filesOf(t, disk, "db", ""), reserve)
		disk.SetCapacity(disk.Used())
		require.NoError(t, tree.Flush(), "the reserve has room for it")
		synctest.Wait()
		require.NotContains(t, filesOf(t, disk, "db", ""), reserve)
		require.NoError(t, tree.DropRange(0, quarter))
		c = c.without(0, quarter)

		disk.SetCapacity(disk.Used())
		var err error
		for i := 1000; err == nil && i < 5000; i++ {
			v := strings.Repeat("v", 200)
			if err = tree.Put(key(i), []byte(v)); err == nil {
				c[string(key(i))] = v
			}
		}
		require.ErrorIs(t, err, ErrNoSpace)
		c.exactly(t, "full", tree)
		disk.SetCapacity(1 << 30)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		c = c.plus(fill(t, tree, 6000, 10))
		require.NoError(t, tree.Flush())
		synctest.Wait()
		require.Contains(t, filesOf(t, disk, "db", ""), reserve)
		c.exactly(t, "room", tree)
		require.NoError(t, tree.Close())
		again := open(t, small(disk.Strict()))
		c.exactly(t, "reopened", again)
		require.NoError(t, again.Close())
	})
}

// TestFullLazily: under a lazy policy, too, a full volume refuses writes and flushes, keeps
// what was accepted, and is over when there is room. Who closes before that is told.
func TestFullLazily(t *testing.T) {
	for name, policy := range map[string]SyncPolicy{"never": SyncNever, "every": SyncEvery(time.Second)} {
		for _, room := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/room=%v", name, room), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					disk := vfs.NewMem(1)
					o := small(disk)
					o.Sync, o.pick = policy, neverPick
					tree := open(t, o)
					c := fill(t, tree, 0, 100)
					synctest.Wait()
					disk.SetCapacity(disk.Used())
					synced := make(chan error, 1) // in the log when that finds no room, or refused
					go func() {
						for n := uint64(1); !room; n++ {
							d := vclock.Dot{Stamp: n, Actor: 2}
							if err := tree.ApplySync([]Record{{Token: Token(key(2)), Key: key(2), Kind: Tombstone, Min: d, Max: d}}); err != nil {
								synced <- err
								return
							}
							time.Sleep(time.Millisecond)
						}
					}()
					i := 1000
					put := func() error {
						i++
						v := strings.Repeat("v", 200)
						err := tree.Put(key(i), []byte(v))
						if err == nil {
							c[string(key(i))] = v
						}
						return err
					}
					// A flush may still make room once or twice.
					var err error
					for refused := 0; refused < 3; refused++ {
						if err = errors.Join(put(), tree.Flush()); err == nil {
							refused = 0
						}
						time.Sleep(2 * retryAfter)
					}
					for err = put(); err == nil; err = put() {
					}
					require.ErrorIs(t, err, ErrNoSpace)
					require.NotErrorIs(t, err, ErrReadOnly)
					require.ErrorIs(t, tree.Flush(), ErrNoSpace)
					submitted := make(chan error, 1)
					r := Record{Kind: Value, Key: key(1), Value: []byte("submitted")}
					r.Max = vclock.Dot{Stamp: 1, Actor: 1}
					r.Min = r.Max
					tree.Submit([]Record{r}, func(err error) { submitted <- err })
					require.ErrorIs(t, <-submitted, ErrNoSpace)
					c.exactly(t, "full", tree)
					if room {
						disk.SetCapacity(1 << 30)
						time.Sleep(5 * time.Second)
						synctest.Wait()
						c = c.plus(fill(t, tree, 60_000, 10))
						require.NoError(t, tree.Flush())
						c.exactly(t, "room", tree)
						require.NoError(t, tree.Close())
					} else {
						require.ErrorIs(t, <-synced, ErrNoSpace)
						err := tree.Close()
						require.True(t, isAny(tree.Put(key(1), nil), ErrClosed, ErrReadOnly))
						if err != nil { // else the segment in use had room for what was left
							require.ErrorIs(t, err, ErrNoSpace)
							return
						}
					}
					disk.SetCapacity(1 << 30)
					again := open(t, small(disk.Strict()))
					c.exactly(t, "reopened", again)
					require.NoError(t, again.Close())
				})
			})
		}
	}
}

func isAny(err error, kinds ...error) bool {
	return slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
}

// pickOnce leaves compactions alone until ready is set.
func pickOnce(ready *atomic.Bool) func([][]compaction.Run, compaction.Conditions) (compaction.Job, bool) {
	return func(slices [][]compaction.Run, c compaction.Conditions) (compaction.Job, bool) {
		if !ready.Load() {
			return compaction.Job{}, false
		}
		return compaction.Pick(slices, c)
	}
}

// TestCrowdedAndFull fills the volume while a slice has all the runs it may have, so
// that flushes wait for a compaction that has no room: writers are told, do not wait
// for ever, and go on by themselves when there is room.
func TestCrowdedAndFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem(1)
		o := small(disk)
		var ready atomic.Bool
		o.pick = pickOnce(&ready)
		tree := open(t, o)
		c := content{}
		for i := 0; !tree.crowded(); i++ {
			c = c.plus(fill(t, tree, 100*i, 100))
			require.NoError(t, tree.Flush())
		}
		synctest.Wait()
		disk.SetCapacity(disk.Used())
		ready.Store(true)
		put := func(i int) error {
			v := strings.Repeat("v", 2000)
			err := tree.Put(key(i), []byte(v))
			if err == nil {
				c[string(key(i))] = v
			}
			return err
		}
		var err error
		for i := 10_000; err == nil; i++ {
			err = put(i)
		}
		require.ErrorIs(t, err, ErrNoSpace)
		require.ErrorIs(t, tree.Flush(), ErrNoSpace)
		c.exactly(t, "full", tree)
		disk.SetCapacity(1 << 30)
		time.Sleep(2 * retryAfter)
		synctest.Wait()
		require.NoError(t, put(20_000))
		require.NoError(t, tree.Flush())
		require.False(t, tree.crowded())
		c.exactly(t, "room", tree)
		require.NoError(t, tree.Close())
	})
}

// TestMergePutOff: a compaction that could fill the volume does not begin before there
// is room.
func TestMergePutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem(1)
		o := small(disk)
		var ready atomic.Bool
		o.pick = pickOnce(&ready)
		told := atomic.Int64{}
		o.Events = &EventListener{NoSpace: func(SpaceInfo) { told.Add(1) }}
		tree := open(t, o)
		c := content{}
		for i := range compaction.Width {
			c = c.plus(fill(t, tree, 1000*i, 1000))
			require.NoError(t, tree.Flush())
		}
		synctest.Wait()
		used := disk.Used()
		disk.SetCapacity(used + 4<<10)
		ready.Store(true)
		kick(tree.compactKick)
		time.Sleep(retryAfter / 2)
		require.Zero(t, told.Load(), "the volume is not full")
		require.Equal(t, used, disk.Used())
		require.Zero(t, tree.Metrics().Compactions)
		disk.SetCapacity(1 << 30)
		time.Sleep(2 * retryAfter)
		synctest.Wait()
		require.Positive(t, tree.Metrics().Compactions)
		c.exactly(t, "room", tree)
		require.NoError(t, tree.Close())
	})
}

// TestQuota fills the volume at each operation of a workload that does everything
// there is: row S3. What is refused is refused with ErrNoSpace and did not happen;
// with room everything goes on.
func TestQuota(t *testing.T) {
	step := sized(1, 7, 41)
	tried, refusals := 0, 0
	for i := 0; ; i += step {
		disk := vfs.NewMem(1)
		var n atomic.Int64
		var begun, hit atomic.Bool
		o := cooling(vfs.Faulty(disk, func(op vfs.Op) error {
			if begun.Load() && op.Kind.Changes() && n.Add(1) == int64(i) {
				hit.Store(true)
				disk.SetCapacity(disk.Used())
			}
			return nil
		}))
		at := fmt.Sprintf("full at operation %d", i)
		tree := open(t, o)
		begun.Store(true)
		c, refused := everything(t, at, tree)
		begun.Store(false)
		c.exactly(t, at, tree)
		disk.SetCapacity(1 << 30)
		for {
			// A flush may be waiting for its next attempt.
			if err := tree.Flush(); !errors.Is(err, ErrNoSpace) {
				require.NoError(t, err, at)
				break
			}
		}
		c = c.plus(fill(t, tree, 7000, 3))
		require.NoError(t, tree.Compact(context.Background()), at)
		require.NoError(t, tree.moveCold(), at)
		require.NoError(t, tree.Checkpoint("last"), at)
		c.exactly(t, at, tree)
		require.NoError(t, tree.Close(), at)
		tree, err := Open("db", cooling(disk.Strict()))
		require.NoError(t, err, at)
		c.exactly(t, at, tree)
		require.NoError(t, tree.Close(), at)
		tried++
		refusals += refused
		if !hit.Load() && i > 0 {
			break
		}
	}
	t.Logf("%d volumes filled, %d refusals", tried, refusals)
	require.Positive(t, refusals)
}

// everything does a little of all that there is, and gives what the tree holds by
// then and how much was refused for want of space.
func everything(t testing.TB, at string, tree *Tree) (c content, refused int) {
	c = content{}
	try := func(err error, done func()) {
		t.Helper()
		switch {
		case err == nil:
			done()
		case errors.Is(err, ErrNoSpace):
			refused++
		default:
			t.Fatalf("%s: %v", at, err)
		}
	}
	none := func() {}
	for round := range 4 {
		for i := range 25 {
			k, v := key(100*round+i), strings.Repeat("v", 100+i)
			try(tree.Put(k, []byte(v)), func() { c[string(k)] = v })
		}
		try(tree.Flush(), none)
		more := content{}
		for i := 50; i < 60; i++ {
			more[string(key(100*round+i))] = "ingested"
		}
		try(tree.Ingest(slices.Values(more.ordered(uint64(round+1)<<40))), func() { maps.Copy(c, more) })
		lo := uint64(round) << 61
		try(tree.DropRange(lo, lo+1<<58), func() { c = c.without(lo, lo+1<<58) })
		try(tree.Compact(context.Background()), none)
		try(tree.moveCold(), none)
		try(tree.Checkpoint(fmt.Sprint("copy-", round)), none)
		try(tree.Scrub(context.Background()), none)
	}
	return c, refused
}

// TestOpenFull opens a tree on a volume that is full but for the reserve.
func TestOpenFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem(1)
		o := small(disk)
		o.pick = neverPick
		tree := open(t, o)
		synctest.Wait()
		c := fill(t, tree, 0, 100)
		require.NoError(t, tree.Close())
		reserve := tree.reserveName()
		require.Contains(t, filesOf(t, disk, "db", ""), reserve)
		disk.SetCapacity(disk.Used())
		tree = open(t, o)
		c.exactly(t, "full", tree)
		require.NoError(t, tree.Close())
		require.NotContains(t, filesOf(t, disk, "db", ""), reserve)
		disk.SetCapacity(0)
		_, err := Open("db", o)
		require.ErrorIs(t, err, ErrNoSpace, "there is nothing left to give")
	})
}
