package cart_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/examples/cart"
	"example.com/kvstore/kvtest"
)

// TestMerge: carts merge in any order, any number of times.
func TestMerge(t *testing.T) {
	kvtest.CheckMerge(t, cart.Merge, func(r *rand.Rand) []byte {
		var c []byte
		for range r.IntN(4) {
			c = cart.Merge(c, fmt.Appendf(nil, "%s%d", []string{"", "-"}[r.IntN(2)], r.IntN(3)))
		}
		return c
	})
}

// TestPartition: two sides of a partition edit one cart. Nothing that was added is
// lost, and what was taken out stays out.
func TestPartition(t *testing.T) {
	o := &kvtest.Options{Configure: func(_ int, o *kvstore.Options) {
		o.Read, o.Write, o.Conflicts = cart.Options.Read, cart.Options.Write, cart.Options.Conflicts
	}}
	kvtest.Run(t, 1, o, func(c *kvtest.Cluster) {
		ctx := context.Background()
		c.Ready()
		db := func(i int) *kvstore.DB { return c.Node(i).DB() }
		require.NoError(c.T, cart.Add(ctx, db(0), "ada", "tea"))
		require.NoError(c.T, cart.Add(ctx, db(1), "ada", "milk"))
		require.NoError(c.T, cart.Add(ctx, db(2), "ada", "sugar"))
		c.Settle()

		c.Partition([]int{0}, []int{1, 2})
		time.Sleep(20 * time.Second) // until both sides have given each other up
		for i := range 3 {
			require.NoError(c.T, cart.Add(ctx, db(0), "ada", fmt.Sprint("cup ", i)))
			require.NoError(c.T, cart.Add(ctx, db(1+i%2), "ada", fmt.Sprint("spoon ", i)))
		}
		require.NoError(c.T, cart.Remove(ctx, db(0), "ada", "sugar"))
		here, err := cart.Lines(ctx, db(0), "ada", kvstore.One)
		require.NoError(c.T, err)
		require.NotContains(c.T, here, "spoon 0")

		c.Heal()
		c.Settle()
		time.Sleep(time.Second)
		for i := range 3 {
			lines, err := cart.Lines(ctx, db(i), "ada", kvstore.Quorum)
			require.NoError(c.T, err)
			require.Equal(c.T, []string{"cup 0", "cup 1", "cup 2", "milk", "spoon 0", "spoon 1", "spoon 2", "tea"}, lines)
		}
		require.NoError(c.T, cart.Add(ctx, db(2), "ada", "honey"))
		it, err := db(1).Get(ctx, "ada", kvstore.All)
		require.NoError(c.T, err)
		require.Nil(c.T, it.Siblings(), "an edit stores what was merged")
	})
}
