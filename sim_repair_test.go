package kvstore_test

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/kvtest"
)

// repair runs DB.Repair on a node and adds up what it tells.
func repair(c *kvtest.Cluster, node int, opts ...kvstore.RepairOption) (sum kvstore.Progress) {
	c.T.Helper()
	for p, err := range c.Node(node).DB().Repair(ctx, opts...) {
		require.NoError(c.T, err)
		require.NotEmpty(c.T, p.String())
		sum.Partitions, sum.Total = p.Partitions, p.Total
		sum.Differed += p.Differed
		sum.Sent += p.Sent
		sum.Received += p.Received
		sum.Bytes += p.Bytes
	}
	require.Equal(c.T, sum.Total, sum.Partitions)
	return sum
}

// TestSimRepairBytes: the cost of a comparison follows the difference: of many equal
// keys next to nothing; with ten planted differences, ten records and little else;
// with 1 % different, less than twice the bytes that differ. KVSTORE_TORTURE=1 does it
// with a million keys.
func TestSimRepairBytes(t *testing.T) {
	keys, size := 100_000, 512
	if os.Getenv("KVSTORE_TORTURE") != "" {
		keys = 1_000_000
	}
	off(t, &kvstore.Defences.Exchange)
	off(t, &kvstore.Defences.Rounds)
	for _, tt := range []struct {
		name   string
		differ int
		bytes  int // at most
	}{
		{"equal", 0, 1 << 20},
		{"ten differ", 10, 256 << 10},
		{"1 % differ", keys / 100, 2 * keys / 100 * (size + 16)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			simulate(t, 1, &kvtest.Options{Nodes: 2, Stall: 2 * time.Minute, Configure: func(_ int, o *kvstore.Options) { o.MemoryBytes = 64 << 20 }}, func(c *kvtest.Cluster) {
				waitMembers(c, 2)
				c.Settle()
				every := 3 * keys
				if tt.differ > 0 {
					every = keys / tt.differ
				}
				kinds, now := [3]int{}, time.Now()
				for i := range 2 {
					require.NoError(c.T, kvstore.Fill(c.Node(i).DB(), now, keys, size, func(k int, stamp uint64) uint64 {
						if k%every != every/2 {
							return stamp
						}
						kind := k / every % 3 // missing here, missing there, older there
						if i == 0 {
							kinds[kind]++
						}
						switch {
						case kind == i:
							return 0
						case kind == 2 && i == 1:
							return stamp - 1
						}
						return stamp
					}))
				}
				p := repair(c, 0)
				c.T.Logf("%d keys: %v", keys, p)
				require.Equal(c.T, tt.differ, p.Differed)
				require.Equal(c.T, kinds[0], p.Received)
				require.Equal(c.T, kinds[1]+kinds[2], p.Sent)
				require.Less(c.T, p.Bytes, tt.bytes)
				same(c, 0, 1)
				again := repair(c, 1, kvstore.RepairWith(c.Node(0).ID()))
				require.Zero(c.T, again.Differed+again.Sent+again.Received)
			})
		})
	}
}

// TestSimRepairTells: a repair with a node that is down tells so and goes on, and one
// that is given up ends.
func TestSimRepairTells(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		put(c, 0, "key", 1)
		c.Crash(1)
		var failed, done []string
		for p, err := range c.Node(0).DB().Repair(ctx) {
			if err != nil {
				failed = append(failed, p.Node)
			} else {
				done = append(done, p.Node)
			}
		}
		require.Equal(c.T, []string{"n1"}, failed)
		require.Equal(c.T, []string{"n2"}, done)
		for range c.Node(0).DB().Repair(ctx) {
			break
		}
		for range c.Node(0).DB().Repair(ctx, kvstore.RepairWith("nobody")) {
			c.T.Error("a step with nobody")
		}
	})
}

// TestSimRepairEndsWithClose: a node that is closed does not wait for the repair that
// it is busy with.
func TestSimRepairEndsWithClose(t *testing.T) {
	off(t, &kvstore.Defences.Exchange)
	off(t, &kvstore.Defences.Rounds)
	o := &kvtest.Options{Nodes: 2, Configure: func(_ int, o *kvstore.Options) { o.MemoryBytes = 64 << 20 }}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		waitMembers(c, 2)
		c.Settle()
		db := c.Node(0).DB()
		require.NoError(c.T, kvstore.Fill(db, time.Now(), 30_000, 1000, func(k int, stamp uint64) uint64 { return stamp })) // some 2 s
		ended := make(chan error, 1)
		go func() {
			var last error
			for _, err := range db.Repair(ctx) {
				last = err
			}
			ended <- last
		}()
		time.Sleep(500 * time.Millisecond)
		start := c.Now()
		c.Stop(0)
		require.Less(c.T, c.Now()-start, 300*time.Millisecond)
		require.ErrorIs(c.T, <-ended, kvstore.ErrClosed)
	})
}
