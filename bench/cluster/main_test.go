package main

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain makes the test's own binary a node where the benchmark would.
func TestMain(m *testing.M) {
	if runAsNode() {
		return
	}
	os.Exit(m.Run())
}

// One short round of everything: a benchmark that does not run measures nothing.
func TestRound(t *testing.T) {
	o := options{nodes: 3, callers: 6, keys: 200, valueBytes: 100, rounds: 1,
		time: 100 * time.Millisecond, warm: 10 * time.Millisecond, every: 10 * time.Millisecond, dir: t.TempDir()}
	results, err := measure(t.Context(), o)
	require.NoError(t, err)
	require.Len(t, results, len(workloads))
	for _, r := range results {
		require.NotZero(t, r.Ops, r.Workload)
		require.Zero(t, r.Errors, r.Workload)
		require.NotZero(t, r.P50, r.Workload)
	}
	put := results[0]
	require.Equal(t, "put-quorum-synced", put.Workload)
	require.NotZero(t, put.SocketWrites, "a quorum put needs the network")
	require.NotZero(t, put.LogSyncs, "a synced put needs a sync")
	require.Contains(t, tabulate(results), "| get-one ")
	left, err := os.ReadDir(o.dir)
	require.NoError(t, err)
	require.Empty(t, left, "the nodes' directories are removed")
}

// One short outage: the third node comes back and gets what it missed.
func TestOutage(t *testing.T) {
	o := options{nodes: 3, callers: 6, keys: 200, valueBytes: 100, rounds: 1,
		time: 100 * time.Millisecond, warm: 10 * time.Millisecond, outage: 2 * time.Second, dir: t.TempDir()}
	results, err := measureOutages(t.Context(), o)
	require.NoError(t, err)
	require.Len(t, results, 1)
	r := results[0]
	require.Zero(t, r.Errors)
	require.NotZero(t, r.Hints)
	require.NotZero(t, r.Before)
	require.NotZero(t, r.During)
	require.NotZero(t, r.After)
	require.Contains(t, tabulateOutages(results), "| median")
}

// The quantiles of a tally are those of the sorted list, within a bucket.
func TestQuantiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var all []time.Duration
	var a, b tally
	for i := range 10_000 {
		d := time.Duration(rng.Int64N(1 << rng.IntN(40)))
		all = append(all, d)
		if i%2 == 0 {
			a.add(d)
		} else {
			b.add(d)
		}
	}
	a.merge(&b)
	require.EqualValues(t, len(all), a.count())
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.99, 0.999} {
		want, got := all[int(q*float64(len(all)))], a.quantile(q)
		require.LessOrEqual(t, got, want)
		require.LessOrEqual(t, float64(want-got), float64(want)/subBuckets, "quantile %v: %v for %v", q, got, want)
	}
}

func TestBuckets(t *testing.T) {
	for b := range 35 * subBuckets {
		require.Equal(t, b, bucket(floor(b)))
		if b > 0 {
			require.Equal(t, b-1, bucket(floor(b)-1))
		}
	}
}
