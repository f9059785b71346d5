package kvtest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/kvtest"
)

var ctx = context.Background()

func TestCluster(t *testing.T) {
	kvtest.Run(t, 1, nil, func(c *kvtest.Cluster) {
		c.Ready()
		t.Log("ready at", c.Now())
		for i := range 20 {
			_, err := c.Node(i%3).Put(ctx, fmt.Sprint("k", i), fmt.Append(nil, "v", i))
			require.NoError(t, err)
		}
		c.Crash(1)
		for i := range 20 {
			_, err := c.Node(0).Put(ctx, fmt.Sprint("k", i), fmt.Append(nil, "w", i))
			require.NoError(t, err)
		}
		c.Restart(1)
		c.Ready()
		for i := range 20 {
			it, err := c.Node(1).Get(ctx, fmt.Sprint("k", i), kvstore.All)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint("w", i), string(it.Value))
		}
		t.Log("done at", c.Now(), c.Trace())
		time.Sleep(time.Hour)
		t.Log("an hour later", c.Now(), c.Trace())
	})
}
