package kvstore_test

import (
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
)

// holds is what a node's own copy has.
func holds(c *kvtest.Cluster, node int) map[string]check.Holding {
	c.T.Helper()
	all, err := kvstore.Holds(c.Node(node).DB())
	require.NoError(c.T, err)
	return all
}

// remains are what the nodes, which all run, have on their disks, and keep for each
// other.
func remains(c *kvtest.Cluster) (all []check.Remains) {
	c.T.Helper()
	for i, n := range c.Nodes() {
		r := check.Remains{Node: n.ID(), Held: holds(c, i)}
		s, err := n.DB().Status(ctx)
		require.NoError(c.T, err)
		for _, m := range s.Members {
			r.Hints += m.Kept.Hints
			r.Marks += m.Kept.Partitions
		}
		all = append(all, r)
	}
	return all
}

// ownerIDs are the owners of a key.
func ownerIDs(c *kvtest.Cluster) func(key string) []string {
	r := c.Node(0).DB().Ring()
	return func(key string) (ids []string) {
		for _, x := range r.Owners(r.Partition(kvstore.TokenOf(key))) {
			ids = append(ids, r.Nodes()[x].ID)
		}
		return ids
	}
}

// apart is what K5 finds wrong with what the nodes have.
func apart(c *kvtest.Cluster, after check.Settled) []check.Violation {
	c.T.Helper()
	return check.Convergence(remains(c), ownerIDs(c), after)
}

// diverged counts keys that the owners do not hold alike, whatever hints there are.
func diverged(c *kvtest.Cluster) int {
	c.T.Helper()
	keys := map[string]bool{}
	for _, v := range apart(c, check.Exchanged) {
		if v.Op.Key != "" {
			keys[v.Op.Key] = true
		}
	}
	return len(keys)
}

// converge waits until K5 holds, and gives how long that took.
func converge(c *kvtest.Cluster, most time.Duration) time.Duration {
	c.T.Helper()
	start := c.Now()
	for {
		violations := apart(c, check.Exchanged)
		if len(violations) == 0 {
			return c.Now() - start
		}
		if c.Now()-start > most {
			c.T.Fatalf("after %v %d violations: %v", most, len(violations), violations[0])
		}
		time.Sleep(settleEvery)
	}
}

// settleEvery is the pause between two looks at a cluster that comes to rest.
const settleEvery = time.Second + 37

// treesAgree has every node compare its hash trees with those of each other owner,
// and again until there is no difference: at once, but for deletes that have not
// reached all owners.
func treesAgree(c *kvtest.Cluster) {
	c.T.Helper()
	for _, n := range c.Nodes() {
		for _, mate := range c.Nodes() {
			for try, agreed := 0, mate == n; !agreed; try++ { // messages may be lost
				require.Less(c.T, try, 30, "%s and %s", n.ID(), mate.ID())
				agreed = true
				for p, err := range n.DB().Repair(ctx, kvstore.RepairWith(mate.ID())) {
					agreed = agreed && err == nil && p.Differed == 0
				}
				if !agreed {
					time.Sleep(settleEvery)
				}
			}
		}
	}
}
