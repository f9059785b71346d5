package kvstore_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/kvtest"
	"example.com/kvstore/lsm/vfs"
)

// TestSimYield: while hints, or an exchange, fill the log of a node with a slow disk,
// clients' writes to it take a fraction of the time that they take without the throttle,
// and the node catches up all the same.
func TestSimYield(t *testing.T) {
	const bandwidth = 4 << 20 // of the log, bytes a second
	for _, how := range []string{"hints", "exchange"} {
		t.Run(how, func(t *testing.T) {
			if how == "exchange" {
				off(t, &kvstore.Defences.Hints)
			}
			off(t, &kvstore.Defences.Rounds)
			run := func(yield bool) (mean, caught time.Duration) {
				if !yield {
					off(t, &kvstore.Defences.Yield)
				}
				o := &kvtest.Options{Configure: func(_ int, o *kvstore.Options) {
					o.MemoryBytes = 64 << 20
					o.FS = vfs.Faulty(o.FS, func(op vfs.Op) error {
						if op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".log") {
							time.Sleep(time.Duration(op.Len) * time.Second / bandwidth)
						}
						return nil
					})
				}}
				simulate(t, 1, o, func(c *kvtest.Cluster) { mean, caught = catchUp(c) })
				return mean, caught
			}
			quick, caught := run(true)
			slow, before := run(false)
			t.Logf("writes take %v while the node catches up in %v; without the throttle %v and %v", quick, caught, slow, before)
			require.Less(t, quick, slow/2)
		})
	}
}

// catchUp has a node miss 6 MB, and gives how long writes take on average while it
// gets them, and how long that takes.
func catchUp(c *kvtest.Cluster) (mean, caught time.Duration) {
	waitMembers(c, 3)
	c.Settle()
	c.Crash(2)
	time.Sleep(20 * time.Second)
	var b kvstore.Batch
	for i := range 6_000 {
		b.Put(fmt.Sprint("key", i), make([]byte, 1000))
		if b.Len() == 500 {
			require.NoError(c.T, c.Node(0).DB().Apply(ctx, &b))
			b.Reset()
		}
	}
	c.Restart(2)
	c.Settle()
	for c.Node(2).DB().Metrics().Engine.LogBytes < 256<<10 { // it begins
		time.Sleep(10*time.Millisecond + 37)
	}
	start := c.Now()
	writes := 0
	for writes%50 != 0 || len(holds(c, 2)) < 6_000+writes {
		begun := c.Now()
		_, err := c.Node(writes%2).DB().Put(ctx, fmt.Sprint("more", writes), []byte("v"), kvstore.All)
		require.NoError(c.T, err)
		mean += c.Now() - begun
		writes++
		time.Sleep(5 * time.Millisecond)
		require.Less(c.T, c.Now()-start, 5*time.Minute)
	}
	return mean / time.Duration(writes), c.Now() - start
}
