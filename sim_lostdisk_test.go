package kvstore_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/topology"
)

// loseDisk has node i start with an empty disk.
func loseDisk(c *kvtest.Cluster, i int) {
	c.T.Helper()
	if c.Node(i).Runs() {
		c.Crash(i)
	}
	c.LoseDisk(i)
	c.Restart(i)
}

// TestSimLostDisk: a node that comes back under load with an empty disk takes its place
// again when the others have found out that it was gone. It answers for nothing until it
// has all of it, deletes included, and no write is lost.
func TestSimLostDisk(t *testing.T) {
	few(t, 3, func(t *testing.T, seed uint64) {
		simulate(t, seed, nil, func(c *kvtest.Cluster) {
			const keys = 60
			fillTables(c, keys)
			w := &crowd{c: c, keys: keys / 4, nodes: []int{0, 1, 2}, think: 20 * time.Millisecond}
			w.start(4)
			defer w.leave()
			time.Sleep(time.Second)
			lost := int(seed % 3)
			if lost == 0 { // it has no seeds, so it would form a cluster of its own
				lost = 1
			}
			loseDisk(c, lost)
			c.Settle()
			require.NotZero(c.T, incomplete(c))
			heal(c, time.Minute)
			require.Equal(c.T, uint64(1), c.Node(lost).DB().Metrics().Damages)
			time.Sleep(time.Second)
			w.leave()
			c.Settle()
			converge(c, time.Minute)
			for k := range keys {
				_, err := c.Node(lost).Get(ctx, fmt.Sprint("key", k), kvstore.All)
				if err != nil {
					require.ErrorIs(c.T, err, kvstore.ErrNotFound)
				}
			}
			time.Sleep(twoRounds)
			require.Zero(c.T, tombstones(c))
			c.Check()
		})
	})
}

// TestSimLostDiskAgain: nodes lose their disks one after the other, each as soon as the
// last one is whole, until nobody has the disk it began with; now and then one loses the
// new disk too, or power, before it is whole.
func TestSimLostDiskAgain(t *testing.T) {
	few(t, 5, func(t *testing.T, seed uint64) {
		o := &kvtest.Options{Nodes: 5, Configure: func(i int, o *kvstore.Options) {
			o.MaxRequest, o.Seeds = 2*time.Second, nil
			for j := range 5 {
				if i > 0 {
					o.Seeds = append(o.Seeds, fmt.Sprintf("n%d:1", j))
				}
			}
		}}
		simulate(t, seed, o, func(c *kvtest.Cluster) {
			waitMembers(c, 5)
			c.Settle()
			w := &crowd{c: c, keys: 20, nodes: []int{0, 1, 2, 3, 4}, think: 20 * time.Millisecond}
			w.start(5)
			defer w.leave()
			for i := 1; i < 5; i++ {
				time.Sleep(time.Second)
				loseDisk(c, i)
				switch (int(seed) + i) % 3 {
				case 0:
					time.Sleep(13 * time.Second) // it may have been taken in by now
					c.Crash(i)
					c.Restart(i)
				case 1:
					time.Sleep(12 * time.Second)
					loseDisk(c, i)
				}
				c.Settle()
				heal(c, 2*time.Minute)
			}
			w.leave()
			converge(c, time.Minute)
			c.Check()
		})
	})
}

// TestSimLostDiskFound: the disk that was given up turns up again, when another one has
// its place. It is told so, and answers for nothing any more.
func TestSimLostDiskFound(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		for k := range 20 {
			put(c, k%3, fmt.Sprint("key", k), k)
		}
		c.Crash(2)
		old := c.Node(2).Disk()
		loseDisk(c, 2)
		c.Settle()
		heal(c, time.Minute)
		for k := range 20 {
			put(c, k%3, fmt.Sprint("key", k), 100+k)
		}
		c.Stop(2)
		c.PutDisk(2, old)
		c.Restart(2)
		var err error
		for start := c.Now(); err == nil; time.Sleep(100 * time.Millisecond) {
			require.Less(c.T, c.Now()-start, time.Minute)
			_, err = c.Node(2).DB().Put(ctx, "other", nil, kvstore.One)
			if errors.Is(err, kvstore.ErrNotReady) && readyError(c, 2) == nil {
				err = nil // not yet
			}
		}
		require.ErrorIs(c.T, err, kvstore.ErrNotReady)
		require.False(c.T, kvstore.Retryable(err))
		err = readyError(c, 2)
		require.ErrorIs(c.T, err, kvstore.ErrJoinRefused)
		require.ErrorIs(c.T, err, topology.ErrNameTaken)
		c.Crash(2)
		c.Restart(2) // that is known now
		require.ErrorIs(c.T, readyError(c, 2), topology.ErrNameTaken)
		for k := range 20 {
			get(c, k%2, fmt.Sprint("key", k), 100+k)
		}
	})
}

// TestSimLostDiskHints: what was kept for the node that lost its disk, counted hints too,
// reaches the one that took its place.
func TestSimLostDiskHints(t *testing.T) {
	few(t, 3, func(t *testing.T, seed uint64) {
		o := &kvtest.Options{Nodes: 5, Configure: func(_ int, o *kvstore.Options) { o.SloppyQuorum = true }}
		simulate(t, seed, o, func(c *kvtest.Cluster) {
			waitMembers(c, 5)
			c.Settle()
			away := []int{1, 2}
			for _, i := range away {
				c.Crash(i)
			}
			time.Sleep(20 * time.Second)
			for k := range 40 {
				key := fmt.Sprint("key", k)
				_, err := c.Node(0).Put(ctx, key, check.Value(key, k, 80), kvstore.Sloppy)
				require.NoError(c.T, err)
			}
			require.NotZero(c.T, c.Node(0).DB().Metrics().PendingHints+c.Node(3).DB().Metrics().PendingHints+c.Node(4).DB().Metrics().PendingHints)
			c.LoseDisk(1)
			for _, i := range away {
				c.Restart(i)
			}
			c.Settle()
			heal(c, time.Minute)
			waitHints(c, time.Minute)
			converge(c, time.Minute)
			for k := range 40 {
				get(c, 1, fmt.Sprint("key", k), k, kvstore.All)
			}
			c.Check()
		})
	})
}

// lostDisk has a write known to the first owner and to one that then loses its disk; it
// is read through the one that missed it.
func lostDisk(t *testing.T, seed uint64, set func(*kvstore.Options)) []check.Violation {
	return play(t, seed, kvtest.Options{}, set, func(c *kvtest.Cluster) []check.Violation {
		waitMembers(c, 3)
		c.Settle()
		c.Partition([]int{1})
		for k := range 10 {
			key := fmt.Sprint("key", k)
			_, err := c.Node(0).Put(ctx, key, check.Value(key, k, 80))
			require.NoError(c.T, err)
		}
		c.Crash(2)
		c.Heal()
		c.LoseDisk(2)
		time.Sleep(redialed)
		c.Restart(2)
		c.Settle()
		time.Sleep(redialed)
		c.Crash(0)
		for k := range 10 {
			_, _ = c.Node(1).Get(ctx, fmt.Sprint("key", k))
		}
		c.Restart(0)
		c.Settle()
		return c.Violations()
	})
}

// TestSimLostDiskTwo: of two nodes that lose their disks at once one waits for the other,
// which can have its data back only when the old directory of the second is there again.
func TestSimLostDiskTwo(t *testing.T) {
	o := &kvtest.Options{Nodes: 5, Configure: func(i int, o *kvstore.Options) { o.MaxRequest = 2 * time.Second }}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		waitMembers(c, 5)
		c.Settle()
		for k := range 40 {
			put(c, 0, fmt.Sprint("key", k), k)
		}
		c.Crash(1)
		c.Crash(2)
		old := map[int]*vfs.Mem{1: c.Node(1).Disk(), 2: c.Node(2).Disk()}
		loseDisk(c, 2)
		loseDisk(c, 1)
		wait := func(what string, ok func() bool) {
			for start := c.Now(); !ok(); time.Sleep(100 * time.Millisecond) {
				require.Less(c.T, c.Now()-start, 2*time.Minute, what)
			}
		}
		denied, let := 0, 0
		wait("one is let in, the other one not", func() bool {
			let = 0
			for _, i := range []int{1, 2} {
				if err := readyError(c, i); err == nil {
					let++
				} else if errors.Is(err, topology.ErrTooManyLost) {
					denied = i
				}
			}
			return denied > 0 && let == 1
		})
		require.NotZero(c.T, incomplete(c))
		c.Crash(denied)
		c.PutDisk(denied, old[denied])
		c.Restart(denied)
		c.Settle()
		heal(c, time.Minute)
		converge(c, time.Minute)
		for k := range 40 {
			get(c, 3-denied, fmt.Sprint("key", k), k, kvstore.All)
		}
		c.Check()
	})
}

// TestSimLostDiskMark: a node that took a place and has not all data yet takes no writes,
// also when the table is lost in which it had noted that.
func TestSimLostDiskMark(t *testing.T) {
	o := &kvtest.Options{Nodes: 5, Configure: func(i int, o *kvstore.Options) { o.MaxRequest = 2 * time.Second }}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		waitMembers(c, 5)
		c.Settle()
		for k := range 40 {
			put(c, 0, fmt.Sprint("key", k), k)
		}
		c.Crash(1) // a whole owner less than it takes
		loseDisk(c, 2)
		require.NoError(c.T, readyError(c, 2))
		time.Sleep(20 * time.Second)
		flush(c, 2)
		for range 2 {
			require.True(c.T, kvstore.Barred(c.Node(2).DB()))
			c.Stop(2)
			for _, name := range tables(c, 2) {
				require.NoError(c.T, c.Node(2).Disk().Remove(name))
			}
			c.Restart(2)
			require.NoError(c.T, readyError(c, 2))
			time.Sleep(20 * time.Second) // it writes its own state again
		}
		require.True(c.T, kvstore.Barred(c.Node(2).DB()))
		c.Restart(1)
		c.Settle()
		heal(c, 2*time.Minute)
		require.False(c.T, kvstore.Barred(c.Node(2).DB()))
		converge(c, time.Minute)
		c.Check()
	})
}

// putShared writes five keys whose owners are the first three nodes, and gives them.
func putShared(c *kvtest.Cluster) (keys []string) {
	c.T.Helper()
	for i := 0; len(keys) < 5; i++ {
		key := fmt.Sprint("key", i)
		if owners := ownersOf(c, key); slices.Contains(owners, 0) && slices.Contains(owners, 1) && slices.Contains(owners, 2) {
			keys = append(keys, key)
			put(c, 0, key, i)
		}
	}
	return keys
}

// TestSimLostDiskApart: all owners of some keys are apart from the majority, which gives
// the place of one of them away, and forget deletes meanwhile. Who takes the place then
// promises what it learns to be forgotten: a horizon is never above the promise.
func TestSimLostDiskApart(t *testing.T) {
	o := &kvtest.Options{Nodes: 8, Stopped: true, Configure: func(i int, o *kvstore.Options) {
		if i == 7 {
			o.NodeID, o.Seeds = "n2", []string{"n3:1", "n4:1"}
		}
	}}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		for i := range 7 {
			c.Restart(i)
		}
		c.Settle()
		waitRunning(c, 7)
		keys := putShared(c)
		c.Partition([]int{0, 1, 2})
		time.Sleep(20 * time.Second)
		c.Restart(7)
		require.NoError(c.T, readyError(c, 7))
		for _, key := range keys {
			require.NoError(c.T, c.Node(0).Delete(ctx, key))
		}
		time.Sleep(twoRounds)
		for _, key := range keys {
			require.Greater(c.T, kvstore.HorizonOf(c.Node(0).DB(), key).Recorded, kvstore.HorizonOf(c.Node(7).DB(), key).Promised)
		}
		c.Crash(2) // nobody's node any more
		c.Heal()
		c.Settle()
		heal(c, 2*time.Minute)
		for _, key := range keys {
			h := kvstore.HorizonOf(c.Node(7).DB(), key)
			require.NotZero(c.T, h.Recorded)
			require.LessOrEqual(c.T, h.Recorded, h.Promised)
			_, err := c.Node(7).Get(ctx, key, kvstore.All)
			require.ErrorIs(c.T, err, kvstore.ErrNotFound)
		}
		c.Check()
	})
}

// followedAlive has two of five nodes apart, among themselves a quorum of some keys, and
// one that takes the place of one of them at the others.
func followedAlive(t *testing.T, seed uint64, set func(*kvstore.Options)) []check.Violation {
	return followed(t, seed, set, "n2")
}

// followedTwice is followedAlive, with both places taken.
func followedTwice(t *testing.T, seed uint64, set func(*kvstore.Options)) []check.Violation {
	return followed(t, seed, set, "n2", "n1")
}

func followed(t *testing.T, seed uint64, set func(*kvstore.Options), names ...string) []check.Violation {
	o := kvtest.Options{Nodes: 5 + len(names), Stopped: true, Configure: func(i int, o *kvstore.Options) {
		if i >= 5 {
			o.NodeID = names[i-5]
		}
	}}
	return play(t, seed, o, set, func(c *kvtest.Cluster) []check.Violation {
		for i := range 5 {
			c.Restart(i)
		}
		c.Settle()
		waitRunning(c, 5)
		keys := putShared(c)
		c.Partition([]int{1, 2})
		time.Sleep(20 * time.Second)
		for i := range names {
			c.Restart(5 + i)
		}
		time.Sleep(40 * time.Second)
		for round := range 3 {
			for i, key := range keys {
				_, _ = c.Node(0).Put(ctx, key, check.Value(key, 1000+10*round+i, 80))
				_, _ = c.Node(1).Get(ctx, key)
			}
		}
		c.Heal()
		time.Sleep(redialed)
		for i := range names { // of two with one name one has no place any more
			for _, node := range []int{2 - i, 5 + i} {
				if readyError(c, node) != nil {
					c.Crash(node)
				}
			}
		}
		return c.Violations()
	})
}
