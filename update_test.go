package kvstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/kvtest"
	"example.com/kvstore/lsm/vfs"
)

// TestUpdateTurns: updates of a key through one node take turns, so that fn runs
// once for each and none meets another.
func TestUpdateTurns(t *testing.T) {
	db := open(t, t.TempDir(), nil)
	ready(t, db)
	const callers, each = 32, 10
	var runs atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				_, err := db.Update(ctx, "n", func(it kvstore.Item) ([]byte, error) {
					runs.Add(1)
					return increment(it)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, callers*each, runs.Load())
	it, err := db.Get(ctx, "n")
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(callers*each), string(it.Value))
}

// TestSimUpdateContention: updates of one key through all nodes at the same time add
// up, and every node has its turn, also one whose function is slow.
func TestSimUpdateContention(t *testing.T) {
	for _, slow := range []time.Duration{0, 20 * time.Millisecond} {
		for node := range 3 {
			t.Run(fmt.Sprintf("node %d takes %v", node, slow), func(t *testing.T) {
				simulate(t, uint64(node+1), nil, func(c *kvtest.Cluster) {
					waitMembers(c, 3)
					const callers = 4
					end := c.Now() + time.Second
					var updates, runs [3]atomic.Int64
					var wg sync.WaitGroup
					for n := range 3 {
						for range callers {
							wg.Go(func() {
								for c.Now() < end {
									_, err := c.Node(n).DB().Update(ctx, "n", func(it kvstore.Item) ([]byte, error) {
										runs[n].Add(1)
										if n == node {
											time.Sleep(slow)
										}
										return increment(it)
									})
									if err != nil {
										c.T.Error(err)
									}
									updates[n].Add(1)
								}
							})
						}
					}
					wg.Wait()
					sum := int64(0)
					for n := range 3 {
						sum += updates[n].Load()
						require.Greater(c.T, updates[n].Load(), int64(2*callers))
						require.LessOrEqual(c.T, runs[n].Load(), 5*updates[n].Load()/2)
					}
					it, err := c.Node(0).DB().Get(ctx, "n")
					require.NoError(c.T, err)
					require.Equal(c.T, fmt.Sprint(sum), string(it.Value))
				})
			})
		}
	}
}

// TestSimUpdateHangs: a function that hangs holds up other updates of its key until
// they give up, or until its own time is over, and no other write.
func TestSimUpdateHangs(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		db := c.Node(0).DB()
		hangs, wake, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		began := c.Now()
		go func() {
			_, err := db.Update(ctx, "n", func(kvstore.Item) ([]byte, error) {
				close(hangs)
				<-wake
				return []byte("late"), nil
			})
			done <- err
		}()
		<-hangs
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := db.Update(short, "n", increment)
		require.ErrorIs(c.T, err, kvstore.ErrTimeout)
		require.ErrorContains(c.T, err, "earlier updates of the key")
		require.Equal(c.T, kvstore.NotApplied, kvstore.OutcomeOf(err))
		require.Equal(c.T, time.Second, (c.Now() - began).Truncate(100*time.Millisecond))

		_, err = db.Put(ctx, "n", []byte("7"))
		require.NoError(c.T, err)
		_, err = c.Node(1).DB().Update(ctx, "n", increment)
		require.NoError(c.T, err)
		require.Less(c.T, c.Now()-began, 1200*time.Millisecond)

		_, err = db.Update(ctx, "n", increment)
		require.NoError(c.T, err)
		require.Equal(c.T, 10*time.Second, (c.Now() - began).Truncate(100*time.Millisecond), "MaxRequest of the one that hangs")
		close(wake)
		err = <-done
		require.ErrorIs(c.T, err, kvstore.ErrTimeout)
		require.Equal(c.T, kvstore.NotApplied, kvstore.OutcomeOf(err))
		it, err := db.Get(ctx, "n")
		require.NoError(c.T, err)
		require.Equal(c.T, "9", string(it.Value))
	})
}

// TestSimUpdateGivenUp: a node that was refused, and does not come back, holds up
// the updates of others for a moment, once.
func TestSimUpdateGivenUp(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		stop := errors.New("stop")
		_, err := c.Node(0).DB().Update(ctx, "n", func(it kvstore.Item) ([]byte, error) {
			if it.Found() {
				return nil, stop
			}
			_, err := c.Node(1).DB().Update(ctx, "n", increment)
			require.NoError(c.T, err)
			return increment(it)
		})
		require.ErrorIs(c.T, err, stop)
		require.Equal(c.T, kvstore.NotApplied, kvstore.OutcomeOf(err))
		began := c.Now()
		for range 10 {
			_, err = c.Node(2).DB().Update(ctx, "n", increment)
			require.NoError(c.T, err)
		}
		require.Less(c.T, c.Now()-began, 200*time.Millisecond)
	})
}

// TestCloseInUpdate: Close does not wait for the functions of callers, which may call
// it; what they return is not stored.
func TestCloseInUpdate(t *testing.T) {
	fs := vfs.NewMem(1)
	db, err := kvstore.Open("d", &kvstore.Options{FS: fs})
	require.NoError(t, err)
	ready(t, db)
	_, err = db.Put(ctx, "k", []byte("old"))
	require.NoError(t, err)
	_, err = db.Update(ctx, "k", func(kvstore.Item) ([]byte, error) {
		for _, err := range db.Scan(ctx) {
			require.NoError(t, err)
			require.NoError(t, db.Close())
			break
		}
		return []byte("new"), nil
	})
	require.ErrorIs(t, err, kvstore.ErrClosed)
	require.Equal(t, kvstore.NotApplied, kvstore.OutcomeOf(err))
	db = open(t, "d", &kvstore.Options{FS: fs})
	ready(t, db)
	it, err := db.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "old", string(it.Value))
}
