package kvstore_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/kvtest"
)

// tableBytes is what the tables of all nodes have, and logFiles how many segments the
// log of the one has that has most.
func tableBytes(c *kvtest.Cluster) (tables uint64, segments int) {
	for _, n := range c.Nodes() {
		m := n.DB().Metrics().Engine
		tables += m.TableBytes
		segments = max(segments, m.Segments+m.IdleSegments)
	}
	return tables, segments
}

// TestSimPutsAndDeletes: when many keys were put, and all deleted again, next to nothing
// of them is on the disks within two rounds and the compaction that the second one
// triggers, and the log keeps to the segments that it may have. KVSTORE_TORTURE=1 does
// it with a million keys.
func TestSimPutsAndDeletes(t *testing.T) {
	keys := 50_000
	if os.Getenv("KVSTORE_TORTURE") != "" {
		keys = 1_000_000
	}
	o := &kvtest.Options{Nodes: 3, Stall: 2 * time.Minute}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		draw := rand.NewChaCha8([32]byte{}) // nothing that compresses
		peak, most := uint64(0), 0
		look := func() (tables uint64) {
			tables, segments := tableBytes(c)
			peak, most = max(peak, tables), max(most, segments)
			return tables
		}
		for _, remove := range []bool{false, true} {
			var b kvstore.Batch
			for i := range keys {
				if key := fmt.Sprint("key-", i); remove {
					b.Delete(key)
				} else {
					value := make([]byte, 100)
					_, _ = draw.Read(value)
					b.Put(key, value)
				}
				if b.Len() == 1000 || i == keys-1 {
					require.NoError(c.T, c.Node(i/1000%3).DB().Apply(ctx, &b))
					b.Reset()
					look()
				}
			}
		}
		done := c.Now()
		rounds := c.Node(0).DB().Metrics().Rounds
		for look() > peak/100 && c.Now()-done < twoRounds {
			time.Sleep(time.Second)
		}
		c.T.Logf("%d keys: %d bytes of tables, at their peak %d, %v and %d rounds after the last delete; at most %d segments of a log",
			keys, look(), peak, c.Now()-done, c.Node(0).DB().Metrics().Rounds-rounds, most)
		require.LessOrEqual(c.T, look(), peak/100)
		require.LessOrEqual(c.T, most, 5)
	})
}
