package kvstore_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
)

// queued has many writers of one key, through every node, while the disk of the owner
// that coordinates them can do a few of their writes in the time that they wait. Those
// that had not begun by then leave nothing.
func queued(t *testing.T, seed uint64, set func(*kvstore.Options)) []check.Violation {
	return play(t, seed, kvtest.Options{}, also(set, func(o *kvstore.Options) { o.N = 1 }), func(c *kvtest.Cluster) (found []check.Violation) {
		waitMembers(c, 3)
		c.Settle()
		key := keyOf(c.Node(0).DB(), "n0")
		put(c, 0, key, 0)
		c.SlowDisk(0, 300*time.Millisecond)
		var writers sync.WaitGroup
		for id := range 30 {
			writers.Go(func() { // blind, so that each that is done leaves a sibling
				_, err := c.Node(id%3).DB().Put(ctx, key, check.Value(key, id, 80), kvstore.Replaces(kvstore.Version{}))
				if err != nil {
					require.ErrorIs(c.T, err, kvstore.ErrTimeout)
				}
			})
			time.Sleep(3 * time.Millisecond)
		}
		writers.Wait()
		time.Sleep(20 * time.Second)
		c.SlowDisk(0, 0)
		it, err := c.Node(0).DB().Get(ctx, key)
		require.NoError(c.T, err)
		done := int64(len(it.Siblings()) - 1)
		require.Positive(c.T, done)
		return check.Liveness(nil, check.Expected{Peaks: []check.Peak{{Name: "writes done", Value: done, Most: 4}}})
	})
}

// flood makes n calls at once, and gives how many were done, and those that were refused.
// There is no other error.
func flood(c *kvtest.Cluster, n int, call func(i int) error) (done int, refused []int) {
	c.T.Helper()
	errs := make([]error, n)
	var calls sync.WaitGroup
	for i := range n {
		calls.Go(func() { errs[i] = call(i) })
	}
	calls.Wait()
	for i, err := range errs {
		if err == nil {
			done++
			continue
		}
		require.ErrorIs(c.T, err, kvstore.ErrOverloaded)
		require.Equal(c.T, kvstore.NotApplied, kvstore.OutcomeOf(err), "%v", err)
		require.True(c.T, kvstore.Retryable(err))
		refused = append(refused, i)
	}
	return done, refused
}

// TestSimFullQueues fills every bounded queue of a node. What is beyond the bound is
// refused, at once and without a trace; the rest is done, and then there is room again.
func TestSimFullQueues(t *testing.T) {
	const more = 50
	key := func(i int) string { return fmt.Sprintf("key-%012d", i) }
	// full requires that a queue had its bound, and that no refused write left anything.
	full := func(c *kvtest.Cluster, bound, done int, refused []int, write func(i int) error) {
		c.T.Helper()
		require.GreaterOrEqual(c.T, done, bound)
		require.NotEmpty(c.T, refused)
		if write == nil {
			return
		}
		for _, i := range refused {
			_, err := c.Node(0).DB().Get(ctx, key(i))
			require.ErrorIs(c.T, err, kvstore.ErrNotFound)
		}
		for _, i := range refused {
			require.NoError(c.T, write(i))
		}
	}

	t.Run("calls in flight", func(t *testing.T) {
		o := &kvtest.Options{Nodes: 1, Stall: 2 * time.Minute, Configure: func(_ int, o *kvstore.Options) { o.MemoryBytes = 256 << 20 }}
		simulate(t, 1, o, func(c *kvtest.Cluster) {
			c.Ready()
			put := func(i int) error {
				_, err := c.Node(0).DB().Put(ctx, key(i), []byte("v"))
				return err
			}
			require.NoError(c.T, put(1_000_000))
			c.SlowDisk(0, time.Second)
			start := c.Now()
			done, refused := flood(c, kvstore.MaxInFlight+more, func(i int) error {
				err := put(i)
				if err != nil {
					require.Zero(c.T, c.Now()-start)
				}
				return err
			})
			c.SlowDisk(0, 0)
			require.Len(c.T, refused, more)
			full(c, kvstore.MaxInFlight, done, refused, put)
		})
	})

	t.Run("forwarded writes", func(t *testing.T) {
		o := &kvtest.Options{Nodes: 2, Configure: func(i int, o *kvstore.Options) { o.Proxy = i == 1 }}
		simulate(t, 1, o, func(c *kvtest.Cluster) {
			waitMembers(c, 2)
			c.Settle()
			write := func(i int) error {
				_, err := c.Node(1).DB().Put(ctx, key(i), []byte("v"), kvstore.Replaces(kvstore.Version{}))
				return err
			}
			require.NoError(c.T, write(1_000_000))
			c.SlowDisk(0, time.Second)
			done, refused := flood(c, kvstore.MaxForwarded+more, write)
			c.SlowDisk(0, 0)
			require.Len(c.T, refused, more)
			full(c, kvstore.MaxForwarded, done, refused, write)
		})
	})

	t.Run("one key", func(t *testing.T) {
		simulate(t, 1, &kvtest.Options{Nodes: 1}, func(c *kvtest.Cluster) {
			c.Ready()
			count := func(int) error {
				_, err := c.Node(0).DB().Update(ctx, "k", func(it kvstore.Item) ([]byte, error) {
					n, _ := strconv.Atoi(string(it.Value))
					return strconv.AppendInt(nil, int64(n+1), 10), nil
				})
				return err
			}
			done, refused := flood(c, kvstore.MaxKeyWaiters+more, count)
			full(c, kvstore.MaxKeyWaiters, done, refused, nil)
			require.NoError(c.T, count(0))
			it, err := c.Node(0).DB().Get(ctx, "k")
			require.NoError(c.T, err)
			require.Equal(c.T, strconv.Itoa(done+1), string(it.Value))
		})
	})

	for _, where := range []struct {
		name        string
		from, bound int
	}{{"own reads of the disk", 0, kvstore.MaxReaders}, {"reads of the disk for others", 1, kvstore.MaxWorkers}} {
		t.Run(where.name, func(t *testing.T) {
			var delay atomic.Int64
			o := &kvtest.Options{Nodes: 2, Configure: func(i int, o *kvstore.Options) {
				o.Proxy = i == 1
				if i == 0 {
					slowReads(o, &delay)
				}
			}}
			simulate(t, 1, o, func(c *kvtest.Cluster) {
				waitMembers(c, 2)
				c.Settle()
				require.NoError(c.T, kvstore.Fill(c.Node(0).DB(), time.Now(), where.bound+more, 100, func(_ int, stamp uint64) uint64 { return stamp }))
				require.NoError(c.T, kvstore.Compact(c.Node(0).DB()))
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				read := func(i int) error {
					it, err := c.Node(where.from).DB().Get(ctx, key(i))
					if err == nil && !it.Found() {
						err = errors.New("nothing is there")
					}
					return err
				}
				delay.Store(int64(time.Second))
				done, refused := flood(c, where.bound+more, read)
				delay.Store(0)
				require.Len(c.T, refused, more)
				full(c, where.bound, done, refused, nil)
				for _, i := range refused {
					require.NoError(c.T, read(i))
				}
			})
		})
	}
}
