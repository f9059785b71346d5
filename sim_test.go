package kvstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
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
		defer func() { simulated(t, c) }()
		scenario(c)
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

// A ran is what the runs of one scenario add up to.
type ran struct {
	scenario      string // the test's name
	seeds, failed int
	calls         int
	virtual       time.Duration
}

// rans are those of all scenarios so far, in their order.
var rans struct {
	sync.Mutex
	all []ran
}

// simulated takes in a run that ends.
func simulated(t *testing.T, c *kvtest.Cluster) {
	name, _, _ := strings.Cut(t.Name(), "/")
	rans.Lock()
	defer rans.Unlock()
	i := slices.IndexFunc(rans.all, func(r ran) bool { return r.scenario == name })
	if i < 0 {
		i = len(rans.all)
		rans.all = append(rans.all, ran{scenario: name})
	}
	r := &rans.all[i]
	r.seeds++
	r.calls += len(c.History())
	r.virtual += c.Now()
	if c.T.Failed() {
		r.failed++
	}
}

// tellSimulated prints what was simulated, if tests print at all.
func tellSimulated() {
	if !testing.Verbose() || len(rans.all) == 0 {
		return
	}
	sum := ran{scenario: "all"}
	fmt.Printf("%-32s %6s %8s %14s %s\n", "scenario", "seeds", "calls", "virtual time", "seeds with violations")
	for _, r := range rans.all {
		sum.seeds, sum.failed, sum.calls, sum.virtual = sum.seeds+r.seeds, sum.failed+r.failed, sum.calls+r.calls, sum.virtual+r.virtual
	}
	for _, r := range append(rans.all, sum) {
		fmt.Printf("%-32s %6d %8d %14v %d\n", r.scenario, r.seeds, r.calls, r.virtual.Round(time.Second), r.failed)
	}
}

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
	turns int           // how often the clients have come
	think time.Duration // on average between calls
	// sloppy lets writes count hints.
	sloppy bool
	// alone gives each client a key that only it writes, and others read.
	alone bool
}

// start lets n clients begin. It may be called again when they are gone.
func (w *crowd) start(n int) {
	w.gone.Store(false)
	turn := w.turns
	w.turns++
	for client := w.first; client < w.first+n; client++ {
		w.clients.Go(func() {
			draw := rand.New(rand.NewPCG(w.c.Seed, uint64(turn)<<32|uint64(client)))
			ctx := kvtest.WithClient(ctx, client)
			doubt := turn > 0 // what the client's own key has
			for i := turn << 16; !w.gone.Load(); i++ {
				time.Sleep(time.Duration(draw.ExpFloat64() * float64(w.think)))
				node := w.c.Node(w.nodes[draw.IntN(len(w.nodes))])
				key, owner := fmt.Sprint("key", draw.IntN(w.keys)), -1
				if w.alone && draw.IntN(4) == 0 {
					owner = w.first + draw.IntN(n)
					key = fmt.Sprint("own", owner)
				}
				kind, err := w.call(ctx, draw, node, key, client<<20|i, owner < 0 || owner == client && !doubt)
				if owner == client {
					doubt = err != nil && (doubt || kvstore.OutcomeOf(err) == kvstore.Unknown)
				}
				if err != nil {
					w.failed[kind].Add(1)
				} else {
					w.ok[kind].Add(1)
				}
			}
		})
	}
}

func (w *crowd) call(ctx context.Context, draw *rand.Rand, n *kvtest.Node, key string, id int, writes bool) (kind check.Kind, err error) {
	if draw.IntN(4) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(draw.Int64N(int64(500*time.Millisecond))))
		defer cancel()
	}
	switch p := draw.IntN(100); {
	case p < 45 || !writes:
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
