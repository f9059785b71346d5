package kvstore_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
)

// TestLargeValues: values at the limit cross the log, the network and a restart,
// many at a time.
func TestLargeValues(t *testing.T) {
	const size = 8 << 20
	dbs := openThree(t, func(o *kvstore.Options) { o.MaxValueBytes = size })
	value := func(i int) []byte { return bytes.Repeat([]byte{byte(i), 1, 2, 3}, size/4) }
	for i := range 3 {
		_, err := dbs[i].Put(ctx, fmt.Sprint(i), value(i), kvstore.All)
		require.NoError(t, err)
	}
	for i := range 3 {
		it, err := dbs[(i+1)%3].Get(ctx, fmt.Sprint(i), kvstore.All)
		require.NoError(t, err)
		require.True(t, bytes.Equal(value(i), it.Value))
	}
	each(t, dbs, 200, func(db *kvstore.DB, i int) error {
		_, err := db.Put(ctx, fmt.Sprint("many", i), value(i)[:size/32])
		return err
	})
}

// TestDigests: a read at Quorum does not carry a large value from every owner that
// it asks, and gives the newest one all the same when owners differ.
func TestDigests(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		large := func(id int) []byte { return check.Value("k", id, 200<<10) }
		_, err := c.Node(0).Put(ctx, "k", large(1), kvstore.All)
		require.NoError(c.T, err)
		digests := func() (sum uint64) {
			for _, n := range c.Nodes() {
				sum += n.DB().Metrics().ServedDigests
			}
			return sum
		}
		for i := range 3 {
			it, err := c.Node(i).Get(ctx, "k", kvstore.All)
			require.NoError(c.T, err)
			require.Equal(c.T, string(large(1)), string(it.Value))
		}
		require.EqualValues(c.T, 6, digests(), "two of three answers of each read")
		c.Partition([]int{0})
		_, err = c.Node(1).Put(ctx, "k", large(2))
		require.NoError(c.T, err)
		c.Heal()
		it, err := c.Node(0).Get(ctx, "k") // its own copy is the old one
		require.NoError(c.T, err)
		require.Equal(c.T, string(large(2)), string(it.Value))
		require.NotZero(c.T, c.Node(0).DB().Metrics().DigestMisses)
		c.Check()
	})
}
