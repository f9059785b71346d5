package gossip

import (
	"math"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func torture() bool { return os.Getenv("KVSTORE_TORTURE") != "" }

// rounds until news (a changed meta) of one node has reached count-1 others.
func spreadRounds(t *testing.T, count int, loss float64) (rounds float64, bytesPerNode float64) {
	w := newWorld(uint64(count))
	w.loss = loss
	w.cluster(count)
	w.run(3 * time.Second)
	sent := func() (sum uint64) {
		for _, n := range w.nodes {
			sum += n.metrics.BytesOut
		}
		return sum
	}
	before := sent()
	require.NoError(t, w.nodes[0].SetMeta([]byte("news")))
	id := w.nodes[0].self.id
	took := w.runUntil(t, time.Minute, 100*time.Millisecond, func() bool {
		for _, n := range w.nodes {
			if string(n.find([]byte(id)).meta) != "news" {
				return false
			}
		}
		return true
	})
	w.run(4 * time.Second)
	return took.Seconds(), float64(sent()-before) / float64(count) / (took.Seconds() + 4)
}

// News reaches everybody in O(log N) rounds.
func TestSpread(t *testing.T) {
	for _, loss := range []float64{0, 0.1} {
		for _, count := range []int{10, 100, 1000} {
			if loss > 0 && count == 1000 && !torture() {
				continue
			}
			rounds, bytes := spreadRounds(t, count, loss)
			t.Logf("%4d nodes, %2.0f %% loss: %.1f rounds, %5.0f bytes sent per node and second", count, 100*loss, rounds, bytes)
			require.LessOrEqual(t, rounds, 3+math.Log2(float64(count)))
			require.Less(t, bytes, 8000.0)
		}
	}
}
