package kvstore_test

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/kvtest"
	"example.com/kvstore/lsm/vfs"
)

// slowReads has every read of a table take d, once the node is told so.
func slowReads(o *kvstore.Options, d *atomic.Int64) {
	o.FS = vfs.Faulty(o.FS, func(op vfs.Op) error {
		if op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, ".table") {
			time.Sleep(time.Duration(d.Load()))
		}
		return nil
	})
}

// same requires that two nodes hold the same.
func same(c *kvtest.Cluster, a, b int) {
	c.T.Helper()
	left, err := kvstore.HoldsSum(c.Node(a).DB())
	require.NoError(c.T, err)
	right, err := kvstore.HoldsSum(c.Node(b).DB())
	require.NoError(c.T, err)
	require.Equal(c.T, left, right)
}

// TestSimExchangePieces: what takes longer to read than a request may is compared piece
// by piece, also within one partition, and so are the reads of what differs.
func TestSimExchangePieces(t *testing.T) {
	off(t, &kvstore.Defences.Exchange)
	off(t, &kvstore.Defences.Rounds)
	var delay atomic.Int64
	o := &kvtest.Options{Nodes: 2, Configure: func(_ int, o *kvstore.Options) {
		o.MaxRequest, o.Partitions, o.MemoryBytes = time.Second, 1, 4<<20
		slowReads(o, &delay)
	}}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		waitMembers(c, 2)
		c.Settle()
		const keys, missing = 30_000, 1000
		now := time.Now()
		for i := range 2 {
			require.NoError(c.T, kvstore.Fill(c.Node(i).DB(), now, keys, 500, func(k int, stamp uint64) uint64 {
				if i == 1 && k%(keys/missing) == 0 {
					return 0
				}
				return stamp
			}))
			require.NoError(c.T, kvstore.Compact(c.Node(i).DB()))
		}
		delay.Store(int64(5 * time.Millisecond))
		steps, differed := 0, 0
		for p, err := range c.Node(1).DB().Repair(ctx) {
			require.NoError(c.T, err)
			steps++
			differed += p.Differed
		}
		c.T.Logf("%d steps", steps)
		require.Equal(c.T, missing, differed)
		require.Greater(c.T, steps, 2)
		delay.Store(0)
		same(c, 0, 1)
	})
}

// TestSimLaggingRound: a replica that lacks more than one comparison holds, and merges
// before the other one does, gets it in rounds, and they finish.
func TestSimLaggingRound(t *testing.T) {
	off(t, &kvstore.Defences.Exchange)
	keys := 150_000 // in two pieces
	if os.Getenv("KVSTORE_TORTURE") != "" {
		keys = 600_000
	}
	o := &kvtest.Options{Nodes: 2, Configure: func(_ int, o *kvstore.Options) { o.MemoryBytes = 64 << 20 }}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		waitMembers(c, 2)
		c.Settle()
		full := 0
		if kvstore.UID(c.Node(0).DB()) < kvstore.UID(c.Node(1).DB()) {
			full = 1
		}
		require.NoError(c.T, kvstore.Fill(c.Node(full).DB(), time.Now(), keys, 10, func(_ int, stamp uint64) uint64 { return stamp }))
		start := c.Now()
		for c.Node(0).DB().Metrics().Rounds == 0 || c.Node(1).DB().Metrics().Rounds == 0 {
			require.Less(c.T, c.Now()-start, 10*time.Minute)
			time.Sleep(time.Second)
		}
		c.T.Logf("after %v: %+v", c.Now()-start, exchanged(c))
		same(c, 0, 1)
	})
}

// TestSimManyRounds: with more owners than one node serves at a time every pair has
// its turn: no round and no exchange is refused.
func TestSimManyRounds(t *testing.T) {
	o := &kvtest.Options{Nodes: 7, MinDelay: 20 * time.Millisecond, MaxDelay: 60 * time.Millisecond}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		deleteAll(c, 200, -1)
		time.Sleep(twoRounds)
		require.Zero(c.T, tombstones(c))
		for _, n := range c.Nodes() {
			m := n.DB().Metrics()
			require.NotZero(c.T, m.Rounds)
			require.Zero(c.T, m.FailedRounds)
			require.Zero(c.T, m.FailedExchanges)
		}
	})
}

// TestSimRoundsDespiteNews: members that own nothing come and go all the time, and the
// rounds of the others, on slow disks, finish.
func TestSimRoundsDespiteNews(t *testing.T) {
	o := &kvtest.Options{Nodes: 4, Configure: func(i int, o *kvstore.Options) {
		o.Proxy = i == 3
	}}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		deleteAll(c, 50, -1)
		for i := range 3 {
			c.SlowDisk(i, 4*time.Second)
		}
		for start := c.Now(); c.Now()-start < 2*twoRounds; time.Sleep(time.Second) {
			c.Crash(3)
			time.Sleep(time.Second)
			c.Restart(3)
		}
		for i := range 3 {
			require.NotZero(c.T, c.Node(i).DB().Metrics().Rounds, fmt.Sprint("node ", i))
			c.SlowDisk(i, 0)
		}
	})
}
