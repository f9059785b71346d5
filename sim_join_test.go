package kvstore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
	"example.com/kvstore/topology"
)

// TestSimJoin: nodes started together, in any order, with messages lost and the
// first member crashing meanwhile, end as one cluster: all know the same epoch
// with all of them in it, and serve.
func TestSimJoin(t *testing.T) {
	kvtest.Seeds(t, 30, func(t *testing.T, seed uint64) {
		o := &kvtest.Options{Stopped: true, Nodes: 3 + int(seed%3), Loss: 0.1 * float64(seed%2), Duplicate: 0.02}
		simulate(t, seed, o, func(c *kvtest.Cluster) {
			draw := rand.New(rand.NewPCG(seed, 7))
			var starts sync.WaitGroup
			for _, i := range draw.Perm(o.Nodes) {
				pause := time.Duration(draw.Int64N(int64(300 * time.Millisecond)))
				starts.Go(func() {
					time.Sleep(pause)
					c.Restart(i)
				})
			}
			if seed%3 > 0 {
				time.Sleep(time.Duration(draw.Int64N(int64(600 * time.Millisecond))))
				if c.Node(0).Runs() {
					c.Crash(0)
					time.Sleep(time.Duration(draw.Int64N(int64(time.Second))))
					starts.Wait()
					c.Restart(0)
				}
			}
			starts.Wait()
			waitMembers(c, o.Nodes)
			c.Settle()
			for i := range c.Nodes() {
				var err error
				for try := range 20 { // calls, and attempts to connect, do not survive a loss
					if _, err = c.Node(i).Put(ctx, "k", check.Value("k", 100*i+try, 80)); err == nil {
						break
					}
					time.Sleep(3 * time.Second)
				}
				require.NoError(c.T, err)
			}
			c.Check()
		})
	})
}

// waitMembers waits until all nodes know one epoch of n members.
func waitMembers(c *kvtest.Cluster, n int) {
	c.T.Helper()
	for deadline := c.Now() + 2*time.Minute; ; time.Sleep(50 * time.Millisecond) {
		epochs := map[uint64]bool{}
		agreed := true
		for _, node := range c.Nodes() {
			s, err := node.DB().Status(ctx)
			require.NoError(c.T, err)
			epochs[s.Epoch] = true
			agreed = agreed && len(s.Members) == n
		}
		if agreed && len(epochs) == 1 {
			return
		}
		require.Less(c.T, c.Now(), deadline, "epochs %v", epochs)
	}
}

// TestSimJoinAfterRounds: who joins took no part in the rounds of before. It does not
// take itself for an old copy that forgot them.
func TestSimJoinAfterRounds(t *testing.T) {
	simulate(t, 1, &kvtest.Options{Stopped: true, Nodes: 3}, func(c *kvtest.Cluster) {
		c.Restart(0)
		c.Restart(1)
		waitRunning(c, 2)
		for c.Node(0).DB().Metrics().Rounds == 0 || c.Node(1).DB().Metrics().Rounds == 0 {
			time.Sleep(time.Second)
		}
		c.Restart(2)
		waitMembers(c, 3)
		before := c.Node(2).DB().Metrics().Rounds
		for c.Node(2).DB().Metrics().Rounds == before {
			time.Sleep(time.Second)
		}
		for _, n := range c.Nodes() {
			require.Zero(c.T, n.DB().Metrics().Damages, "%s", n.ID())
		}
	})
}

// TestSimJoinAfterWrite: once a write was accepted a join is refused, with the
// reason, and the cluster goes on.
func TestSimJoinAfterWrite(t *testing.T) {
	simulate(t, 1, &kvtest.Options{Stopped: true, Nodes: 4}, func(c *kvtest.Cluster) {
		for i := range 3 {
			c.Restart(i)
		}
		c.Ready()
		waitRunning(c, 3)
		put(c, 0, "k", 1)
		c.Restart(3)
		err := readyError(c, 3)
		require.ErrorIs(c.T, err, kvstore.ErrJoinRefused)
		require.ErrorIs(c.T, err, topology.ErrHasData)
		_, err = c.Node(3).Get(ctx, "k")
		require.ErrorIs(c.T, err, kvstore.ErrJoinRefused)
		put(c, 1, "k", 2)
		get(c, 2, "k", 2, kvstore.All)
	})
}

// waitRunning waits until the first n nodes are the members.
func waitRunning(c *kvtest.Cluster, n int) {
	c.T.Helper()
	for deadline := c.Now() + time.Minute; ; time.Sleep(50 * time.Millisecond) {
		all := true
		for i := range n {
			s, err := c.Node(i).DB().Status(ctx)
			require.NoError(c.T, err)
			all = all && len(s.Members) == n
		}
		if all {
			return
		}
		require.Less(c.T, c.Now(), deadline)
	}
}

func readyError(c *kvtest.Cluster, node int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return c.Node(node).DB().Ready(ctx)
}

// TestSimAllStopped: all nodes are stopped, or lose power, and are started again
// in any order: the same cluster, with what it held.
func TestSimAllStopped(t *testing.T) {
	for _, end := range []string{"stop", "crash"} {
		t.Run(end, func(t *testing.T) {
			simulate(t, 1, &kvtest.Options{Nodes: 5}, func(c *kvtest.Cluster) {
				waitMembers(c, 5)
				c.Settle()
				for k := range 50 {
					put(c, k%5, fmt.Sprint("key", k), k)
				}
				s, err := c.Node(0).DB().Status(ctx)
				require.NoError(c.T, err)
				for i := range 5 {
					if end == "stop" {
						c.Stop(i)
					} else {
						c.Crash(i)
					}
				}
				time.Sleep(time.Minute)
				for _, i := range []int{3, 1, 4, 0, 2} {
					c.Restart(i)
				}
				c.Settle()
				after, err := c.Node(4).DB().Status(ctx)
				require.NoError(c.T, err)
				require.Equal(c.T, s.Epoch, after.Epoch)
				for k := range 50 {
					get(c, (k+1)%5, fmt.Sprint("key", k), k)
				}
				c.Check()
			})
		})
	}
}
