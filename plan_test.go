package kvstore_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/kvtest"
	"example.com/kvstore/ring"
)

// TestPlan: what a change would move, and that it changes nothing.
func TestPlan(t *testing.T) {
	simulate(t, 1, &kvtest.Options{Nodes: 4}, func(c *kvtest.Cluster) {
		waitMembers(c, 4)
		c.Settle()
		for i := range 100 {
			put(c, i%4, fmt.Sprint("key", i), i)
		}
		db := c.Node(0).DB()
		before := db.Ring()
		p, err := db.Plan(ctx, kvstore.Change{Add: []ring.Node{{ID: "new", Weight: 1}}})
		require.NoError(c.T, err)
		require.Empty(c.T, p.AtRisk)
		require.NotZero(c.T, p.Bytes)
		require.Len(c.T, p.Members, 5)
		gained := 0
		for _, m := range p.Moves {
			require.Equal(c.T, "new", m.To)
			gained++
		}
		for _, m := range p.Members {
			if m.ID == "new" {
				require.Zero(c.T, m.Before)
				require.Equal(c.T, gained, m.After)
				require.InDelta(c.T, 64*3/5, m.After, 1)
			} else {
				require.InDelta(c.T, 64*3/4, m.Before, 1)
			}
		}
		require.Contains(c.T, p.String(), "new")

		p, err = db.Plan(ctx, kvstore.Change{Remove: []string{"n3"}, Weights: map[string]float64{"n2": 0.5}})
		require.NoError(c.T, err)
		require.Len(c.T, p.Members, 4)
		p, err = db.Plan(ctx, kvstore.Change{Remove: []string{"n2", "n3"}})
		require.NoError(c.T, err)
		require.Contains(c.T, p.String(), "majority")
		require.Contains(c.T, p.String(), "fewer replicas")
		c.Crash(1)
		time.Sleep(time.Minute)
		p, err = db.Plan(ctx, kvstore.Change{Remove: []string{"n2"}})
		require.NoError(c.T, err)
		require.Contains(c.T, p.String(), "dead")
		require.Contains(c.T, p.String(), "majority")

		for _, bad := range []kvstore.Change{
			{Add: []ring.Node{{ID: "n1", Weight: 1}}},
			{Add: []ring.Node{{ID: "x", Weight: 1}, {ID: "x", Weight: 1}}},
			{Add: []ring.Node{{ID: "x", Weight: -1}}},
			{Add: []ring.Node{{Weight: 1}}},
			{Remove: []string{"nobody"}},
			{Remove: []string{"n1", "n1"}},
			{Remove: []string{"n0", "n1", "n2", "n3"}},
			{Weights: map[string]float64{"nobody": 1}},
		} {
			_, err := db.Plan(ctx, bad)
			require.ErrorIs(c.T, err, kvstore.ErrInvalid, "%+v", bad)
		}
		over, cancel := context.WithCancel(ctx)
		cancel()
		_, err = db.Plan(over, kvstore.Change{})
		require.ErrorIs(c.T, err, context.Canceled)
		require.Same(c.T, before, db.Ring())
	})
}
