package kvstore_test

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
)

// lazily has writes acknowledged long before they are synced.
func lazily(o *kvstore.Options) { o.Sync = kvstore.SyncEvery(time.Minute) }

// lapse has two of three owners acknowledge writes, one of which loses them with its
// power, and then answers together with the third.
func lapse(t *testing.T, seed uint64, set func(*kvstore.Options)) []check.Violation {
	return play(t, seed, kvtest.Options{}, also(set, lazily), func(c *kvtest.Cluster) []check.Violation {
		const keys = 10
		waitMembers(c, 3)
		c.Settle()
		c.Partition([]int{2})
		for i := range keys {
			put(c, i%2, fmt.Sprint("key", i), i)
		}
		c.Crash(1)
		c.Heal()
		c.Partition([]int{0})
		c.Restart(1)
		time.Sleep(redialed)
		for i := range keys {
			_, _ = c.Node(1+i%2).Get(ctx, fmt.Sprint("key", i))
		}
		c.Heal()
		heal(c, 2*time.Minute)
		return c.Violations()
	})
}

// TestSimLazyPowerCut: under a lazy policy an owner that lost power does not count until
// the others have brought it what it may have acknowledged.
func TestSimLazyPowerCut(t *testing.T) {
	few(t, 4, func(t *testing.T, seed uint64) {
		require.Empty(t, lapse(t, seed, nil))
	})
}

// TestSimLazyStorm: the same while clients read and write: one node after the other loses
// power, and the next when the one before is whole again. Nothing acknowledged is lost.
func TestSimLazyStorm(t *testing.T) {
	few(t, 6, func(t *testing.T, seed uint64) {
		o := &kvtest.Options{Loss: []float64{0, 0.02}[seed%2], Configure: func(_ int, o *kvstore.Options) { lazily(o) }}
		simulate(t, seed, o, func(c *kvtest.Cluster) {
			waitMembers(c, 3)
			c.Settle()
			draw := rand.New(rand.NewPCG(seed, 13))
			w := &crowd{c: c, keys: 12, nodes: []int{0, 1, 2}, think: 10 * time.Millisecond}
			w.start(5)
			defer w.leave()
			for range 6 {
				victim := draw.IntN(3)
				time.Sleep(time.Duration(draw.IntN(5000)) * time.Millisecond)
				c.Crash(victim)
				time.Sleep(time.Duration(draw.IntN(20)) * time.Second)
				c.Restart(victim)
				heal(c, 2*time.Minute)
			}
			w.leave()
			c.Settle()
			converge(c, 2*time.Minute)
			c.Check()
		})
	})
}

// TestSimLazyBlackout: all nodes lose power under a lazy policy. What any of them had
// synced is served by all soon, and what had been deleted is not; the loss is reported.
// While one is still away nobody pretends to know.
func TestSimLazyBlackout(t *testing.T) {
	var healed, lossy atomic.Int64
	o := &kvtest.Options{Configure: func(_ int, o *kvstore.Options) {
		lazily(o)
		o.Events = &kvstore.EventListener{Healed: func(i kvstore.DamageInfo) {
			healed.Add(1)
			if i.Lost {
				lossy.Add(1)
			}
		}}
	}}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		const keys = 20
		waitMembers(c, 3)
		c.Settle()
		for i := range keys {
			put(c, i%3, fmt.Sprint("key", i), i)
			put(c, i%3, fmt.Sprint("gone", i), i)
		}
		for i := range keys {
			require.NoError(c.T, c.Node(i%3).Delete(ctx, fmt.Sprint("gone", i)))
		}
		time.Sleep(2 * time.Minute) // synced by now
		for i := range keys {
			put(c, i%3, fmt.Sprint("late", i), i)
		}
		for i := range c.Nodes() {
			c.Crash(i)
		}
		c.Restart(0)
		c.Restart(1)
		time.Sleep(time.Minute)
		require.NotZero(c.T, incomplete(c))
		_, err := c.Node(0).DB().Get(ctx, "key0")
		require.Error(c.T, err)
		require.NotErrorIs(c.T, err, kvstore.ErrNotFound)
		c.Restart(2)
		heal(c, time.Minute)
		require.NotZero(c.T, healed.Load())
		require.NotZero(c.T, lossy.Load())
		c.Settle()
		for i := range keys {
			for n := range c.Nodes() {
				get(c, n, fmt.Sprint("key", i), i, kvstore.Quorum)
				_, err := c.Node(n).DB().Get(ctx, fmt.Sprint("gone", i))
				require.ErrorIs(c.T, err, kvstore.ErrNotFound)
			}
			put(c, i%3, fmt.Sprint("key", i), keys+i)
		}
		rounds := func() (n uint64) {
			for _, node := range c.Nodes() {
				n += node.DB().Metrics().Rounds
			}
			return n
		}
		before := rounds()
		time.Sleep(twoRounds)
		require.Greater(c.T, rounds(), before)
		converge(c, time.Minute)
	})
}

// TestSimLazyAlone: a node without others goes on at once with what it has.
func TestSimLazyAlone(t *testing.T) {
	o := &kvtest.Options{Nodes: 1, Configure: func(_ int, o *kvstore.Options) { lazily(o) }}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		c.Ready()
		put(c, 0, "key", 1)
		time.Sleep(2 * time.Minute)
		put(c, 0, "late", 2)
		c.Crash(0)
		c.Restart(0)
		c.Ready()
		require.Zero(c.T, incomplete(c))
		get(c, 0, "key", 1)
	})
}

// TestSimLazyRestart: a node that is closed has synced all, and is whole when it starts
// again. One that lost power says so once, and is whole when it was healed and closed.
func TestSimLazyRestart(t *testing.T) {
	o := &kvtest.Options{Configure: func(_ int, o *kvstore.Options) { lazily(o) }}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		for i := range 10 {
			put(c, i%3, fmt.Sprint("key", i), i)
		}
		for i := range c.Nodes() {
			c.Stop(i)
			c.Restart(i)
			require.Zero(c.T, c.Node(i).DB().Metrics().Damages)
			require.Zero(c.T, incomplete(c))
		}
		c.Settle()
		c.Check()
		c.Crash(1)
		c.Restart(1)
		require.NotZero(c.T, incomplete(c))
		heal(c, time.Minute)
		c.Stop(1)
		c.Restart(1)
		require.Zero(c.T, incomplete(c))
		c.Check()
	})
}
