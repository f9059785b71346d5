package kvstore_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
)

// off switches a defence off for the rest of the test.
func off(t testing.TB, defence *bool) {
	before := *defence
	t.Cleanup(func() { *defence = before })
	*defence = false
}

// TestSimExchange: what a node missed, without hints and without any client traffic,
// it gets from exchanges: values, deletes and expiring values.
func TestSimExchange(t *testing.T) {
	off(t, &kvstore.Defences.Hints)
	for _, nodes := range []int{3, 5} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			few(t, 3, func(t *testing.T, seed uint64) {
				simulate(t, seed, &kvtest.Options{Nodes: nodes, Duplicate: 0.05}, func(c *kvtest.Cluster) {
					missWrites(c, nodes, 500)
					require.NotZero(c.T, diverged(c))
					took := converge(c, 5*time.Minute)
					c.T.Logf("converged in %v: %+v", took, exchanged(c))
					c.Check()
				})
			})
		})
	}
}

// exchanged adds up what the nodes' exchanges did.
func exchanged(c *kvtest.Cluster) (sum struct{ Exchanges, Failed, Bytes, Tokens, Sent, Received uint64 }) {
	for _, n := range c.Nodes() {
		m := n.DB().Metrics()
		sum.Exchanges += m.Exchanges
		sum.Failed += m.FailedExchanges
		sum.Bytes += m.ExchangeBytes
		sum.Tokens += m.ExchangeTokens
		sum.Sent += m.ExchangedSent
		sum.Received += m.ExchangedReceived
	}
	return sum
}

// missWrites has the last node miss the second of two rounds of writes.
func missWrites(c *kvtest.Cluster, nodes, keys int) {
	waitMembers(c, nodes)
	c.Settle()
	for i := range keys / 2 {
		put(c, i%nodes, fmt.Sprint("key", i), i)
	}
	c.Crash(nodes - 1)
	time.Sleep(20 * time.Second)
	for i := range keys {
		n, key := c.Node(i%(nodes-1)), fmt.Sprint("key", i)
		switch i % 5 {
		case 0:
			require.NoError(c.T, n.Delete(ctx, key))
		case 1:
			_, err := n.Put(ctx, key, check.Value(key, keys+i, 80), kvstore.TTL(time.Hour))
			require.NoError(c.T, err)
		default:
			put(c, i%(nodes-1), key, keys+i)
		}
	}
	c.Restart(nodes - 1)
	c.Settle()
}

// TestSimExchangeOff: without hints and exchanges owners stay apart, so the test above
// can fail.
func TestSimExchangeOff(t *testing.T) {
	off(t, &kvstore.Defences.Hints)
	off(t, &kvstore.Defences.Exchange)
	off(t, &kvstore.Defences.Rounds)
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		missWrites(c, 3, 100)
		time.Sleep(10 * time.Minute)
		require.NotZero(c.T, diverged(c))
	})
}

// TestSimExchangeAfterMarks: hints above the bound leave marks, and the node in need
// compares those partitions whole when it is back, also when it loses power meanwhile.
func TestSimExchangeAfterMarks(t *testing.T) {
	o := &kvtest.Options{Configure: func(_ int, o *kvstore.Options) { o.HintBytes = 5 << 10 }}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		missWrites(c, 3, 500)
		time.Sleep(2 * time.Second)
		require.NotZero(c.T, c.Node(2).DB().Metrics().NeedExchange)
		c.Crash(2)
		c.Restart(2)
		c.Settle()
		require.NotZero(c.T, c.Node(2).DB().Metrics().NeedExchange, "needs are durable")
		converge(c, 2*time.Minute)
		waitHints(c, time.Minute)
		for start := c.Now(); c.Node(2).DB().Metrics().NeedExchange > 0; time.Sleep(time.Second) {
			require.Less(c.T, c.Now()-start, 2*time.Minute)
		}
		c.Check()
	})
}

// TestSimExchangeIdle: while clients write, exchanges move next to nothing that was
// not missed; when all is quiet and equal they move nothing at all.
func TestSimExchangeIdle(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		const writes = 5_000
		for i := range writes {
			put(c, i%3, fmt.Sprint("key", i%500), i)
			time.Sleep(2 * time.Millisecond)
		}
		busy := exchanged(c)
		c.T.Logf("while busy: %+v", busy)
		require.NotZero(c.T, busy.Exchanges)
		require.Less(c.T, busy.Sent+busy.Received, uint64(writes/100))
		time.Sleep(time.Minute)
		before, held := exchanged(c), holds(c, 0)
		time.Sleep(10 * time.Minute)
		after := exchanged(c)
		require.Greater(c.T, after.Exchanges, before.Exchanges+100)
		require.Equal(c.T, before.Sent+before.Received+before.Tokens, after.Sent+after.Received+after.Tokens)
		require.Zero(c.T, diverged(c))
		require.True(c.T, maps.Equal(held, holds(c, 1)))
	})
}
