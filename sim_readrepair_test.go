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

// staleOwner has an owner with a slow disk miss writes, small and large ones, and then
// reads at Quorum through it. They do not wait for that disk.
func staleOwner(t *testing.T, seed uint64, set func(*kvstore.Options)) []check.Violation {
	return play(t, seed, kvtest.Options{}, set, func(c *kvtest.Cluster) []check.Violation {
		const keys = 20
		missKeys(c, keys, 2)
		c.SlowDisk(2, 300*time.Millisecond)
		start := c.Now()
		for i := range keys {
			it, err := c.Node(2).Get(ctx, fmt.Sprint("key", i))
			require.NoError(c.T, err)
			require.True(c.T, it.Found())
		}
		reads := check.Expected{Phases: []check.Phase{{Name: "reads", From: start, To: c.Now(), Calls: keys, Success: 1, Within: 50 * time.Millisecond, Quantile: 1}}}
		c.SlowDisk(2, 0)
		time.Sleep(5 * time.Second)
		return append(check.Liveness(c.History(), reads), apart(c, check.Exchanged)...)
	})
}

// missKeys has one node miss the writes of some keys.
func missKeys(c *kvtest.Cluster, keys, node int) {
	waitMembers(c, len(c.Nodes()))
	c.Settle()
	c.Partition([]int{node})
	for i := range keys {
		key := fmt.Sprint("key", i)
		_, err := c.Node((node+1)%len(c.Nodes())).Put(ctx, key, check.Value(key, i, 80+i%2*2000))
		require.NoError(c.T, err)
	}
	c.Heal()
	time.Sleep(redialed)
	c.Settle()
}

// TestSimReadRepair: without hints, exchanges and rounds, one read of a key repairs the
// owners that it finds to be stale, whether or not it waits for them.
func TestSimReadRepair(t *testing.T) {
	off(t, &kvstore.Defences.Hints)
	off(t, &kvstore.Defences.Exchange)
	off(t, &kvstore.Defences.Rounds)
	for _, nodes := range []int{3, 5} {
		for _, level := range []kvstore.Consistency{kvstore.Quorum, kvstore.All} {
			t.Run(fmt.Sprint(nodes, " owners, ", level), func(t *testing.T) {
				o := &kvtest.Options{Nodes: nodes, Configure: func(_ int, o *kvstore.Options) { o.N = nodes }}
				simulate(t, 1, o, func(c *kvtest.Cluster) {
					const keys, stale = 20, 2
					missKeys(c, keys, stale)
					require.Equal(c.T, keys, diverged(c))
					reader := stale // at Quorum it asks itself
					if level == kvstore.All {
						reader = 0
					}
					before := c.Node(reader).DB().Metrics().WriteBacks
					for i := range keys {
						get := fmt.Sprint("key", i)
						it, err := c.Node(reader).Get(ctx, get, level)
						require.NoError(c.T, err)
						require.Equal(c.T, string(check.Value(get, i, 80+i%2*2000)), string(it.Value))
					}
					require.Equal(c.T, uint64(keys), c.Node(reader).DB().Metrics().WriteBacks-before)
					time.Sleep(time.Second)
					require.Empty(c.T, apart(c, check.Exchanged))
					for i := range keys { // there is nothing left to repair
						_, err := c.Node(reader).Get(ctx, fmt.Sprint("key", i), level)
						require.NoError(c.T, err)
					}
					require.Equal(c.T, uint64(keys), c.Node(reader).DB().Metrics().WriteBacks-before)
				})
			})
		}
	}
}
