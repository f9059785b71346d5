package ring

import (
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
)

func TestPartitions(t *testing.T) {
	for _, q := range []int{1, 2, 64, MaxPartitions} {
		r, err := New(q, 3, named(4, 2))
		require.NoError(t, err)
		next := uint64(0)
		for p := range q {
			lo, hi := r.Range(p)
			require.Equal(t, next, lo)
			require.Equal(t, p, r.Partition(lo))
			require.Equal(t, p, r.Partition(hi))
			next = hi + 1
		}
		require.Zero(t, next, "the last range ends at the last token")
	}
}

func TestToken(t *testing.T) {
	require.Equal(t, xxhash.Sum64String("apple"), Token("apple"))
	require.Equal(t, uint64(0xef46db3751d8e999), Token(""))
}

func TestBadInput(t *testing.T) {
	a := Node{ID: "a", Weight: 1}
	for name, f := range map[string]func() (*Ring, error){
		"q 0":            func() (*Ring, error) { return New(0, 3, []Node{a}) },
		"q 48":           func() (*Ring, error) { return New(48, 3, []Node{a}) },
		"q too large":    func() (*Ring, error) { return New(2*MaxPartitions, 3, []Node{a}) },
		"n 0":            func() (*Ring, error) { return New(8, 0, []Node{a}) },
		"n too large":    func() (*Ring, error) { return New(8, MaxReplicas+1, []Node{a}) },
		"no nodes":       func() (*Ring, error) { return New(8, 3, nil) },
		"proxies only":   func() (*Ring, error) { return New(8, 3, []Node{{ID: "p"}}) },
		"no id":          func() (*Ring, error) { return New(8, 3, []Node{{Weight: 1}}) },
		"long id":        func() (*Ring, error) { return New(8, 3, []Node{{ID: string(make([]byte, 256)), Weight: 1}}) },
		"twice":          func() (*Ring, error) { return New(8, 3, []Node{a, a}) },
		"weight -1":      func() (*Ring, error) { return New(8, 3, []Node{{ID: "a", Weight: -1}}) },
		"weight NaN":     func() (*Ring, error) { return New(8, 3, []Node{{ID: "a", Weight: math.NaN()}}) },
		"weight +Inf":    func() (*Ring, error) { return New(8, 3, []Node{{ID: "a", Weight: math.Inf(1)}}) },
		"weight small":   func() (*Ring, error) { return New(8, 3, []Node{{ID: "a", Weight: MinWeight / 2}}) },
		"too many nodes": func() (*Ring, error) { return New(8, 3, named(MaxNodes+1, 1)) },
	} {
		_, err := f()
		require.ErrorContains(t, err, "ring: ", name)
	}
}

// A cluster that grows from one node to three gives every node everything.
func TestGrow(t *testing.T) {
	r, err := New(64, 3, named(1, 1))
	require.NoError(t, err)
	for count := 2; count <= 12; count++ {
		next, rep, err := Rebalance(r, named(count, 1))
		require.NoError(t, err)
		require.Equal(t, r.Epoch()+1, next.Epoch())
		require.Len(t, rep.Unmet, max(0, min(1, 3-count)))
		for p := range next.Partitions() {
			require.Len(t, next.Owners(p), min(3, count))
		}
		for _, m := range rep.Moves {
			require.Equal(t, next.Nodes()[count-1].ID, m.To)
			require.Equal(t, next.Epoch(), next.Changed(m.Partition))
		}
		replicas, firsts := load(next)
		require.LessOrEqual(t, replicas, 1.2)
		require.LessOrEqual(t, firsts, 1.3)
		r = next
	}
}

func TestUnmet(t *testing.T) {
	nodes := named(3, 3)
	nodes[0].Weight = 2
	r, err := New(64, 3, nodes)
	require.NoError(t, err)
	_, rep, err := Rebalance(r, nodes)
	require.NoError(t, err)
	require.Empty(t, rep.Moves)
	require.Equal(t, []string{
		"node node-000: its weight asks for 96 replicas, the spread allows 64",
		"node node-001: its weight asks for 48 replicas, the spread allows 64",
		"node node-002: its weight asks for 48 replicas, the spread allows 64",
	}, rep.Unmet)

	nodes = named(4, 2)
	_, rep, err = Rebalance(r, nodes)
	require.NoError(t, err)
	require.Contains(t, rep.Unmet, "3 replicas do not fit into distinct zones: some hold 2")
	_, rep, err = Rebalance(r, named(2, 1))
	require.NoError(t, err)
	require.Contains(t, rep.Unmet, "3 replicas are wanted, only 2 nodes hold data")
}

func TestPreference(t *testing.T) {
	nodes := append(named(9, 3), Node{ID: "proxy"})
	r, err := New(256, 2, nodes)
	require.NoError(t, err)
	buf := make([]int32, 0, len(nodes))
	for p := range r.Partitions() {
		list := r.AppendPreference(buf, p)
		require.Equal(t, r.Owners(p), list[:2])
		require.Len(t, list, 9, "every node with a weight")
		require.NotContains(t, list, int32(r.Index("proxy")))
		zones := map[string]bool{}
		for _, x := range list[:3] {
			zones[r.Nodes()[x].Zone] = true
		}
		require.Len(t, zones, 3, "the first fallback is in the zone without an owner")
		sorted := slices.Clone(list)
		slices.Sort(sorted)
		require.Len(t, slices.Compact(sorted), 9)
	}
	require.Zero(t, testing.AllocsPerRun(100, func() { buf = r.AppendPreference(buf[:0], 7) }))
	require.Equal(t, -1, r.Index("nobody"))
}

// Fallbacks of one node's partitions are spread over the others.
func TestFallbacksAreSpread(t *testing.T) {
	r, err := New(4096, 3, named(10, 1))
	require.NoError(t, err)
	first := map[int32]int{}
	owned := 0
	for p := range r.Partitions() {
		if slices.Contains(r.Owners(p), 0) {
			first[r.AppendPreference(nil, p)[3]]++
			owned++
		}
	}
	for x := int32(1); x < 10; x++ {
		require.Less(t, first[x], owned/4, "node %d", x)
		require.Positive(t, first[x], "node %d", x)
	}
}

// Layouts do not change between versions, or a plan made by one would differ in another.
func TestVectors(t *testing.T) {
	sum := func(r *Ring) string {
		h := fnv.New64a()
		b, _ := r.AppendBinary(nil)
		h.Write(b)
		return fmt.Sprintf("%016x", h.Sum64())
	}
	r, err := New(16, 3, named(5, 2))
	require.NoError(t, err)
	var rows string
	for p := range 16 {
		for _, x := range r.Owners(p) {
			rows += fmt.Sprint(x)
		}
		rows += " "
	}
	got := rows + "\n" + sum(r) + "\n"
	for _, step := range []func([]Node) []Node{
		func(n []Node) []Node { return append(n, Node{ID: "x", Zone: "zone-1", Weight: 0.7}) },
		func(n []Node) []Node { return n[1:] },
		func(n []Node) []Node { n[1].Weight = 3; return n },
	} {
		r, _, err = Rebalance(r, step(slices.Clone(r.Nodes())))
		require.NoError(t, err)
		got += sum(r) + "\n"
	}
	for _, shape := range [][3]int{{4096, 50, 3}, {1024, 7, 7}, {64, 500, 5}} {
		r, err := New(shape[0], 3, named(shape[1], shape[2]))
		require.NoError(t, err)
		got += sum(r) + "\n"
	}
	want, err := os.ReadFile("testdata/vectors")
	if os.Getenv("KVSTORE_REWRITE") == "1" {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile("testdata/vectors", []byte(got), 0o644))
		return
	}
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func BenchmarkRebalance(b *testing.B) {
	for _, count := range []int{5, 50, 500} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			r, err := New(4096, 3, named(count, 3))
			require.NoError(b, err)
			nodes := named(count+1, 3)
			for b.Loop() {
				_, _, err = Rebalance(r, nodes)
			}
			require.NoError(b, err)
		})
	}
}

func BenchmarkPreference(b *testing.B) {
	r, err := New(4096, 3, named(500, 3))
	require.NoError(b, err)
	var buf []int32
	for p := 0; b.Loop(); p++ {
		buf = r.AppendPreference(buf[:0], p&4095)
	}
}

// TestRenewed: what the renewed nodes own has changed, and nothing else.
func TestRenewed(t *testing.T) {
	r, err := New(64, 3, named(5, 1))
	require.NoError(t, err)
	next, err := r.Renewed(r.Nodes()[1].ID, "nobody")
	require.NoError(t, err)
	require.Equal(t, r.Epoch()+1, next.Epoch())
	require.Equal(t, r.Nodes(), next.Nodes())
	renewed := 0
	for p := range r.Partitions() {
		require.Equal(t, r.Owners(p), next.Owners(p))
		require.Equal(t, uint64(1), r.Changed(p))
		if slices.Contains(next.Owners(p), 1) {
			require.Equal(t, next.Epoch(), next.Changed(p))
			renewed++
		} else {
			require.Equal(t, r.Changed(p), next.Changed(p))
		}
	}
	require.InDelta(t, 64*3/5, renewed, 1)
}
