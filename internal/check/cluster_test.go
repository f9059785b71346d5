package check_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/internal/check"
	"example.com/kvstore/vclock"
)

// A cluster makes what nodes have left when all is well.
type cluster struct {
	*rand.Rand
	nodes []check.Remains
}

func newCluster(seed uint64) *cluster {
	c := &cluster{Rand: rand.New(rand.NewPCG(seed, 3))}
	for i := range 3 + c.IntN(3) {
		c.nodes = append(c.nodes, check.Remains{Node: fmt.Sprint("n", i), Held: map[string]check.Holding{}})
	}
	for k := range 5 + c.IntN(20) {
		key := fmt.Sprint("key", k)
		h := check.Holding{Dot: vclock.Dot{Stamp: c.Uint64N(1000), Actor: 1}, Tombstone: c.IntN(5) == 0}
		h.Bytes = fmt.Sprint(h.Dot, h.Tombstone, k)
		for _, n := range c.owners(key) {
			if !h.Tombstone || c.IntN(2) == 0 { // else it is forgotten
				c.node(n).Held[key] = h
			}
		}
	}
	return c
}

func (c *cluster) owners(key string) []string {
	var k int
	_, _ = fmt.Sscanf(key, "key%d", &k)
	var own []string
	for i := range 3 {
		own = append(own, c.nodes[(k+i)%len(c.nodes)].Node)
	}
	return own
}

func (c *cluster) node(name string) *check.Remains {
	return &c.nodes[slices.IndexFunc(c.nodes, func(n check.Remains) bool { return n.Node == name })]
}

// held gives a random owner and a key that it holds so.
func (c *cluster) held(tombstone bool) (*check.Remains, string) {
	for _, i := range c.Perm(len(c.nodes)) {
		var keys []string
		for key, h := range c.nodes[i].Held {
			if h.Tombstone == tombstone {
				keys = append(keys, key)
			}
		}
		if len(keys) > 0 {
			slices.Sort(keys)
			return &c.nodes[i], keys[c.IntN(len(keys))]
		}
	}
	return nil, ""
}

func TestConvergence(t *testing.T) {
	purge := func(c *cluster) {
		for _, n := range c.nodes {
			for key, h := range n.Held {
				if h.Tombstone {
					delete(n.Held, key)
				}
			}
		}
	}
	for _, p := range []struct {
		name   string
		after  check.Settled
		broken bool
		plant  func(c *cluster) bool
	}{
		{"clean", check.Exchanged, false, func(*cluster) bool { return true }},
		{"clean and purged", check.Purged, false, func(c *cluster) bool { purge(c); return true }},
		{"an owner lacks a value", check.Exchanged, true, func(c *cluster) bool {
			n, key := c.held(false)
			if n != nil {
				delete(n.Held, key)
			}
			return n != nil
		}},
		{"an owner has another value", check.Exchanged, true, func(c *cluster) bool {
			n, key := c.held(false)
			if n != nil {
				h := n.Held[key]
				h.Bytes += "'"
				n.Held[key] = h
			}
			return n != nil
		}},
		{"an owner has a value that the others deleted", check.Exchanged, true, func(c *cluster) bool {
			n, key := c.held(true)
			if n != nil {
				n.Held[key] = check.Holding{Bytes: "zombie"}
			}
			return n != nil
		}},
		{"a stray", check.Exchanged, true, func(c *cluster) bool {
			n, key := c.held(false)
			if n == nil {
				return false
			}
			for i := range c.nodes {
				if !slices.Contains(c.owners(key), c.nodes[i].Node) {
					c.nodes[i].Held[key] = n.Held[key]
					return true
				}
			}
			return false
		}},
		{"a hint", check.Exchanged, true, func(c *cluster) bool { c.nodes[c.IntN(len(c.nodes))].Hints = 1; return true }},
		{"a mark", check.Exchanged, true, func(c *cluster) bool { c.nodes[c.IntN(len(c.nodes))].Marks = 1; return true }},
		{"a tombstone is left", check.Purged, true, func(c *cluster) bool {
			n, key := c.held(true)
			if n == nil {
				return false
			}
			h := n.Held[key]
			purge(c)
			n.Held[key] = h
			return true
		}},
	} {
		t.Run(p.name, func(t *testing.T) {
			judged := 0
			for seed := uint64(1); judged < histories(); seed++ {
				c := newCluster(seed)
				if !p.plant(c) {
					require.Less(t, seed, uint64(200*histories()), "no place for the violation")
					continue
				}
				judged++
				violations := check.Convergence(c.nodes, c.owners, p.after)
				require.Equal(t, p.broken, len(violations) > 0, "seed %d: %v", seed, violations)
				for _, v := range violations {
					require.Equal(t, "K5", v.Rule)
				}
			}
		})
	}
}

func TestLiveness(t *testing.T) {
	const second = time.Second
	for _, p := range []struct {
		name   string
		broken bool
		plant  func(draw *rand.Rand, ops []check.Op, e *check.Expected)
	}{
		{"clean", false, func(*rand.Rand, []check.Op, *check.Expected) {}},
		{"too many calls fail", true, func(draw *rand.Rand, ops []check.Op, _ *check.Expected) {
			for i := range ops[:21] {
				ops[i].Outcome = check.Outcome(1 + draw.IntN(2))
			}
		}},
		{"calls are slow", true, func(_ *rand.Rand, ops []check.Op, _ *check.Expected) {
			for i := range ops[:30] {
				ops[i].End = ops[i].Start + second
			}
		}},
		{"there are few calls", true, func(_ *rand.Rand, ops []check.Op, _ *check.Expected) {
			for i := range ops[:21] {
				ops[i].Start += 100 * second
			}
		}},
		{"there are none", true, func(_ *rand.Rand, _ []check.Op, e *check.Expected) {
			e.Phases[0].From, e.Phases[0].To, e.Phases[0].Calls = 50*second, 60*second, 0
		}},
		{"a bound is passed", true, func(_ *rand.Rand, _ []check.Op, e *check.Expected) { e.Peaks[0].Value = 101 }},
		{"what should happen did not", true, func(_ *rand.Rand, _ []check.Op, e *check.Expected) { e.Sometimes["crash"] = 0 }},
	} {
		t.Run(p.name, func(t *testing.T) {
			for seed := range uint64(histories()) {
				draw := rand.New(rand.NewPCG(seed, 4))
				var ops []check.Op
				for range 100 {
					start := time.Duration(draw.Int64N(int64(10 * second)))
					ops = append(ops, check.Op{Start: start, End: start + time.Duration(draw.Int64N(int64(100*time.Millisecond)))})
				}
				for range 20 { // ten of a hundred may fail, and eleven be slow
					ops[50+draw.IntN(10)].Outcome = check.Unknown
					i := 80 + draw.IntN(10)
					ops[i].End = ops[i].Start + second
				}
				e := check.Expected{
					Phases:    []check.Phase{{Name: "calm", To: 10 * second, Calls: 80, Success: 0.9, Within: 100 * time.Millisecond, Quantile: 0.85}},
					Peaks:     []check.Peak{{Name: "queue", Value: draw.Int64N(101), Most: 100}},
					Sometimes: map[string]uint64{"crash": 1 + draw.Uint64N(5)},
				}
				p.plant(draw, ops, &e)
				violations := check.Liveness(ops, e)
				require.Equal(t, p.broken, len(violations) > 0, "seed %d: %v", seed, violations)
				for _, v := range violations {
					require.Equal(t, "K8", v.Rule)
				}
			}
		})
	}
}
