package kvstore_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
)

// TestSimOneOfThreeDown: reads and writes at Quorum go on without an error while
// one node of three crashes and comes back. Only calls that the crashed node was
// coordinating fail.
func TestSimOneOfThreeDown(t *testing.T) {
	few(t, 5, func(t *testing.T, seed uint64) {
		simulate(t, seed, nil, func(c *kvtest.Cluster) {
			c.Ready()
			var calls, crashed atomic.Int64
			var over atomic.Bool
			var clients sync.WaitGroup
			defer func() { over.Store(true); clients.Wait() }()
			for client := range 6 {
				clients.Go(func() {
					draw := rand.New(rand.NewPCG(seed, uint64(client)))
					for i := 0; !over.Load(); i++ {
						time.Sleep(time.Duration(draw.ExpFloat64() * float64(5*time.Millisecond)))
						n, key := c.Node(draw.IntN(3)), fmt.Sprint("key", draw.IntN(20))
						if !serves(n) {
							continue
						}
						var err error
						if draw.IntN(2) == 0 {
							_, err = n.Put(ctx, key, check.Value(key, client<<20|i, 100))
						} else if _, err = n.Get(ctx, key); errors.Is(err, kvstore.ErrNotFound) {
							err = nil
						}
						calls.Add(1)
						switch {
						case errors.Is(err, kvtest.ErrCrashed), errors.Is(err, kvtest.ErrDown):
							crashed.Add(1)
						case err != nil:
							c.T.Errorf("at %v: %v", c.Now(), err)
						}
					}
				})
			}
			for node := range 3 {
				time.Sleep(2 * time.Second)
				c.Crash(node)
				time.Sleep(10 * time.Second)
				c.Restart(node)
				c.Settle()
			}
			over.Store(true)
			clients.Wait()
			require.Less(c.T, crashed.Load(), int64(30))
			require.Greater(c.T, calls.Load(), int64(10000))
			c.Check()
		})
	})
}

// serves reports whether a node runs and is ready.
func serves(n *kvtest.Node) bool {
	db := n.DB()
	if db == nil {
		return false
	}
	s, err := db.Status(ctx)
	return err == nil && s.Ready
}

// TestSimLossAndReordering: with 5 % loss, duplicates and messages that overtake
// each other, every call that succeeds keeps its promise, and most succeed.
func TestSimLossAndReordering(t *testing.T) {
	few(t, 3, func(t *testing.T, seed uint64) {
		o := &kvtest.Options{Nodes: 5, Loss: 0.05, Duplicate: 0.05, MaxDelay: 20 * time.Millisecond}
		simulate(t, seed, o, func(c *kvtest.Cluster) {
			c.Ready()
			w := &crowd{c: c, keys: 10, nodes: []int{0, 1, 2, 3, 4}, think: 20 * time.Millisecond}
			w.start(8)
			defer w.leave()
			time.Sleep(20 * time.Second)
			w.leave()
			c.Check()
			require.Greater(c.T, w.ok[check.Put].Load(), 4*w.failed[check.Put].Load())
			require.Greater(c.T, w.ok[check.Get].Load(), 4*w.failed[check.Get].Load())
		})
	})
}

// TestSimReadNeverGoesBack: a write that reached one owner only is seen by all
// later reads once one read has seen it, through whichever node.
func TestSimReadNeverGoesBack(t *testing.T) {
	seen := 0
	for seed := range uint64(30) {
		simulate(t, seed, nil, func(c *kvtest.Cluster) {
			c.Ready()
			put(c, 1, "k", 1)
			// Node 0 writes where nobody hears it.
			c.Partition([]int{0})
			_, err := c.Node(0).Put(ctx, "k", check.Value("k", 2, 80))
			require.Equal(c.T, kvstore.Unknown, kvstore.OutcomeOf(err), "%v", err)
			c.Heal()
			c.Settle()
			c.Cut(0, int(1+seed%2))
			newer := false
			for i := range 10 {
				it, err := c.Node(i%3).Get(ctx, "k")
				if err != nil {
					require.True(c.T, kvstore.Retryable(err), "%v", err)
					continue
				}
				is2 := string(it.Value) == string(check.Value("k", 2, 80))
				require.True(c.T, is2 || !newer, "read %d went back", i)
				newer = is2
			}
			if newer {
				seen++
			}
			c.Heal()
			c.Check()
		})
	}
	require.NotZero(t, seen)
}

// TestSimCloseDuringTraffic: nodes are closed while clients call them. Calls end,
// and no goroutine is left: else the bubble would not end.
func TestSimCloseDuringTraffic(t *testing.T) {
	few(t, 10, func(t *testing.T, seed uint64) {
		simulate(t, seed, nil, func(c *kvtest.Cluster) {
			c.Ready()
			w := &crowd{c: c, keys: 5, nodes: []int{0, 1, 2}, think: time.Millisecond}
			w.start(10)
			defer w.leave()
			draw := rand.New(rand.NewPCG(seed, 99))
			for range 10 {
				time.Sleep(time.Duration(draw.Int64N(int64(200 * time.Millisecond))))
				i := draw.IntN(3)
				db := c.Node(i).DB()
				c.Stop(i)
				_, err := db.Get(ctx, "key0")
				require.ErrorIs(c.T, err, kvstore.ErrClosed)
				require.NoError(c.T, db.Close(), "Close may be called twice")
				c.Restart(i)
			}
			w.leave()
			c.Check()
		})
	})
}
