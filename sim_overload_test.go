package kvstore_test

import (
	"sync"
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
