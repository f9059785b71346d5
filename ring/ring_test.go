package ring

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A cluster that grows from one node to three gives every node everything.
func TestGrowToThree(t *testing.T) {
	r, err := New(64, 3, named(1, 1))
	require.NoError(t, err)
	for count := 2; count <= 5; count++ {
		next, rep, err := Rebalance(r, named(count, 1))
		require.NoError(t, err)
		require.Equal(t, r.Epoch()+1, next.Epoch())
		for p := range next.Partitions() {
			require.Len(t, next.Owners(p), min(3, count))
		}
		for _, m := range rep.Moves {
			require.Equal(t, next.Nodes()[count-1].ID, m.To)
			require.Equal(t, next.Epoch(), next.Changed(m.Partition))
		}
		_, firsts := load(next)
		require.LessOrEqual(t, firsts, 1.2)
		r = next
	}
}
