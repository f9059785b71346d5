package kvstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
)

// pendingHints are the hints, and partitions marked, that all nodes keep.
func pendingHints(c *kvtest.Cluster) (hints, partitions int) {
	for _, n := range c.Nodes() {
		if n.DB() == nil {
			continue
		}
		s, err := n.DB().Status(ctx)
		require.NoError(c.T, err)
		for _, m := range s.Members {
			hints += m.Kept.Hints
			partitions += m.Kept.Partitions
		}
	}
	return hints, partitions
}

// waitHints waits until nobody keeps a hint and gives how long that took.
func waitHints(c *kvtest.Cluster, most time.Duration) time.Duration {
	c.T.Helper()
	start := c.Now()
	for {
		hints, partitions := pendingHints(c)
		if hints+partitions == 0 {
			return c.Now() - start
		}
		if c.Now()-start > most {
			c.T.Fatalf("after %v: %d hints and %d marked partitions are kept", most, hints, partitions)
		}
		time.Sleep(50*time.Millisecond + 31*time.Nanosecond)
	}
}

// stale counts the keys of which a node's own copy is not the given version.
func stale(c *kvtest.Cluster, node int, ids map[string]int) (n int) {
	for key, id := range ids {
		it, err := c.Node(node).DB().Get(ctx, key, kvstore.One)
		if err != nil || string(it.Value) != string(check.Value(key, id, 80)) {
			n++
		}
	}
	return n
}

// TestSimHints: a node is away for ten minutes while 50 writes a second are
// acknowledged. When it is back it catches up in less time than it was away, though
// no client asks for anything.
func TestSimHints(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		c.Crash(2)
		left := c.Now()
		ids := map[string]int{}
		for i := 0; c.Now()-left < 10*time.Minute; i++ {
			key := fmt.Sprint("key", i%20000)
			ids[key] = i
			_, err := c.Node(i%2).DB().Put(ctx, key, check.Value(key, i, 80))
			require.NoError(c.T, err)
			time.Sleep(20 * time.Millisecond)
		}
		away := c.Now() - left
		hints, partitions := pendingHints(c)
		require.Zero(c.T, partitions)
		// Each coordinator keeps its own; writes of one key are one hint.
		require.Equal(c.T, 20000, hints)
		c.Restart(2)
		back := c.Now()
		c.Settle()
		waitHints(c, away)
		took := c.Now() - back
		c.T.Logf("away %v, %d hints, caught up %v after its start", away, hints, took)
		require.Less(c.T, took, away)
		require.Zero(c.T, stale(c, 2, ids))
	})
}

// TestSimHintsSurvive: hints survive that those who keep them lose power, again
// and again, and that the node they are for does, in the middle of the replay. What
// a fallback was asked to keep is there too.
func TestSimHintsSurvive(t *testing.T) {
	for _, nodes := range []int{3, 5} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			few(t, 3, func(t *testing.T, seed uint64) {
				simulate(t, seed, &kvtest.Options{Nodes: nodes}, func(c *kvtest.Cluster) {
					waitMembers(c, nodes)
					c.Settle()
					target := nodes - 1
					c.Crash(target)
					ids := map[string]int{}
					for i := range 300 {
						key := fmt.Sprint("key", i)
						ids[key] = i
						put(c, i%target, key, i)
					}
					time.Sleep(time.Minute) // all hints are stored
					before, _ := pendingHints(c)
					require.NotZero(c.T, before)
					if nodes == 5 {
						require.Less(c.T, before, len(ids), "hints of keys that it does not own")
					}
					for i := range target {
						c.Crash(i)
						c.Restart(i)
					}
					c.Settle()
					after, _ := pendingHints(c)
					require.Equal(c.T, before, after)
					c.Restart(target)
					time.Sleep(time.Duration(200+seed*100) * time.Millisecond)
					c.Crash(target)
					time.Sleep(10 * time.Second)
					c.Restart(target)
					c.Settle()
					waitHints(c, time.Minute)
					if nodes == 3 {
						require.Zero(c.T, stale(c, target, ids))
					}
					c.Check()
				})
			})
		})
	}
}

// TestSimHintsAtFallback: the first live node of the preference list that is no
// owner keeps the hint, not the coordinator.
func TestSimHintsAtFallback(t *testing.T) {
	simulate(t, 1, &kvtest.Options{Nodes: 4}, func(c *kvtest.Cluster) {
		waitMembers(c, 4)
		c.Settle()
		r := c.Node(0).DB().Ring()
		c.Crash(3)
		time.Sleep(20 * time.Second)
		kept := map[string]int{}
		for i := range 100 {
			key := fmt.Sprint("key", i)
			p := r.Partition(kvstore.TokenOf(key))
			list := r.AppendPreference(nil, p)
			owns := false
			for _, x := range list[:3] {
				owns = owns || r.Nodes()[x].ID == c.Node(3).ID()
			}
			if owns {
				kept[r.Nodes()[list[3]].ID]++
			}
			put(c, i%3, key, i)
		}
		require.NotEmpty(c.T, kept)
		time.Sleep(30 * time.Second)
		for i := range 3 {
			require.Equal(c.T, kept[c.Node(i).ID()], c.Node(i).DB().Metrics().PendingHints, c.Node(i).ID())
		}
		c.Restart(3)
		c.Settle()
		waitHints(c, time.Minute)
	})
}

// TestSimHintsBounded: above HintBytes hints are not kept; the partition is marked
// instead, writes go on, and the mark reaches the node when it is back.
func TestSimHintsBounded(t *testing.T) {
	o := &kvtest.Options{Configure: func(_ int, o *kvstore.Options) { o.HintBytes = 10 << 10 }}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		c.Crash(2)
		for i := range 500 {
			put(c, i%2, fmt.Sprint("key", i), i)
		}
		time.Sleep(time.Minute)
		_, partitions := pendingHints(c)
		require.NotZero(c.T, partitions)
		for i := range 2 {
			m := c.Node(i).DB().Metrics()
			require.LessOrEqual(c.T, m.PendingHintBytes, int64(10<<10))
			require.Greater(c.T, m.PendingHintBytes, int64(9<<10))
		}
		c.Restart(2)
		c.Settle()
		waitHints(c, time.Minute)
	})
}

// TestSimHintsOff: without hints the node stays behind, so the tests above can fail.
func TestSimHintsOff(t *testing.T) {
	defer func(before bool) { kvstore.Defences.Hints = before }(kvstore.Defences.Hints)
	kvstore.Defences.Hints = false
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		c.Crash(2)
		ids := map[string]int{}
		for i := range 50 {
			ids[fmt.Sprint("key", i)] = i
			put(c, i%2, fmt.Sprint("key", i), i)
		}
		c.Restart(2)
		c.Settle()
		time.Sleep(time.Second)
		require.Equal(c.T, 50, stale(c, 2, ids))
	})
}
