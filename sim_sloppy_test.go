package kvstore_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
)

// allowSloppy is for Options.Configure.
func allowSloppy(_ int, o *kvstore.Options) { o.SloppyQuorum = true }

// asStrict gives the K2 violations that there were if sloppy writes intersected with
// reads as others do.
func asStrict(history []check.Op) []check.Violation {
	history = slices.Clone(history)
	for i := range history {
		history[i].Strict = true
	}
	return check.Dominance(history)
}

// TestSimSloppy: both sides of a partition write every key, sloppily, and read at
// Quorum. No acknowledged write is lost, and what is promised to others holds; but reads
// do not see sloppy writes for certain, as the same history shows when it is judged as
// if they did.
func TestSimSloppy(t *testing.T) {
	seeds, stale := 0, 0
	few(t, 20, func(t *testing.T, seed uint64) {
		o := &kvtest.Options{Nodes: 5, Configure: allowSloppy, Loss: []float64{0, 0.01}[seed%2]}
		simulate(t, seed, o, func(c *kvtest.Cluster) {
			waitMembers(c, 5)
			c.Settle()
			draw := rand.New(rand.NewPCG(seed, 12))
			w := &crowd{c: c, keys: 8, nodes: []int{0, 1, 2, 3, 4}, think: 20 * time.Millisecond, sloppy: true}
			w.start(6)
			defer w.leave()
			for range 2 {
				side := draw.Perm(5)[:2]
				c.Partition(side)
				time.Sleep(20 * time.Second)
				if seed%3 == 0 {
					c.Crash(side[0]) // with the hints that it keeps
					time.Sleep(3 * time.Second)
					c.Restart(side[0])
				}
				c.Heal()
				time.Sleep(redialed)
			}
			w.leave()
			c.Settle()
			waitHints(c, 2*time.Minute)
			converge(c, 2*time.Minute)
			counted := uint64(0)
			for _, n := range c.Nodes() {
				counted += n.DB().Metrics().HintsCounted
			}
			require.NotZero(c.T, counted)
			seeds++
			if len(asStrict(c.History())) > 0 {
				stale++
			}
			c.Check()
		})
	})
	t.Logf("in %d of %d seeds a read was stale", stale, seeds)
	if seeds >= 20 {
		require.GreaterOrEqual(t, 2*stale, seeds)
	}
}

// TestSimSloppyHolder: the only other copy of an acknowledged write is a counted hint,
// and the node that keeps it loses power at any time after that.
func TestSimSloppyHolder(t *testing.T) {
	few(t, 20, func(t *testing.T, seed uint64) {
		simulate(t, seed, &kvtest.Options{Nodes: 5, Configure: allowSloppy}, func(c *kvtest.Cluster) {
			waitMembers(c, 5)
			c.Settle()
			draw := rand.New(rand.NewPCG(seed, 12))
			key := keyOf(c.Node(0).DB(), "n0", "n1", "n2")
			put(c, 0, key, 1)
			c.Crash(1)
			c.Crash(2)
			time.Sleep(20 * time.Second)
			_, err := c.Node(3).Put(ctx, key, check.Value(key, 2, 80))
			require.ErrorIs(c.T, err, kvstore.ErrUnavailable)
			_, err = c.Node(3).Put(ctx, key, check.Value(key, 3, 80), kvstore.Sloppy)
			require.NoError(c.T, err)
			c.Crash(0) // with the only copy at an owner
			time.Sleep(time.Duration(draw.Int64N(int64(50 * time.Millisecond))))
			c.Crash(3)
			c.Crash(4)
			c.Restart(1)
			c.Restart(2)
			time.Sleep(time.Duration(draw.Int64N(int64(time.Second))))
			c.Restart(3)
			c.Restart(4)
			time.Sleep(10 * time.Second)
			get(c, 1, key, 3)
			c.Restart(0)
			c.Settle()
			waitHints(c, time.Minute)
			converge(c, time.Minute)
			c.Check()
		})
	})
}

// TestSimSloppyRefused: without Options.SloppyQuorum a sloppy write is invalid; it does
// not go further than the level; and beyond HintBytes a hint does not count.
func TestSimSloppyRefused(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		c.Ready()
		_, err := c.Node(0).Put(ctx, "k", []byte("v"), kvstore.Sloppy)
		require.ErrorIs(c.T, err, kvstore.ErrInvalid)
		require.ErrorIs(c.T, c.Node(0).Delete(ctx, "k", kvstore.Sloppy), kvstore.ErrInvalid)
	})
	configure := func(_ int, o *kvstore.Options) { o.SloppyQuorum, o.HintBytes = true, 4<<10 }
	simulate(t, 1, &kvtest.Options{Nodes: 4, Configure: configure}, func(c *kvtest.Cluster) {
		waitMembers(c, 4)
		c.Settle()
		c.Crash(1)
		c.Crash(2)
		time.Sleep(20 * time.Second)
		var refused error
		acknowledged := 0
		for i := range 200 {
			key := keyOf(c.Node(0).DB(), "n0", "n1", "n2")
			key = fmt.Sprint(key, "-", i)
			owners := ownersOf(c, key)
			_, err := c.Node(0).Put(ctx, key, check.Value(key, i, 80), kvstore.Sloppy)
			switch {
			case err == nil:
				acknowledged++
			case slices.Contains(owners, 0) != slices.Contains(owners, 3): // one live owner, one stand-in
				refused = err
			}
		}
		require.NotZero(c.T, acknowledged)
		require.ErrorIs(c.T, refused, kvstore.ErrPartial)
		require.Equal(c.T, kvstore.Unknown, kvstore.OutcomeOf(refused))
		var q *kvstore.QuorumError
		require.True(c.T, errors.As(refused, &q))
		c.Restart(1)
		c.Restart(2)
		c.Settle()
		waitHints(c, time.Minute)
		converge(c, 2*time.Minute)
		c.Check()
	})
}

// TestSimSloppyRounds: deletes are forgotten where hints may count, but not while a
// member is away, owner or not, or keeps such a hint.
func TestSimSloppyRounds(t *testing.T) {
	simulate(t, 1, &kvtest.Options{Nodes: 4, Configure: allowSloppy}, func(c *kvtest.Cluster) {
		waitMembers(c, 4)
		c.Settle()
		key := keyOf(c.Node(0).DB(), "n0", "n1", "n2")
		put(c, 0, key, 1)
		require.NoError(c.T, c.Node(0).Delete(ctx, key, kvstore.All))
		time.Sleep(twoRounds + 30*time.Second)
		require.Zero(c.T, tombstones(c))

		put(c, 0, key, 2)
		require.NoError(c.T, c.Node(0).Delete(ctx, key, kvstore.All))
		c.Crash(3) // no owner
		time.Sleep(2 * twoRounds)
		require.Equal(c.T, 3, tombstones(c))

		c.Restart(3)
		c.Settle()
		c.Cut(3, 1) // it cannot hand over what it keeps, and all are alive
		c.Crash(1)
		time.Sleep(20 * time.Second)
		_, err := c.Node(3).Put(ctx, key, check.Value(key, 3, 80), kvstore.All, kvstore.Sloppy)
		require.NoError(c.T, err)
		c.Restart(1)
		time.Sleep(2 * twoRounds)
		require.NotZero(c.T, c.Node(3).DB().Metrics().PendingHints)
		c.Heal()
		c.Settle()
		waitHints(c, time.Minute)
		get(c, 1, key, 3)
		c.Check()
	})
}

// sloppyApart has two nodes, cut off, take sloppy writes of keys that the others own,
// for so long that these could have had rounds.
func sloppyApart(t *testing.T, seed uint64, set func(*kvstore.Options)) []check.Violation {
	return play(t, seed, kvtest.Options{Nodes: 5}, also(set, func(o *kvstore.Options) { o.SloppyQuorum = true }), func(c *kvtest.Cluster) []check.Violation {
		waitMembers(c, 5)
		c.Settle()
		c.Partition([]int{0, 1})
		time.Sleep(20 * time.Second)
		key := keyOf(c.Node(0).DB(), "n2", "n3", "n4")
		for i := range 40 {
			key := fmt.Sprint(key, "-", i)
			_, _ = c.Node(int(seed)%2).Put(ctx, key, check.Value(key, i, 80), kvstore.Sloppy)
		}
		_, err := c.Node(0).Put(ctx, key, check.Value(key, 100, 80), kvstore.Sloppy)
		require.NoError(c.T, err)
		time.Sleep(twoRounds)
		c.Heal()
		c.Settle()
		waitHints(c, 2*time.Minute)
		time.Sleep(10 * time.Second)
		return c.Violations()
	})
}
