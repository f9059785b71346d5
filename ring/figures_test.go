package ring

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// named returns count nodes of weight 1 in zones zones.
func named(count, zones int) []Node {
	nodes := make([]Node, count)
	for i := range nodes {
		nodes[i] = Node{ID: fmt.Sprintf("node-%03d", i), Zone: fmt.Sprintf("zone-%d", i%zones), Weight: 1}
	}
	return nodes
}

// load returns max/mean of replicas, and of first owners, per node.
func load(r *Ring) (replicas, firsts float64) {
	held, first := make([]int, len(r.nodes)), make([]int, len(r.nodes))
	for p := range r.Partitions() {
		for i, x := range r.Owners(p) {
			held[x]++
			if i == 0 {
				first[x]++
			}
		}
	}
	over := func(n []int) float64 {
		top, sum := 0, 0
		for _, v := range n {
			top, sum = max(top, v), sum+v
		}
		return float64(top) * float64(len(n)) / float64(sum)
	}
	return over(held), over(first)
}

func gains(rep Report) (n int) {
	for _, m := range rep.Moves {
		if m.To != "" {
			n++
		}
	}
	return n
}

// TestFigures prints the table of the package comment (go test -v -run Figures).
func TestFigures(t *testing.T) {
	const q, n = 4096, 3
	for _, zones := range []int{1, 3} {
		t.Logf("%d zones:  nodes  max/mean  first owners   join: moved  ideal   leave: moved  ideal", zones)
		for _, count := range []int{3, 5, 10, 50, 100, 500} {
			start := time.Now()
			r, err := New(q, n, named(count, zones))
			require.NoError(t, err)
			t1 := time.Now()
			_, joined, err := Rebalance(r, named(count+1, zones))
			require.NoError(t, err)
			t2 := time.Now()
			_, left, err := Rebalance(r, named(count, zones)[1:])
			require.NoError(t, err)
			t3 := time.Now()
			all := float64(q * n)
			replicas, firsts := load(r)
			t.Logf("%14d %9.3f %13.3f %13.2f%% %6.2f%% %13.2f%% %6.2f%%   New %v join %v leave %v", count, replicas, firsts,
				100*float64(gains(joined))/all, 100/float64(count+1), 100*float64(gains(left))/all, 100/float64(count), t1.Sub(start), t2.Sub(t1), t3.Sub(t2))
		}
	}
}
