package kvtest_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/kvtest"
)

// TestExample is how a service tests what it does with a cluster: here, that its
// updates add up though a node is cut off and loses its power. Check judges what
// all calls through the nodes have shown.
func TestExample(t *testing.T) {
	kvtest.Seeds(t, 2, func(t *testing.T, seed uint64) {
		kvtest.Run(t, seed, nil, func(c *kvtest.Cluster) {
			ctx := context.Background()
			add := func(node int) {
				_, err := c.Node(node).Update(ctx, "visits", func(it kvstore.Item) ([]byte, error) { return append(it.Value, '|'), nil })
				require.NoError(c.T, err)
			}
			c.Ready()
			add(0)
			c.Partition([]int{0, 1}, []int{2})
			add(1)
			c.Heal()
			c.Crash(1)
			add(2)
			c.Restart(1)
			c.Ready()
			it, err := c.Node(1).Get(ctx, "visits")
			require.NoError(c.T, err)
			require.Equal(c.T, "|||", string(it.Value))
			c.Check()
		})
	})
}
