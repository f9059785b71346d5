package kvstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
)

// TestSimSkewWithinBounds: clocks differ by nearly MaxClockOffset, and writes go
// round the nodes one after the other. Each is above the last: the one with the
// slow clock is told of the newer dot and stamps again.
func TestSimSkewWithinBounds(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		c.Ready()
		for i, d := range []time.Duration{-240 * time.Millisecond, 0, 240 * time.Millisecond} {
			c.Skew(i, d)
		}
		last := put(c, 2, "k", 0)
		for id := 1; id < 60; id++ {
			if id%3 == 2 { // the next writer, with the slow clock, hears nothing of this write
				c.Cut(1, 0)
				c.Cut(2, 0)
			}
			v := put(c, id%3, "k", id)
			c.Heal()
			if id%3 == 2 {
				last = v
				continue
			}
			require.True(c.T, v.After(last), "write %d at node %d", id, id%3)
			get(c, (id+1)%3, "k", id)
			last = v
		}
		var restamps uint64
		for _, n := range c.Nodes() {
			restamps += n.DB().Metrics().Restamps
		}
		require.NotZero(c.T, restamps)
		c.Check()
	})
}

// TestSimSlowClockBecomesReady: a node with a slow clock becomes ready after a
// restart though the others, whose clocks are ahead of it, keep it busy.
func TestSimSlowClockBecomesReady(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		c.Ready()
		c.Skew(0, 240*time.Millisecond)
		c.Skew(1, -240*time.Millisecond)
		w := &crowd{c: c, keys: 5, nodes: []int{0}, think: time.Millisecond}
		w.start(3)
		defer w.leave()
		time.Sleep(time.Second)
		c.Crash(1)
		c.Restart(1)
		c.Ready()
		w.leave()
		c.Check()
	})
}

// TestSimStampsSurviveRestart: what a node wrote before it lost power, with a
// clock that is then set back, does not shadow what it writes afterwards; and no
// version is used twice.
func TestSimStampsSurviveRestart(t *testing.T) {
	for _, back := range []time.Duration{400 * time.Millisecond, 3 * time.Second, time.Hour} {
		t.Run(fmt.Sprint(back), func(t *testing.T) {
			simulate(t, 1, nil, func(c *kvtest.Cluster) {
				c.Ready()
				for id := range 20 {
					put(c, 1, "k", id)
				}
				c.Crash(1)
				c.Skew(1, -back)
				c.Restart(1)
				if back > time.Minute {
					// It must not issue stamps before its clock has passed those of its
					// former life, which is long.
					require.ErrorIs(c.T, putError(c, 1), kvstore.ErrNotReady)
					c.Skew(1, 0)
				}
				c.Ready()
				if back > time.Second && back < time.Minute {
					// Its clock is too far from the others' to issue any.
					require.ErrorIs(c.T, putError(c, 1), kvstore.ErrClockSkew)
					c.Skew(1, 0)
					time.Sleep(noticeClock)
				}
				for id := range 20 {
					put(c, 1, "k", 100+id)
					get(c, 0, "k", 100+id)
				}
				c.Skew(1, 0)
				c.Check()
			})
		})
	}
}

func putError(c *kvtest.Cluster, node int) error {
	_, err := c.Node(node).Put(ctx, "refused", check.Value("refused", int(c.Now()), 80))
	return err
}

// noticeClock is how long after a jump of a clock its node surely knows.
const noticeClock = 5 * time.Second

// TestSimClockFarAhead: a node whose clock jumps 10 s ahead gets no write
// acknowledged: its peers refuse the stamp, and what it stored itself does not
// spread and keeps nobody else from reading and writing. Once it has compared its
// clock with theirs it refuses by itself and stores nothing. When its clock is put
// right, and time has passed what it stamped, it is a node like the others and
// nothing is lost.
func TestSimClockFarAhead(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		c.Ready()
		for id := range 10 {
			put(c, 0, fmt.Sprint("key", id), id)
		}
		c.Skew(2, 10*time.Second)
		for id := range 10 {
			key := fmt.Sprint("key", id)
			_, err := c.Node(2).Put(ctx, key, check.Value(key, 1000+id, 80))
			var q *kvstore.QuorumError
			require.ErrorAs(c.T, err, &q)
			require.LessOrEqual(c.T, q.Received, 1)
			for _, r := range q.Replicas {
				if r.Err != nil {
					require.ErrorIs(c.T, r.Err, kvstore.ErrClockSkew)
				}
			}
		}
		time.Sleep(noticeClock)
		err := putError(c, 2)
		require.ErrorIs(c.T, err, kvstore.ErrClockSkew)
		require.Equal(c.T, kvstore.NotApplied, kvstore.OutcomeOf(err))
		for id := range 30 {
			key := fmt.Sprint("key", id%10)
			if id < 10 {
				get(c, id%2, key, id)
			}
			put(c, id%2, key, 100+id)
			get(c, 1-id%2, key, 100+id)
		}
		c.Skew(2, 0)
		time.Sleep(10 * time.Second)
		for id := range 10 {
			put(c, 2, fmt.Sprint("key", id), 200+id)
			get(c, id%3, fmt.Sprint("key", id), 200+id)
		}
		c.Check()
	})
}

// TestSimClockLeaps: clocks leap an hour ahead, for less time than their nodes take to
// notice, and are put right. No promise follows one clock, so every node takes writes
// again at once; and what a node has told of its stamps does not make it doubt its own
// directory after a clean restart.
func TestSimClockLeaps(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		c.Ready()
		put(c, 0, "k", 0)
		id := 1
		for i := range c.Nodes() {
			for range 300 { // the period is in no step with that of rounds
				c.Skew(i, time.Hour)
				time.Sleep(200 * time.Millisecond)
				put(c, (i+1)%3, "k", id)
				id++
				time.Sleep(200 * time.Millisecond)
				c.Skew(i, 0)
				time.Sleep(1700 * time.Millisecond)
			}
			c.Stop(i)
			c.Restart(i)
			c.Ready()
			c.Settle()
			for j := range c.Nodes() {
				_, err := c.Node(j).Put(ctx, "k", check.Value("k", id, 80), kvstore.All)
				require.NoError(c.T, err, "node %d, after leaps of %d", j, i)
				id++
				require.Zero(c.T, c.Node(j).DB().Metrics().Damages, "node %d, after leaps of %d", j, i)
			}
		}
		c.Check()
	})
}

// TestSimRestampFails: a write that would have to be stamped above a dot that is
// too far ahead of the coordinator's clock fails; what its first attempt left is
// not called nothing.
func TestSimRestampFails(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		c.Ready()
		c.Skew(0, 400*time.Millisecond)
		c.Skew(1, -400*time.Millisecond)
		c.Cut(0, 1) // node 1 hears nothing of the write, and soon enough of all else
		c.Cut(2, 1)
		put(c, 0, "k", 1)
		c.Heal()
		_, err := c.Node(1).Put(ctx, "k", check.Value("k", 2, 80))
		require.ErrorIs(c.T, err, kvstore.ErrPartial)
		require.ErrorContains(c.T, err, kvstore.ErrClockSkew.Error())
		require.Equal(c.T, kvstore.Unknown, kvstore.OutcomeOf(err))
		get(c, 1, "k", 2, kvstore.One)
		c.Skew(0, 0)
		c.Skew(1, 0)
		c.Check()
	})
}

// TestSimForwardedAhead: a causal write that is handed to an owner whose clock is far
// ahead of the node's own is applied; the node, which refuses the stamp, does not call
// that nothing.
func TestSimForwardedAhead(t *testing.T) {
	simulate(t, 1, &kvtest.Options{Nodes: 4}, func(c *kvtest.Cluster) {
		waitMembers(c, 4)
		c.Settle()
		key := keyOf(c.Node(3).DB(), "n0", "n1", "n2")
		base := put(c, 0, key, 0)
		c.Skew(3, -300*time.Millisecond)
		for i := range 3 {
			c.Skew(i, 300*time.Millisecond)
		}
		time.Sleep(time.Millisecond)
		_, err := c.Node(3).Put(ctx, key, check.Value(key, 1, 80), kvstore.Replaces(base))
		require.ErrorContains(c.T, err, kvstore.ErrClockSkew.Error())
		require.Equal(c.T, kvstore.Unknown, kvstore.OutcomeOf(err), "%v", err)
		get(c, 0, key, 1)
		for i := range 4 {
			c.Skew(i, 0)
		}
		time.Sleep(noticeClock)
		c.Check()
	})
}
