package kvstore_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/kvtest"
)

// TestSimHungDisk: a read of which the own copy is enough does not wait for a disk that
// does not answer: another owner is asked, or the call ends when it must.
func TestSimHungDisk(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			var delay atomic.Int64
			o := &kvtest.Options{Nodes: nodes, Configure: func(i int, o *kvstore.Options) {
				if i == 0 {
					slowReads(o, &delay)
				}
			}}
			simulate(t, 1, o, func(c *kvtest.Cluster) {
				waitMembers(c, nodes)
				c.Settle()
				now := time.Now()
				for i := range nodes {
					require.NoError(c.T, kvstore.Fill(c.Node(i).DB(), now, 1000, 100, func(_ int, stamp uint64) uint64 { return stamp }))
					require.NoError(c.T, kvstore.Compact(c.Node(i).DB()))
				}
				delay.Store(int64(time.Minute))
				defer delay.Store(0)
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				start := c.Now()
				_, err := c.Node(0).Get(ctx, "key-000000000007", kvstore.One)
				if nodes == 1 {
					require.ErrorIs(c.T, err, kvstore.ErrTimeout)
					require.Less(c.T, c.Now()-start, 1100*time.Millisecond)
					return
				}
				require.NoError(c.T, err)
				require.Less(c.T, c.Now()-start, 200*time.Millisecond)
				_, err = c.Node(0).DB().GetMany(ctx, []string{"key-000000000007", "key-000000000008"}, kvstore.One)
				require.NoError(c.T, err)
				require.Less(c.T, c.Now()-start, 400*time.Millisecond)
			})
		})
	}
}

// TestSimGetManyHungOwner: an owner that hangs costs a GetMany one spare message to
// another owner, not the time of the call, and not a message for each key.
func TestSimGetManyHungOwner(t *testing.T) {
	simulate(t, 1, &kvtest.Options{Nodes: 5}, func(c *kvtest.Cluster) {
		waitMembers(c, 5)
		c.Settle()
		var keys []string
		for i := range 300 {
			keys = append(keys, fmt.Sprint("key", i))
			put(c, i%5, keys[i], i)
		}
		time.Sleep(time.Second)
		c.Freeze(3, 3*time.Second)
		before, start := c.Node(0).DB().Metrics(), c.Now()
		items, err := c.Node(0).DB().GetMany(ctx, keys)
		require.NoError(c.T, err)
		for _, it := range items {
			require.True(c.T, it.Found())
		}
		require.Less(c.T, c.Now()-start, 200*time.Millisecond)
		spares := c.Node(0).DB().Metrics().SpareReads - before.SpareReads
		require.NotZero(c.T, spares)
		require.Less(c.T, spares, uint64(5))
	})
}
