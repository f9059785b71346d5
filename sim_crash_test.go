package kvstore_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
	"example.com/kvstore/lsm/vfs"
)

// TestSimPowerCutKeepsDirectory: the directories that Open made are as durable
// as what was acknowledged in them.
func TestSimPowerCutKeepsDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem(1)
		for round, dir := range []string{"/deep/in/node", "/deep/in/node", "/deep/other"} {
			db, err := kvstore.Open(dir, &kvstore.Options{FS: disk})
			require.NoError(t, err)
			ready(t, db)
			if round == 1 {
				it, err := db.Get(ctx, "k")
				require.NoError(t, err)
				require.Equal(t, "v", string(it.Value))
			}
			_, err = db.Put(ctx, "k", []byte("v"))
			require.NoError(t, err)
			disk = disk.Strict()
			_ = db.Close()
		}
	})
}

// TestSimPowerCut: the power fails everywhere while clients write, again and
// again and at any moment. What was acknowledged is there afterwards.
func TestSimPowerCut(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			few(t, 8, func(t *testing.T, seed uint64) {
				o := &kvtest.Options{Nodes: nodes, Configure: func(_ int, o *kvstore.Options) { o.MemoryBytes = 1 << 20 }}
				simulate(t, seed, o, func(c *kvtest.Cluster) {
					waitMembers(c, nodes)
					c.Settle()
					w := &crowd{c: c, keys: 50, think: 10 * time.Millisecond}
					for i := range nodes {
						w.nodes = append(w.nodes, i)
					}
					w.start(8)
					defer w.leave()
					draw := rand.New(rand.NewPCG(seed, 3))
					for range 3 {
						time.Sleep(time.Duration(draw.Int64N(int64(300 * time.Millisecond))))
						for i := range nodes {
							c.Crash(i)
						}
						for i := range nodes {
							c.Restart(i)
						}
						c.Ready()
					}
					w.leave()
					require.NotZero(c.T, w.ok[check.Put].Load())
					c.Check()
				})
			})
		})
	}
}
