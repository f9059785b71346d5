package topology

import (
	"bytes"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/ring"
)

// A sim runs agents in one event loop with virtual time: messages are lost,
// repeated and reordered, agents crash between the steps of applying an effect.
type sim struct {
	t      testing.TB
	rng    *rand.Rand
	now    time.Time
	nodes  []*simNode
	byAddr map[string]*simNode
	queue  events
	serial int
	loss   float64 // of messages; as many are repeated
	crash  float64 // of steps
	agreed map[uint64][32]byte
}

type simNode struct {
	*sim
	self  Member
	name  string
	seeds []string
	agent *Agent
	down  bool

	// Durable.
	chain []*Epoch
	state []byte

	data, fenced bool
	refused      error
	joined       bool
}

type event struct {
	at     time.Time
	serial int
	to     *simNode
	body   []byte // nil: a tick
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].serial < q[j].serial
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

func newSim(t testing.TB, seed uint64) *sim {
	return &sim{t: t, rng: rand.New(rand.NewPCG(seed, 0)), now: time.Unix(1000, 0), byAddr: map[string]*simNode{}, agreed: map[uint64][32]byte{}}
}

const simName = "orchard"

// add starts a node. The first one forms the cluster, the others join.
func (s *sim) add(id string, seeds ...string) *simNode {
	n := &simNode{sim: s, name: simName, seeds: seeds,
		self: Member{Node: ring.Node{ID: id, Weight: 1}, Addr: id + ":1", UID: s.rng.Uint64() | 1}}
	if len(seeds) == 0 {
		e, err := Bootstrap([16]byte{1}, simName, n.self, 16, 3, false)
		require.NoError(s.t, err)
		n.persist([]*Epoch{e}, nil)
	}
	s.nodes = append(s.nodes, n)
	s.byAddr[n.self.Addr] = n
	n.start()
	s.push(0, n, nil)
	return n
}

func (s *sim) push(after time.Duration, to *simNode, body []byte) {
	s.serial++
	heap.Push(&s.queue, event{s.now.Add(after), s.serial, to, body})
}

func (n *simNode) start() {
	var err error
	n.fenced = false
	n.agent, err = NewAgent(Config{
		Self: n.self, Name: n.name, State: n.state, Chain: n.chain, Seed: n.rng.Uint64(),
		Seeds:   func() []string { return n.seeds },
		Fence:   func() bool { n.fenced = true; return n.data },
		Unfence: func() { n.fenced = false },
	})
	require.NoError(n.t, err)
	n.down = false
	if len(n.seeds) > 0 && n.refused == nil {
		n.apply(n.agent.Join(n.now))
	}
}

func (n *simNode) crashes() bool { return n.crash > 0 && n.rng.Float64() < n.crash }

// persist keeps what an effect says and checks that no epoch is agreed twice.
func (n *simNode) persist(learned []*Epoch, state []byte) {
	for _, e := range learned {
		if h, ok := n.agreed[e.Number]; ok {
			require.Equal(n.t, h, e.Hash(), "epoch %d is agreed twice", e.Number)
		}
		n.agreed[e.Number] = e.Hash()
		n.chain = append(n.chain, e)
	}
	if state != nil {
		n.state = state
	}
}

func (n *simNode) apply(fx Effects) {
	require.False(n.t, fx.State != nil && len(fx.Learned) > 0)
	if n.crashes() {
		n.stop()
		return
	}
	n.persist(fx.Learned, fx.State)
	n.joined = n.joined || fx.Joined
	if fx.Refused != nil {
		n.refused = fx.Refused
	}
	for _, m := range fx.Send {
		if n.crashes() {
			n.stop()
			return
		}
		to := n.byAddr[m.Addr]
		for copies := 0; to != nil && (copies == 0 || n.rng.Float64() < n.loss); copies++ {
			if n.rng.Float64() >= n.loss {
				n.push(time.Duration(n.rng.Int64N(int64(60*time.Millisecond))), to, m.Body)
			}
		}
	}
}

// stop loses everything volatile; the node comes back after a while.
func (n *simNode) stop() {
	n.down = true
	n.push(time.Duration(n.rng.Int64N(int64(2*time.Second))), n, []byte("start"))
}

// run goes on until done or the virtual time is over.
func (s *sim) run(limit time.Duration, done func() bool) bool {
	end := s.now.Add(limit)
	for len(s.queue) > 0 && !s.queue[0].at.After(end) {
		e := heap.Pop(&s.queue).(event)
		s.now = e.at
		n := e.to
		switch {
		case bytes.Equal(e.body, []byte("start")):
			if n.down {
				n.start()
			}
		case e.body == nil:
			if !n.down {
				n.apply(n.agent.Tick(s.now))
			}
			s.push(50*time.Millisecond, n, nil)
		case !n.down:
			n.apply(n.agent.Step(s.now, e.body))
		}
		if done() {
			return true
		}
	}
	return done()
}

// settled reports whether all nodes are up members of one chain that has all of them.
func (s *sim) settled() bool {
	for _, n := range s.nodes {
		if n.down {
			return false
		}
		e := n.agent.Current()
		if e == nil || len(e.Members) != len(s.nodes) || e.Number != s.nodes[0].agent.Current().Number || n.agent.Fenced() {
			return false
		}
	}
	return true
}

// hears stands for gossip: it tells every node the newest epoch.
func (s *sim) hears() {
	for _, n := range s.nodes {
		for _, o := range s.nodes {
			if e := o.agent.Current(); e != nil && !n.down && !o.down {
				n.apply(n.agent.Heard(s.now, o.self.Addr, e.Number))
			}
		}
	}
}

func (s *sim) checkChains() {
	for _, n := range s.nodes {
		require.Equal(s.t, len(n.chain), len(n.agent.Chain(0)))
		var prev *Epoch
		var hash [32]byte
		for i, e := range n.chain {
			require.True(s.t, e.follows(prev, hash))
			require.Equal(s.t, s.nodes[0].chain[i].Hash(), e.Hash())
			prev, hash = e, e.Hash()
		}
	}
}

func TestJoinConcurrently(t *testing.T) {
	seeds := 60
	if torture {
		seeds = 5000
	}
	epochs := 0
	for seed := range uint64(seeds) {
		s := newSim(t, seed)
		s.loss = []float64{0, 0.05, 0.2, 0.4}[seed%4]
		s.add("n0")
		for i := 1; i <= 2+int(seed/4)%5; i++ {
			if seed%3 == 0 { // all ask the first
				s.add(fmt.Sprint("n", i), "n0:1")
			} else { // any asks any other, itself too
				s.add(fmt.Sprint("n", i), "n0:1", fmt.Sprint("n", i, ":1"), fmt.Sprint("n", i-1, ":1"))
			}
		}
		s.crash = []float64{0, 0.005, 0.02}[seed%3]
		ok := false
		for range 30 {
			if ok = s.run(10*time.Second, s.settled); ok {
				break
			}
			s.hears()
			s.crash = 0
		}
		require.True(t, ok, "seed %d does not settle", seed)
		s.checkChains()
		epochs += len(s.nodes[0].chain)
	}
	t.Logf("%d clusters, %.1f epochs each", seeds, float64(epochs)/float64(seeds))
}
