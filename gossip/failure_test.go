package gossip

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tally counts changes to a state, by all nodes about running others.
type tally map[State]int

func (w *world) tally() tally {
	t := tally{}
	w.onChange = func(n *node, c Change) {
		if c.Before != 0 && c.Before != c.State && c.ID != n.self.id {
			t[c.State]++
		}
	}
	return t
}

// At 10 % loss nobody is declared dead for an hour.
func TestNoFalseDeaths(t *testing.T) {
	count, span := 100, time.Hour
	if testing.Short() {
		span = 5 * time.Minute
	}
	if torture() {
		count = 1000
	}
	w := newWorld(7)
	w.loss = 0.1
	w.cluster(count)
	changes := w.tally()
	w.run(span)
	var bytes uint64
	for _, n := range w.nodes {
		bytes += n.metrics.BytesOut
	}
	t.Logf("%d nodes, %v, 10 %% loss: %d suspicions, %d deaths, %.0f bytes sent per node and second",
		count, span, changes[Suspect], changes[Dead], float64(bytes)/float64(count)/span.Seconds())
	require.Zero(t, changes[Dead])
	require.Zero(t, changes[Suspect])
}

// A crashed node is suspect, then dead everywhere, and stays so.
func TestCrashIsFound(t *testing.T) {
	for _, c := range []struct {
		count         int
		loss          float64
		suspect, dead time.Duration
	}{
		{2, 0, 8 * time.Second, 15 * time.Second},
		{3, 0, 8 * time.Second, 15 * time.Second},
		{10, 0.1, 12 * time.Second, 20 * time.Second},
		{100, 0, 25 * time.Second, 35 * time.Second},
		{100, 0.1, 25 * time.Second, 35 * time.Second},
		{1000, 0.1, 60 * time.Second, 90 * time.Second},
	} {
		if c.count == 1000 && !torture() {
			continue
		}
		w := newWorld(uint64(c.count))
		w.loss = c.loss
		w.cluster(c.count)
		w.run(40 * time.Second)
		w.nodes[0].down = true
		id := w.nodes[0].self.id
		changes := w.tally()
		start := w.now
		first := w.runUntil(t, c.suspect, 100*time.Millisecond, func() bool { return changes[Suspect] > 0 })
		w.runUntil(t, c.dead, 100*time.Millisecond, func() bool { return w.everywhere(id, Dead) })
		dead := w.now.Sub(start)
		w.run(time.Minute)
		t.Logf("%4d nodes, %2.0f %% loss: first suspected after %v, dead everywhere after %v, changes %v", c.count, 100*c.loss, first, dead, changes)
		require.LessOrEqual(t, dead, c.dead)
		require.True(t, w.everywhere(id, Dead))
		require.LessOrEqual(t, changes[Dead], c.count, "no back and forth")
	}
}

// A starved node, one that handles everything late, does not accuse the others.
// Without the local health it does.
func TestStarvedNodeDoesNotAccuse(t *testing.T) {
	starve := map[string]func(n *node){
		// The process runs for a moment every 8 s; what came in waits.
		"slow process": func(n *node) {
			n.frozen = func(now time.Time) time.Time {
				if phase := now.Sub(epoch) % (8 * time.Second); phase > 3*time.Millisecond {
					return now.Add(8*time.Second - phase)
				}
				return now
			}
		},
		// The process stands still for 30 s while a question is under way.
		"one stop of 30 s": func(n *node) {
			var until time.Time
			n.frozen = func(now time.Time) time.Time {
				if until.IsZero() && now.Sub(epoch) > 10*time.Second && len(n.probing) > 0 && n.probing[0].waiting {
					until = now.Add(30 * time.Second)
				}
				return until
			}
		},
	}
	for name, apply := range starve {
		for _, off := range []bool{false, true} {
			w := newWorld(3)
			w.cluster(60)
			for _, n := range w.nodes {
				n.health.off = off
			}
			slow := w.nodes[0]
			apply(slow)
			accusations := 0
			w.onChange = func(n *node, c Change) {
				if c.State != Alive && c.ID != slow.self.id {
					accusations++
				}
			}
			w.run(90 * time.Second)
			t.Logf("%s, health off %v: %d changes to suspect or dead of healthy nodes", name, off, accusations)
			if off {
				require.NotZero(t, accusations, "the test must be able to fail")
			} else {
				require.Zero(t, accusations)
			}
		}
	}
}

// A node whose messages come in late, though it ticks in time, has patience too.
func TestLateInput(t *testing.T) {
	for _, off := range []bool{false, true} {
		w := newWorld(3)
		w.cluster(20)
		late := w.nodes[0]
		late.health.off = off
		accusations := 0
		w.onChange = func(n *node, c Change) {
			if c.State != Alive && c.ID != late.self.id {
				accusations++
			}
		}
		w.run(10 * time.Second)
		w.holdInput(late, w.now.Add(9*time.Second))
		w.run(2 * time.Minute)
		t.Logf("health off %v: %d", off, accusations)
		if off {
			require.NotZero(t, accusations, "the test must be able to fail")
		} else {
			require.Zero(t, accusations)
		}
	}
}

// holdInput lets messages to n wait until then.
func (w *world) holdInput(n *node, until time.Time) {
	w.late = func(to *node, at time.Time) time.Time {
		if to == n && at.Before(until) {
			return until
		}
		return at
	}
}

// Each half of a partition sees the other die; after healing all are alive soon.
func TestPartitionHeals(t *testing.T) {
	w := newWorld(5)
	w.cluster(40)
	w.cut = func(from, to *node) bool { return from.index%2 != to.index%2 }
	w.run(2 * time.Minute)
	for _, n := range w.nodes {
		require.Equal(t, 20, n.count[Alive])
		require.Equal(t, 20, n.count[Dead])
	}
	w.cut = nil
	took := w.runUntil(t, 20*time.Second, 100*time.Millisecond, func() bool {
		for _, n := range w.nodes {
			if n.count[Alive] != len(w.nodes) {
				return false
			}
		}
		return true
	})
	t.Logf("all alive %v after healing", took)
}

// Reachability that is neither full nor symmetric. Where news still gets around,
// nobody is accused; where it does not, states settle and stay.
func TestPartialPartitions(t *testing.T) {
	type mask struct {
		name  string
		cut   func(from, to *node) bool
		quiet bool // no accusation at all
	}
	masks := []mask{
		{"one way cut between two", func(from, to *node) bool { return from.index == 0 && to.index == 1 }, true},
		{"two that cannot meet", func(from, to *node) bool { return from.index+to.index == 1 }, true},
		{"bridge", func(from, to *node) bool {
			return from.index != 2 && to.index != 2 && (from.index < 2) != (to.index < 2)
		}, true},
		{"star", func(from, to *node) bool { return from.index != 0 && to.index != 0 }, true},
		{"deaf", func(from, to *node) bool { return to.index == 0 }, false},
		{"mute", func(from, to *node) bool { return from.index == 0 }, false},
	}
	random := rand.New(rand.NewPCG(9, 9))
	for i := range 30 {
		var bad [7][7]bool
		for a := range bad {
			for b := range bad {
				bad[a][b] = random.IntN(100) < 30
			}
		}
		masks = append(masks, mask{fmt.Sprint("random ", i), func(from, to *node) bool { return bad[from.index][to.index] }, false})
	}
	for i, m := range masks {
		w := newWorld(uint64(i))
		w.cluster(7)
		w.run(10 * time.Second)
		w.cut = m.cut
		changes := w.tally()
		w.run(time.Minute) // to settle
		settling := changes[Alive] + changes[Suspect] + changes[Dead]
		clear(changes)
		const minutes = 4
		w.run(minutes * time.Minute)
		total := changes[Alive] + changes[Suspect] + changes[Dead]
		if m.quiet {
			require.Zero(t, settling+total, m.name)
		}
		if total > 0 || settling > 0 {
			t.Logf("%s: %d changes in the first minute, then %.1f per minute, by 7 nodes", m.name, settling, float64(total)/minutes)
		}
		require.LessOrEqual(t, total, minutes*7, m.name)
	}
}

// A node that goes up and down every 2 s disturbs nobody else and costs little.
func TestFlapping(t *testing.T) {
	measure := func(flap bool) (bytes uint64, others int) {
		w := newWorld(11)
		w.cluster(20)
		w.onChange = func(n *node, c Change) {
			if c.ID != w.nodes[0].self.id && c.Before != 0 {
				others++
			}
		}
		for range 150 {
			w.run(2 * time.Second)
			w.nodes[0].down = flap
			w.run(2 * time.Second)
			if flap {
				w.start(w.config(0))
				for _, n := range w.nodes[1:] {
					w.nodes[0].introduce(n.Gossip)
				}
			}
		}
		for _, n := range w.nodes[1:] {
			bytes += n.metrics.BytesOut
		}
		return bytes, others
	}
	calm, _ := measure(false)
	flapping, others := measure(true)
	t.Logf("bytes %d, with a flapping node %d", calm, flapping)
	require.Zero(t, others)
	require.Less(t, flapping, 2*calm)
}

// A node that was declared dead comes back at another address with a greater
// incarnation; or, after its clock was set back, with a smaller one.
func TestRestart(t *testing.T) {
	for _, back := range []uint64{0, 3_600_000} {
		w := newWorld(13)
		w.cluster(30)
		w.run(5 * time.Second)
		w.nodes[3].down = true
		id := w.nodes[3].self.id
		w.runUntil(t, time.Minute, time.Second, func() bool { return w.everywhere(id, Dead) })
		c := w.config(3)
		c.Addr, c.Seeds, c.Meta = "10.9.9.9:1", []string{w.nodes[4].self.addr}, []byte("back")
		c.Incarnation -= back
		w.start(c)
		took := w.runUntil(t, 10*time.Second, 100*time.Millisecond, func() bool {
			for _, n := range w.nodes {
				m := n.find([]byte(id))
				if m == nil || m.state != Alive || m.addr != c.Addr || string(m.meta) != "back" || len(n.sorted) != 30 {
					return false
				}
			}
			return true
		})
		t.Logf("clock set back %d ms: known everywhere after %v", back, took)
	}
}

// A node whose seed is not there yet asks for ever; a whole cluster comes up from
// one seed.
func TestSeeds(t *testing.T) {
	w := newWorld(17)
	seed := w.config(0)
	for i := 1; i < 100; i++ {
		c := w.config(i)
		c.Seeds = []string{seed.Addr, c.Addr}
		w.start(c)
	}
	w.run(10 * time.Minute)
	for _, n := range w.nodes {
		require.Len(t, n.sorted, 1)
	}
	seed.Incarnation = uint64(w.now.UnixMilli())
	w.start(seed)
	took := w.runUntil(t, 20*time.Second, 100*time.Millisecond, func() bool {
		for _, n := range w.nodes {
			if n.count[Alive] != 100 {
				return false
			}
		}
		return true
	})
	t.Logf("100 nodes from one seed: all know all after %v", took)
}

// Two islands that never met do so through a seed, though both have live peers.
func TestIslandsMeet(t *testing.T) {
	w := newWorld(19)
	for i := range 6 {
		c := w.config(i)
		c.Seeds = []string{w.config(i / 3 * 3).Addr, w.config(0).Addr}
		w.start(c)
	}
	w.cut = func(from, to *node) bool { return from.index/3 != to.index/3 }
	w.run(time.Minute)
	for _, n := range w.nodes {
		require.Len(t, n.sorted, 3)
	}
	w.cut = nil
	w.runUntil(t, 30*time.Second, time.Second, func() bool {
		for _, n := range w.nodes {
			if n.count[Alive] != 6 {
				return false
			}
		}
		return true
	})
}

// A forgotten member stays away, whatever others still tell and however it returns.
func TestForget(t *testing.T) {
	w := newWorld(23)
	w.cluster(10)
	id := w.nodes[9].self.id
	for _, n := range w.nodes[:5] {
		n.Forget(id)
		n.Forget(n.self.id)
	}
	w.run(time.Minute)
	c := w.config(9)
	c.Seeds = []string{w.nodes[0].self.addr}
	w.start(c)
	w.run(time.Minute)
	for i, n := range w.nodes[:9] {
		require.Equal(t, i >= 5, n.find([]byte(id)) != nil, n.self.id)
		require.Equal(t, Alive, n.state(w.nodes[8].self.id))
	}
}

// Jumps of the clock handed in do not look like silence.
func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour, 30 * time.Second} {
		w := newWorld(29)
		w.cluster(10)
		w.run(5 * time.Second)
		changes := w.tally()
		w.nodes[0].skew = jump
		w.run(2 * time.Minute)
		require.Empty(t, changes, jump)
	}
}

// The same events give the same bytes.
func TestDeterministic(t *testing.T) {
	history := func() (s []byte) {
		w := newWorld(31)
		w.loss = 0.2
		w.cluster(12)
		w.nodes[5].down = true
		w.trace = func(_ *node, body []byte) { s = append(s, body...) }
		w.run(time.Minute)
		return s
	}
	require.Equal(t, history(), history())
}
