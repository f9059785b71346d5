package kvstore_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/kvtest"
)

// replicaStates are what an explanation says of each owner, by node.
func replicaStates(e kvstore.Explanation) map[string]string {
	all := map[string]string{}
	for _, r := range e.Replicas {
		all[r.Node] = r.State
		if r.Hint {
			all[r.Node] += " hint"
		}
	}
	return all
}

// TestSimExplain follows one key through a write that an owner misses, a delete, and
// its purge.
func TestSimExplain(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		db := c.Node(0).DB()
		explain := func() kvstore.Explanation {
			c.T.Helper()
			e, err := db.Explain(ctx, "key")
			require.NoError(c.T, err)
			require.Equal(c.T, kvstore.TokenOf("key"), e.Token)
			require.Len(c.T, e.Replicas, 3)
			require.Contains(c.T, e.String(), `"key"`)
			return e
		}
		require.Equal(c.T, map[string]string{"n0": "absent", "n1": "absent", "n2": "absent"}, replicaStates(explain()))
		c.Crash(2)
		time.Sleep(20 * time.Second)
		version := put(c, 0, "key", 1)
		time.Sleep(30 * time.Second)
		e := explain()
		require.Equal(c.T, map[string]string{"n0": "value", "n1": "value", "n2": "no answer hint"}, replicaStates(e))
		for _, r := range e.Replicas {
			require.Equal(c.T, r.State != "value", !r.Version.Equal(version))
			require.Equal(c.T, r.State != "value", r.Err != nil)
		}
		c.Restart(2)
		c.Settle()
		waitHints(c, time.Minute)
		require.Equal(c.T, map[string]string{"n0": "value", "n1": "value", "n2": "value"}, replicaStates(explain()))
		require.NoError(c.T, c.Node(1).Delete(ctx, "key", kvstore.All))
		require.Equal(c.T, map[string]string{"n0": "tombstone", "n1": "tombstone", "n2": "tombstone"}, replicaStates(explain()))
		time.Sleep(twoRounds)
		tombstones(c) // purges
		e = explain()
		require.Equal(c.T, map[string]string{"n0": "absent", "n1": "absent", "n2": "absent"}, replicaStates(e))
		require.False(c.T, e.Horizon.IsZero())
		require.False(c.T, e.Promised.Before(e.Horizon))
		_, err := db.Explain(ctx, "")
		require.ErrorIs(c.T, err, kvstore.ErrInvalid)
	})
}
