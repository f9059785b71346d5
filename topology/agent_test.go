package topology

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/ring"
)

// cluster forms a cluster of count nodes under perfect conditions.
func cluster(t testing.TB, seed uint64, count int) *sim {
	s := newSim(t, seed)
	s.add("n0")
	for i := 1; i < count; i++ {
		s.add(fmt.Sprint("n", i), "n0:1")
	}
	require.True(t, s.settle())
	return s
}

// storm forms a cluster while messages get lost and nodes crash.
func storm(t testing.TB, seed uint64) *sim {
	s := newSim(t, seed)
	s.loss = []float64{0, 0.05, 0.2, 0.4}[seed%4]
	s.add("n0")
	for i := 1; i <= 2+int(seed/4)%5; i++ {
		if seed%3 == 0 { // all ask the first
			s.add(fmt.Sprint("n", i), "n0:1")
		} else { // or also others that are joining themselves
			s.add(fmt.Sprint("n", i), "n0:1", fmt.Sprint("n", i, ":1"), fmt.Sprint("n", i-1, ":1"))
		}
	}
	s.crash = []float64{0, 0.005, 0.02, 0.05, 0.1}[seed%5]
	return s
}

func seeds(t testing.TB, few, many uint64) uint64 {
	if torture {
		return many
	}
	return few
}

func TestJoinConcurrently(t *testing.T) {
	count, epochs := seeds(t, 200, 20000), 0
	for seed := range count {
		s := storm(t, seed)
		require.True(t, s.settle(), "seed %d does not settle", seed)
		s.check()
		epochs += len(s.nodes[0].chain)
	}
	t.Logf("%d clusters, %.1f epochs each", count, float64(epochs)/float64(count))
}

// Nodes lose their directories for good, as many as leave a majority, and others with
// their names and none take their places, whether there is data or not, while messages get
// lost and nodes crash. The lost ones have changed all that they owned, and nothing else.
func TestLostDirectories(t *testing.T) {
	lost := 0
	for seed := range seeds(t, 200, 20000) {
		s := storm(t, seed)
		require.True(t, s.settle(), "seed %d does not settle", seed)
		before := s.nodes[0].agent.Current()
		s.crash = []float64{0, 0.02}[seed%2]
		most := (len(s.nodes) - 1) / 2
		victims := s.rng.Perm(len(s.nodes))[:1+s.rng.IntN(most)]
		heirs := map[string]*simNode{}
		for _, i := range victims {
			if seed%3 > 0 {
				s.nodes[i].write()
			}
			s.run(time.Duration(s.rng.Int64N(int64(time.Second))), func() bool { return false })
			heirs[s.nodes[i].self.ID] = s.lose(s.nodes[i])
			lost++
		}
		require.True(t, s.settle(), "seed %d does not settle", seed)
		s.check()
		for _, n := range s.nodes {
			if n.lost {
				continue
			}
			e := n.agent.Current()
			require.Equal(t, before.Ring.Nodes(), e.Ring.Nodes())
			for p := range e.Ring.Partitions() {
				changed := false
				for k, i := range e.Ring.Owners(p) {
					require.Equal(t, before.Ring.Owners(p)[k], i)
					changed = changed || heirs[e.Members[i].ID] != nil
				}
				require.Equal(t, changed, e.Ring.Changed(p) > before.Number)
			}
			for id, heir := range heirs {
				m, ok := e.Member(id)
				require.True(t, ok)
				require.Equal(t, heir.self.UID, m.UID)
			}
		}
	}
	t.Logf("%d directories lost", lost)
}

// Of the owners of a partition, no majority is new directories without their data: the
// second of two waits for the first, and one that is lost again does not.
func TestTooManyLost(t *testing.T) {
	for seed := range seeds(t, 50, 2000) {
		s := cluster(t, seed, 5)
		s.empty = true
		first, second := s.lose(s.nodes[1]), s.lose(s.nodes[2])
		member := func(n *simNode) bool { return n.agent.Current() != nil }
		require.True(t, s.run(time.Minute, func() bool { return member(first) || member(second) }))
		if member(second) {
			first, second = second, first
		}
		require.False(t, s.run(time.Minute, func() bool { return member(second) }))
		require.NoError(t, second.refused)
		require.ErrorIs(t, second.agent.Denied(), ErrTooManyLost)
		again := s.lose(first)
		require.True(t, s.run(time.Minute, func() bool { return member(again) }))
		require.False(t, s.run(time.Minute, func() bool { return member(second) }))
		s.empty = false
		require.True(t, s.run(time.Minute, func() bool { return member(second) }))
		require.True(t, s.settle())
		s.check()
	}
}

// Nobody takes the place of a node that is alive, or of one that it does not resemble.
func TestPlaceKept(t *testing.T) {
	s := cluster(t, 1, 3)
	namesake := s.add("n2", "n0:1")
	require.True(t, s.run(10*time.Second, func() bool { return namesake.refused != nil }))
	require.ErrorIs(t, namesake.refused, ErrNameTaken)
	require.NoError(t, namesake.agent.Denied(), "that was final")

	s = cluster(t, 2, 3)
	s.nodes[2].lost, s.nodes[2].down = true, true
	other := &simNode{sim: s, name: simName, seeds: []string{"n0:1"}, self: s.nodes[2].self}
	other.self.UID, other.self.Weight = 77, 2
	s.nodes, s.byAddr["n2:1"] = append(s.nodes, other), other
	other.start()
	s.push(0, other, nil)
	require.True(t, s.run(10*time.Second, func() bool { return other.refused != nil }))
	require.ErrorIs(t, other.refused, ErrIncompatible)
}

// Writes that begin at any time never end up behind a join: either the join is agreed
// before any node accepts one, or it is refused.
func TestJoinAgainstWrites(t *testing.T) {
	refused, joined := 0, 0
	for seed := range seeds(t, 200, 20000) {
		s := storm(t, seed)
		at := time.Duration(s.rng.Int64N(int64(3 * time.Second)))
		for !s.run(at, s.settled) && len(s.writes) == 0 {
			s.nodes[s.rng.IntN(len(s.nodes))].write()
			at = 20 * time.Millisecond
		}
		require.True(t, s.settle(), "seed %d does not settle", seed)
		s.check()
		for _, n := range s.nodes {
			if n.refused != nil {
				require.ErrorIs(t, n.refused, ErrHasData)
				refused++
			} else {
				joined++
			}
		}
	}
	t.Logf("%d nodes refused, %d members", refused, joined)
	require.NotZero(t, refused)
}

// The proposer alone learns the epoch that it and one more member accepted, and dies.
// The third, which is fenced, then decides that epoch again with the one that accepted,
// which has restarted: the same epoch comes out, and another if the state was not kept.
func TestAcceptedSurvives(t *testing.T) {
	for _, forget := range []bool{false, true} {
		s := cluster(t, 9, 3)
		s.add("n3", "n0:1")
		n0, n1, n2 := s.nodes[0], s.nodes[1], s.nodes[2]
		epoch := len(n0.chain)
		require.True(t, s.run(20*time.Second, func() bool { return n2.fenced }))
		n0.cut = map[string]bool{"n2": true, "n3": true}
		require.True(t, s.run(time.Second, func() bool { return len(n0.chain) > epoch }))
		n0.down, n1.down = true, true
		s.run(time.Second, func() bool { return false })
		if forget {
			n1.state = nil
		}
		n1.start()
		s.run(20*time.Second, func() bool { return len(n1.chain) > epoch && len(n2.chain) > epoch })
		require.Equal(t, forget, s.split)
		require.Equal(t, n1.chain[epoch].Hash(), n2.chain[epoch].Hash())
	}
}

func TestSameSeedSameTrace(t *testing.T) {
	trace := func() uint64 {
		s := storm(t, 7)
		require.True(t, s.settle())
		return s.trace.Sum64()
	}
	require.Equal(t, trace(), trace())
}

func TestJoinAfterData(t *testing.T) {
	for holder := range 3 {
		for asked := range 3 {
			s := cluster(t, 1, 3)
			s.nodes[holder].write()
			n := s.add("late", s.nodes[asked].self.Addr)
			require.True(t, s.run(20*time.Second, func() bool { return n.refused != nil }))
			require.ErrorIs(t, n.refused, ErrHasData)
			require.True(t, s.settle())
			require.Nil(t, n.agent.Current())
			require.Len(t, s.nodes[0].agent.Current().Members, 3)
			before := s.nodes[0].agent.Current().Number
			m := s.add("later", s.nodes[asked].self.Addr)
			require.True(t, s.run(20*time.Second, func() bool { return m.refused != nil }))
			require.Equal(t, before, s.nodes[0].agent.Current().Number, "a refusal costs no epoch")
			s.check()
		}
	}
}

// One member dies for good while the others are fenced for its proposal.
func TestFencedRecover(t *testing.T) {
	for seed := range seeds(t, 50, 2000) {
		s := cluster(t, seed, 3)
		s.add("n3", "n1:1")
		fenced := func() bool { return s.nodes[1].fenced && (s.nodes[0].fenced || s.nodes[2].fenced) }
		require.True(t, s.run(20*time.Second, fenced))
		dead := s.nodes[1]
		dead.down = true
		open := func() bool { return !s.nodes[0].fenced && !s.nodes[2].fenced }
		require.True(t, s.run(10*time.Second, open), "seed %d stays fenced", seed)
		s.nodes[3].seeds = append(s.nodes[3].seeds, "n0:1")
		dead.start()
		require.True(t, s.settle())
		s.check()
	}
}

// A join waits for a dead member, and costs neither fence nor epoch meanwhile.
func TestJoinWaitsForAll(t *testing.T) {
	s := cluster(t, 3, 3)
	s.nodes[2].down = true
	n := s.add("n3", "n0:1")
	epoch := s.nodes[0].agent.Current().Number
	require.False(t, s.run(30*time.Second, func() bool { return n.joined || s.nodes[0].fenced }))
	require.Equal(t, epoch, s.nodes[0].agent.Current().Number)
	s.nodes[2].start()
	require.True(t, s.settle())
	s.check()
}

// A member that never hears the proposer learns the epoch from the others.
func TestLaggingMember(t *testing.T) {
	s := cluster(t, 4, 3)
	s.nodes[0].cut = map[string]bool{"n2": true}
	require.False(t, s.run(5*time.Second, func() bool { return s.nodes[2].fenced }))
	s.add("n3", "n1:1")
	require.True(t, s.settle())
	s.check()
}

func TestRefusals(t *testing.T) {
	s := cluster(t, 5, 3)
	fail := func(n *simNode) error {
		s.run(20*time.Second, func() bool { return n.refused != nil || n.joined })
		return n.refused
	}
	imposter := s.add("n2", "n0:1")
	delete(s.byAddr, "n2:1")
	imposter.self.Addr = "other:1"
	s.byAddr["other:1"], s.byAddr["n2:1"] = imposter, s.nodes[2]
	imposter.start()
	require.ErrorIs(t, fail(imposter), ErrNameTaken)

	s = cluster(t, 5, 3)
	n := s.add("n4", "n0:1")
	n.name = "meadow"
	n.start()
	require.ErrorIs(t, fail(n), ErrWrongCluster)

	s = cluster(t, 5, 3)
	n = s.add("n4", "n0:1")
	n.self.Weight = -1
	n.start()
	require.ErrorIs(t, fail(n), ErrIncompatible)
}

// A member asks again, with the same directory, and is welcome without a new epoch.
func TestJoinAgain(t *testing.T) {
	s := cluster(t, 6, 3)
	n := s.nodes[2]
	epoch := n.agent.Current().Number
	n.chain, n.state, n.joined = nil, nil, false
	n.start()
	require.True(t, s.run(5*time.Second, func() bool { return n.joined }))
	require.Equal(t, epoch, n.agent.Current().Number)
	s.check()
}

// Two joiners with one id: one becomes a member, the other is told.
func TestJoinersWithOneName(t *testing.T) {
	for seed := range uint64(20) {
		s := cluster(t, seed, 2)
		a := s.add("twin", "n0:1")
		b := s.add("twin", "n1:1")
		b.self.Addr = "twin:2"
		s.byAddr["twin:1"], s.byAddr["twin:2"] = a, b
		b.start()
		require.True(t, s.run(20*time.Second, func() bool { return a.joined != b.joined && (a.refused != nil) != (b.refused != nil) }))
		s.check()
	}
}

// A chain that does not fit into one message arrives in pieces.
func TestLongChain(t *testing.T) {
	s := newSim(t, 8)
	s.loss = 0.2
	n := s.add("n0")
	e, err := Bootstrap([16]byte{1}, simName, n.self, 4096, 3, false)
	require.NoError(t, err)
	n.chain, s.agreed[1] = []*Epoch{e}, e
	size := 0
	for size < 3*chainBytes {
		e, err = e.next(nil)
		require.NoError(t, err)
		b, _ := e.AppendBinary(nil)
		size += len(b)
		n.persist([]*Epoch{e}, nil)
	}
	n.start()
	s.add("n1", "n0:1")
	require.True(t, s.settle())
	s.check()
}

func TestNewAgentChecks(t *testing.T) {
	self := Member{Node: ring.Node{ID: "a", Weight: 1}, Addr: "a:1", UID: 1}
	first, err := Bootstrap([16]byte{1}, simName, self, 16, 3, true)
	require.NoError(t, err)
	second, err := first.next([]Member{{Node: ring.Node{ID: "b", Weight: 1}, Addr: "b:1", UID: 2}})
	require.NoError(t, err)
	_, err = NewAgent(Config{Self: self, Name: simName, Chain: []*Epoch{second}})
	require.ErrorIs(t, err, ErrCorrupt)
	_, err = NewAgent(Config{Self: self, Name: "meadow", Chain: []*Epoch{first, second}})
	require.ErrorIs(t, err, ErrWrongCluster)
	_, err = NewAgent(Config{Self: Member{}, Name: simName})
	require.Error(t, err)
	a, err := NewAgent(Config{Self: self, Name: simName, Chain: []*Epoch{first, second}})
	require.NoError(t, err)
	_, err = NewAgent(Config{Self: self, Name: simName, Chain: []*Epoch{first}, State: a.state()})
	require.ErrorIs(t, err, ErrCorrupt, "the chain lost its end")
	state := a.state()
	for i := range state {
		bad := append([]byte(nil), state...)
		bad[i] ^= 1
		_, err = NewAgent(Config{Self: self, Name: simName, Chain: []*Epoch{first, second}, State: bad})
		require.ErrorIs(t, err, ErrCorrupt)
	}
}
