package kvstore_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/kvtest"
	"example.com/kvstore/replica"
	"example.com/kvstore/transport"
)

// replicaStates are what an explanation says of each owner, by node.
func replicaStates(e kvstore.Explanation) map[string]string {
	all := map[string]string{}
	for _, r := range e.Replicas {
		all[r.Node] = r.State
		if len(r.Hints) > 0 {
			all[r.Node] += " hint at " + strings.Join(r.Hints, " ")
		}
		if len(r.Marks) > 0 {
			all[r.Node] += " mark at " + strings.Join(r.Marks, " ")
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
		require.Equal(c.T, map[string]string{"n0": "value", "n1": "value", "n2": "no answer hint at n0"}, replicaStates(e))
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
		for _, r := range e.Replicas {
			require.False(c.T, r.Horizon.IsZero())
			require.False(c.T, r.Promised.Before(r.Horizon))
		}
		_, err := db.Explain(ctx, "")
		require.ErrorIs(c.T, err, kvstore.ErrInvalid)
	})
}

// TestSimExplainElsewhere: a node that neither owns a key nor keeps anything for its
// owners tells who does, and who is needed for the whole answer.
func TestSimExplainElsewhere(t *testing.T) {
	var old atomic.Bool
	o := &kvtest.Options{Nodes: 5, Configure: func(i int, o *kvstore.Options) {
		o.MaxRequest = 2 * time.Second
		if i == 4 {
			o.Proxy = true
		}
		if i == 1 {
			o.Transport = olderTransport{o.Transport, &old}
		}
	}}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		waitMembers(c, 5)
		c.Settle()
		key := keyOf(c.Node(0).DB(), "n0", "n1", "n2")
		explain := func() kvstore.Explanation {
			c.T.Helper()
			e, err := c.Node(4).DB().Explain(ctx, key)
			require.NoError(c.T, err)
			return e
		}
		time.Sleep(twoRounds)
		e := explain()
		require.Empty(c.T, e.Silent)
		require.False(c.T, e.Horizon.IsZero())
		for _, r := range e.Replicas {
			require.False(c.T, r.Horizon.IsZero(), "%v", e)
		}

		c.Crash(2)
		time.Sleep(20 * time.Second)
		put(c, 0, key, 1)
		time.Sleep(30 * time.Second)
		e = explain()
		require.Equal(c.T, map[string]string{"n0": "value", "n1": "value", "n2": "no answer hint at n3"}, replicaStates(e))
		require.Contains(c.T, e.String(), "a hint waits for it at n3")
		require.Len(c.T, e.Silent, 1)
		require.Equal(c.T, "n2", e.Silent[0].Node)

		start := c.Now()
		c.Freeze(3, 5*time.Second) // what it keeps cannot be known
		e = explain()
		require.Less(c.T, c.Now()-start, 3*time.Second)
		require.Equal(c.T, map[string]string{"n0": "value", "n1": "value", "n2": "no answer"}, replicaStates(e))
		require.Len(c.T, e.Silent, 2)
		require.ErrorIs(c.T, e.Silent[1].Err, kvstore.ErrTimeout)

		time.Sleep(10 * time.Second)
		old.Store(true)
		e = explain()
		require.Equal(c.T, map[string]string{"n0": "value", "n1": "value", "n2": "no answer hint at n3"}, replicaStates(e))
		require.Contains(c.T, e.String(), "n1 does not tell what it keeps: an older version")
		require.False(c.T, e.Horizon.IsZero(), "of another owner")
		old.Store(false)

		c.Restart(2)
		c.Settle()
		waitHints(c, time.Minute)
		require.Equal(c.T, map[string]string{"n0": "value", "n1": "value", "n2": "value"}, replicaStates(explain()))
	})
}

// TestSimExplainMark: there was no room for a hint, so the partition is marked, first by
// who had none, then by the owner itself until it has exchanged the partition.
func TestSimExplainMark(t *testing.T) {
	o := &kvtest.Options{Nodes: 4, Configure: func(_ int, o *kvstore.Options) { o.HintBytes = 10 }}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		waitMembers(c, 4)
		c.Settle()
		key := keyOf(c.Node(0).DB(), "n0", "n1", "n2")
		c.Crash(2)
		time.Sleep(20 * time.Second)
		put(c, 0, key, 1)
		time.Sleep(30 * time.Second)
		explain := func() map[string]string {
			e, err := c.Node(1).DB().Explain(ctx, key)
			require.NoError(c.T, err)
			return replicaStates(e)
		}
		require.Equal(c.T, map[string]string{"n0": "value", "n1": "value", "n2": "no answer mark at n3"}, explain())
		off(c.T, &kvstore.Defences.Exchange)
		c.Restart(2)
		c.Settle()
		waitHints(c, time.Minute)
		require.Equal(c.T, map[string]string{"n0": "value", "n1": "value", "n2": "absent mark at n2"}, explain())
		kvstore.Defences.Exchange = true
		time.Sleep(time.Minute)
		require.Equal(c.T, map[string]string{"n0": "value", "n1": "value", "n2": "value"}, explain())
	})
}

// An olderTransport has a node not know what an explanation asks, as one of an older
// version.
type olderTransport struct {
	transport.Transport
	old *atomic.Bool
}

func (t olderTransport) Open(c transport.Config) (transport.Endpoint, error) {
	accept := c.Accept
	c.Accept = func() transport.Handler { return olderHandler{accept(), t.old} }
	return t.Transport.Open(c)
}

type olderHandler struct {
	transport.Handler
	old *atomic.Bool
}

func (h olderHandler) Receive(c transport.Conn, msg []byte) {
	if h.old.Load() && len(msg) > 1 && msg[1] == replica.OpExplain {
		msg[1] = 250
	}
	h.Handler.Receive(c, msg)
}
