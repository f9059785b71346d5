package kvtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
)

// chaos is a scenario with everything in it: clients on all nodes at once, while
// a storm rages.
func chaos(c *Cluster, clients, calls int) {
	c.Ready()
	var clientsDone sync.WaitGroup
	for i := range clients {
		clientsDone.Go(func() {
			draw := rand.New(rand.NewPCG(c.Seed, uint64(i)))
			ctx := WithClient(context.Background(), i)
			for j := range calls {
				time.Sleep(time.Duration(draw.ExpFloat64() * float64(50*time.Millisecond)))
				n, key := c.Node(draw.IntN(len(c.nodes))), fmt.Sprint("key", draw.IntN(10))
				switch p := draw.IntN(10); {
				case p < 5:
					_, _ = n.Get(ctx, key)
				case p < 9:
					_, _ = n.Put(ctx, key, check.Value(key, i*calls+j, 100))
				default:
					_ = n.Delete(ctx, key)
				}
			}
		})
	}
	c.Storm(time.Duration(calls) * 60 * time.Millisecond)
	clientsDone.Wait()
	c.Check()
}

// runChaos gives the trace of one run and its lines.
func runChaos(t *testing.T, seed uint64) (hash uint64, lines []string) {
	o := Options{keepTrace: true, Nodes: 3 + int(seed%3), Loss: 0.02, Duplicate: 0.02, Configure: func(_ int, o *kvstore.Options) { o.MaxRequest = 2 * time.Second }}
	Run(t, seed, &o, func(c *Cluster) {
		chaos(c, 6, 60)
		hash = c.Trace()
		lines = c.trace.mu.lines
	})
	return hash, lines
}

// TestTrace: one seed gives one trace, and another seed another. -seeds does not change how
// many there are: on a machine that is busy with other things the kernel takes the only
// thread away in the middle of an instant, the Go scheduler then goes on with another
// goroutine, and of a thousand runs one or two differ.
func TestTrace(t *testing.T) {
	seen := map[uint64]uint64{}
	test := func(t *testing.T, seed uint64) {
		first, lines := runChaos(t, seed)
		if parallel {
			return
		}
		for range 2 {
			if again, others := runChaos(t, seed); again != first {
				requireSameLines(t, lines, others)
			}
		}
		require.NotContains(t, seen, first)
		seen[first] = seed
	}
	if *seedFlag != 0 {
		test(t, *seedFlag)
		return
	}
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed=", seed+1), func(t *testing.T) { test(t, seed+1) })
	}
}

func requireSameLines(t *testing.T, a, b []string) {
	t.Helper()
	for i := range min(len(a), len(b)) {
		if a[i] == b[i] {
			continue
		}
		for j := max(0, i-8); j < min(i+8, len(a), len(b)); j++ {
			t.Logf("%d\n\t%s\n\t%s", j, a[j], b[j])
		}
		t.Fatalf("the traces of %d and %d lines part at line %d", len(a), len(b), i)
	}
	t.Fatalf("traces of %d and %d lines", len(a), len(b))
}
