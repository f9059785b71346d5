package kvstore_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
)

// TestSimPartition: the majority goes on; the minority refuses, and says whether
// something was left. After it has healed, reads at Quorum see everything through
// every node, and reads at All have repaired every owner.
func TestSimPartition(t *testing.T) {
	for _, o := range []kvtest.Options{{Nodes: 3}, {Nodes: 5, Configure: func(_ int, o *kvstore.Options) { o.N = 5 }}} {
		t.Run(fmt.Sprint(o.Nodes, " nodes"), func(t *testing.T) {
			simulate(t, 1, &o, func(c *kvtest.Cluster) {
				c.Ready()
				for k := range 20 {
					put(c, k%o.Nodes, fmt.Sprint("key", k), k)
				}
				minority := []int{0}
				if o.Nodes == 5 {
					minority = []int{0, 3}
				}
				c.Partition(minority)
				outcomes := map[kvstore.Outcome]int{}
				for k := range 20 {
					key := fmt.Sprint("key", k)
					_, err := c.Node(0).Put(ctx, key, check.Value(key, 1000+k, 80))
					require.Error(c.T, err)
					outcome := kvstore.OutcomeOf(err)
					switch {
					case errors.Is(err, kvstore.ErrUnavailable):
						require.Equal(c.T, kvstore.NotApplied, outcome, "%v", err)
					case errors.Is(err, kvstore.ErrTimeout), errors.Is(err, kvstore.ErrPartial):
						require.Equal(c.T, kvstore.Unknown, outcome, "%v", err)
					default:
						c.T.Errorf("an unexpected error: %v", err)
					}
					require.True(c.T, kvstore.Retryable(err))
					outcomes[outcome]++
					_, err = c.Node(0).Get(ctx, key)
					require.True(c.T, errors.Is(err, kvstore.ErrUnavailable) || errors.Is(err, kvstore.ErrPartial) || errors.Is(err, kvstore.ErrTimeout), "%v", err)
					put(c, 1, key, 100+k)
					get(c, 2, key, 100+k)
				}
				require.NotZero(c.T, outcomes[kvstore.NotApplied])
				require.NotZero(c.T, outcomes[kvstore.Unknown])
				c.Heal()
				c.Settle()
				for k := range 20 {
					key := fmt.Sprint("key", k)
					put(c, 2, key, 200+k) // above whatever the minority kept
					for i := range c.Nodes() {
						get(c, i, key, 200+k)
					}
					get(c, k%o.Nodes, key, 200+k, kvstore.All)
					time.Sleep(50 * time.Millisecond) // repair is not waited for beyond a quorum
					for i := range c.Nodes() {
						get(c, i, key, 200+k, kvstore.One)
					}
				}
				c.Check()
			})
		})
	}
}

// TestSimOneWayCut: every link of a triangle is cut, one way and one at a time.
// Calls through each node succeed or fail in time, and what they say is true;
// the node that is not touched never fails.
func TestSimOneWayCut(t *testing.T) {
	for from := range 3 {
		for to := range 3 {
			if from == to {
				continue
			}
			t.Run(fmt.Sprintf("%d to %d", from, to), func(t *testing.T) {
				simulate(t, 1, nil, func(c *kvtest.Cluster) {
					c.Ready()
					for k := range 10 {
						put(c, 0, fmt.Sprint("key", k), k)
					}
					c.Cut(from, to)
					for i := range 60 {
						node, key := i%3, fmt.Sprint("key", i%10)
						started := c.Now()
						_, err := c.Node(node).Put(ctx, key, check.Value(key, 100+i, 80))
						require.Less(c.T, c.Now()-started, 11*time.Second)
						if node != from && node != to {
							require.NoError(c.T, err)
							get(c, node, key, 100+i)
						}
					}
					c.Heal()
					c.Check()
				})
			})
		}
	}
}
