package kvstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
)

// The tests named TestSim run clusters of whole nodes under simulated time,
// network and disks. Those named for one fault use one seed, or a few; TestSimMixed
// and TestSimJoin are those that -seeds is for.

// simulate runs a scenario, but not with -short.
func simulate(t *testing.T, seed uint64, o *kvtest.Options, scenario func(c *kvtest.Cluster)) {
	t.Helper()
	if testing.Short() {
		t.Skip("a simulation")
	}
	kvtest.Run(t, seed, o, func(c *kvtest.Cluster) {
		scenario(c)
		simulated.calls.Add(int64(len(c.History())))
		simulated.time.Add(int64(c.Now()))
	})
}

// few runs a scenario for seeds 1 to n, which -seeds does not change.
func few(t *testing.T, n int, test func(t *testing.T, seed uint64)) {
	if os.Getenv("KVSTORE_TORTURE") != "" {
		n *= 20
	}
	for seed := uint64(1); seed <= uint64(n); seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { test(t, seed) })
	}
}

// simulated is what the scenarios so far add up to.
var simulated struct{ calls, time atomic.Int64 }

// put stores a value that tells its key and number, at Quorum, without an error.
func put(c *kvtest.Cluster, node int, key string, id int) kvstore.Version {
	c.T.Helper()
	v, err := c.Node(node).Put(ctx, key, check.Value(key, id, 80))
	require.NoError(c.T, err)
	return v
}

// get reads, at Quorum if not told otherwise, and expects a value that put
// stored.
func get(c *kvtest.Cluster, node int, key string, id int, opts ...kvstore.GetOption) {
	c.T.Helper()
	it, err := c.Node(node).Get(ctx, key, opts...)
	require.NoError(c.T, err)
	require.Equal(c.T, string(check.Value(key, id, 80)), string(it.Value))
}

// A crowd is a number of clients that call nodes at random until they are told
// to go.
type crowd struct {
	c       *kvtest.Cluster
	clients sync.WaitGroup
	gone    atomic.Bool
	// calls counts them by kind and whether they had no error.
	ok, failed [3]atomic.Int64
	// nodes are those that the clients call.
	nodes []int
	keys  int
	// first is the number of the first client: they differ between crowds.
	first int
	think time.Duration // on average between calls
	// sloppy lets writes count hints.
	sloppy bool
}

// start lets n clients begin.
func (w *crowd) start(n int) {
	for client := w.first; client < w.first+n; client++ {
		w.clients.Go(func() {
			draw := rand.New(rand.NewPCG(w.c.Seed, uint64(client)))
			ctx := kvtest.WithClient(ctx, client)
			for i := 0; !w.gone.Load(); i++ {
				time.Sleep(time.Duration(draw.ExpFloat64() * float64(w.think)))
				node := w.c.Node(w.nodes[draw.IntN(len(w.nodes))])
				key := fmt.Sprint("key", draw.IntN(w.keys))
				kind, err := w.call(ctx, draw, node, key, client<<20|i)
				if err != nil {
					w.failed[kind].Add(1)
				} else {
					w.ok[kind].Add(1)
				}
			}
		})
	}
}

func (w *crowd) call(ctx context.Context, draw *rand.Rand, n *kvtest.Node, key string, id int) (kind check.Kind, err error) {
	if draw.IntN(4) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(draw.Int64N(int64(500*time.Millisecond))))
		defer cancel()
	}
	switch p := draw.IntN(100); {
	case p < 45:
		kind = check.Get
		if _, err = n.Get(ctx, key); errors.Is(err, kvstore.ErrNotFound) {
			err = nil // no value is an answer too
		}
	case p < 92:
		kind = check.Put
		var opts []kvstore.PutOption
		if w.sloppy {
			opts = append(opts, kvstore.Sloppy)
		}
		_, err = n.Put(ctx, key, check.Value(key, id, 40+draw.IntN(2000)), opts...)
	default:
		kind = check.Delete
		var opts []kvstore.DeleteOption
		if w.sloppy {
			opts = append(opts, kvstore.Sloppy)
		}
		err = n.Delete(ctx, key, opts...)
	}
	return kind, err
}

// leave waits until all clients are gone. It may be called again.
func (w *crowd) leave() {
	w.gone.Store(true)
	w.clients.Wait()
}
