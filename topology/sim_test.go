package topology

import (
	"bytes"
	"container/heap"
	"fmt"
	"hash"
	"hash/fnv"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/ring"
)

// A sim runs agents in one event loop with virtual time: messages are lost,
// repeated and reordered, agents crash between the steps of applying an effect.
type sim struct {
	empty  bool // nodes in the places of others have no data yet
	t      testing.TB
	rng    *rand.Rand
	now    time.Time
	nodes  []*simNode
	byAddr map[string]*simNode
	queue  events
	serial int
	loss   float64 // of messages; as many are repeated
	crash  float64 // of steps
	agreed map[uint64]*Epoch
	writes []uint64 // for each node that accepted a first write, its epoch then
	split  bool     // an epoch was agreed twice
	trace  hash.Hash64
}

type simNode struct {
	*sim
	self  Member
	name  string
	seeds []string
	agent *Agent
	down  bool
	lost  bool // for good, and its directory with it

	// Durable.
	chain []*Epoch
	state []byte

	data, fenced bool
	cut          map[string]bool // nodes that do not hear this one
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
	return &sim{t: t, rng: rand.New(rand.NewPCG(seed, 0)), now: time.Unix(1000, 0), byAddr: map[string]*simNode{}, agreed: map[uint64]*Epoch{}, trace: fnv.New64a()}
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
		Gone:    n.gone, Whole: func(Member) bool { return !n.empty }, TakenFor: 3 * time.Second,
	})
	require.NoError(n.t, err)
	n.down = false
	if len(n.seeds) > 0 && n.refused == nil {
		n.apply(n.agent.Join(n.now))
	}
}

// gone says that a lost node is gone, now and then that it is not sure of that, and never
// that another one is.
func (s *sim) gone(m Member) (gone, sure bool) {
	for _, n := range s.nodes {
		if n.self.Is(m) {
			return n.lost && s.rng.IntN(4) > 0, !n.down
		}
	}
	return false, true
}

// lose ends n for good, and starts a node with its name, address and an empty directory.
func (s *sim) lose(n *simNode) *simNode {
	n.lost, n.down = true, true
	var seeds []string
	for _, o := range s.nodes {
		if o != n {
			seeds = append(seeds, o.self.Addr)
		}
	}
	return s.add(n.self.ID, seeds...)
}

func (n *simNode) crashes() bool { return n.crash > 0 && n.rng.Float64() < n.crash }

// persist keeps what an effect says and checks that no epoch is agreed twice.
func (n *simNode) persist(learned []*Epoch, state []byte) {
	for _, e := range learned {
		if o, ok := n.agreed[e.Number]; ok && o.Hash() != e.Hash() {
			n.split = true
		}
		n.agreed[e.Number] = e
		n.chain = append(n.chain, e)
	}
	if state != nil {
		n.state = state
	}
}

// write has the node accept a write, if it may.
func (n *simNode) write() {
	if !n.down && !n.fenced && !n.data && n.agent.Current() != nil {
		n.data = true
		n.writes = append(n.writes, n.agent.Current().Number)
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
		if to != nil && n.cut[to.self.ID] {
			continue
		}
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
		fmt.Fprint(s.trace, e.at.UnixNano(), n.self.ID, e.body)
		switch {
		case bytes.Equal(e.body, []byte("start")):
			if n.down && !n.lost {
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
	s.now = end
	return done()
}

// settled reports whether all nodes that were not refused are up, unfenced members of
// one newest epoch that has all of them.
func (s *sim) settled() bool {
	members := 0
	for _, n := range s.nodes {
		if n.refused == nil && !n.lost {
			members++
		}
	}
	newest := uint64(0)
	for _, n := range s.nodes {
		if n.lost {
			continue
		}
		if n.down {
			return false
		}
		if n.refused != nil {
			continue
		}
		e := n.agent.Current()
		if e == nil || len(e.Members) != members || e.index(n.self) < 0 || newest != 0 && e.Number != newest || n.agent.Fenced() {
			return false
		}
		newest = e.Number
	}
	return true
}

// settle runs until settled, with crashes at first and gossip now and then.
func (s *sim) settle() bool {
	for range 30 {
		if s.run(10*time.Second, s.settled) {
			return true
		}
		s.hears()
		s.crash = 0
	}
	return false
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

// check verifies what must hold whatever happened.
func (s *sim) check() {
	require.False(s.t, s.split, "an epoch is agreed twice")
	for _, n := range s.nodes {
		if n.lost { // in the middle of something, perhaps
			continue
		}
		require.Equal(s.t, len(n.chain), len(n.agent.Chain(0)))
		var prev *Epoch
		var hash [32]byte
		for _, e := range n.chain {
			require.True(s.t, e.follows(prev, hash))
			require.Equal(s.t, s.agreed[e.Number].Hash(), e.Hash())
			if prev != nil && len(e.Members) > len(prev.Members) {
				for _, w := range s.writes {
					require.GreaterOrEqual(s.t, w, e.Number, "a write was accepted before a join")
				}
			}
			prev, hash = e, e.Hash()
			require.Equal(s.t, n.fenced, n.agent.Fenced())
		}
	}
}
