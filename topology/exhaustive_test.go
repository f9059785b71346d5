package topology

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// The search below walks every state that two proposers and three acceptors with two
// values can reach over the real cores: messages delivered in any order, any number of
// times or never, restarts at any moment, attempts abandoned and begun again. Proposer
// i lives at acceptor i; a restart leaves it what the acceptor has, which is durable.
// What is sent stays in the network for good, so a state is small and comparable.
const (
	paxosAcceptors = 3
	paxosProposers = 2
	paxosRounds    = 3 // per proposer, at most
	paxosBallots   = paxosRounds * paxosProposers
)

// A ballot is numbered 2*(round-1)+proposer+1, 0 is none; values are 1 and 2, 0 is none.
type paxosWorld struct {
	acc [paxosAcceptors]struct{ promised, accepted, value uint8 }
	pro [paxosProposers]struct {
		ballot, best, bestValue, value uint8 // ballot 0: not proposing
		promised, accepted             uint8 // sets of acceptors
	}
	prepare  uint8                                   // set of ballots sent to all
	accept   [paxosBallots]uint8                     // set of values sent to all, by ballot
	promise  [paxosBallots][paxosAcceptors][2]uint16 // sets of ballots reported as accepted, for value 1 and 2; bit 0 of the first: none
	accepted [paxosBallots]uint8                     // set of acceptors that answered
	votes    [paxosBallots][3]uint8                  // sets of acceptors that accepted, by value
}

func toBallot(n uint8) ballot {
	if n == 0 {
		return ballot{}
	}
	return ballot{round: uint64(n-1)/paxosProposers + 1, uid: uint64(n-1)%paxosProposers + 1}
}

func fromBallot(b ballot) uint8 {
	if b == (ballot{}) {
		return 0
	}
	return uint8((b.round-1)*paxosProposers + b.uid)
}

func toValue(v uint8) []byte {
	if v == 0 {
		return nil
	}
	return []byte{v}
}

func fromValue(b []byte) uint8 {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

type paxosSearch struct {
	rounds  [paxosProposers]uint8
	all     [paxosProposers]bool // needs all promises for its own value
	forget  bool                 // planted: an acceptor forgets its promise at a restart
	seen    map[paxosWorld]struct{}
	stack   []paxosWorld
	chosen  [3]int // states in which a value is chosen
	failure string
}

func (w *paxosWorld) acceptor(i int) *acceptor {
	a := w.acc[i]
	return &acceptor{promised: toBallot(a.promised), accepted: toBallot(a.accepted), value: toValue(a.value)}
}

func (w *paxosWorld) setAcceptor(i int, a *acceptor) {
	w.acc[i].promised, w.acc[i].accepted, w.acc[i].value = fromBallot(a.promised), fromBallot(a.accepted), fromValue(a.value)
}

func (s *paxosSearch) proposer(w *paxosWorld, i int) *proposer {
	p := w.pro[i]
	return &proposer{ballot: toBallot(p.ballot), n: paxosAcceptors, all: s.all[i], best: toBallot(p.best), bestValue: toValue(p.bestValue),
		value: toValue(p.value), promised: set{uint64(p.promised)}, accepted: set{uint64(p.accepted)}}
}

func (w *paxosWorld) setProposer(i int, p *proposer) {
	q := &w.pro[i]
	q.ballot, q.best, q.bestValue, q.value = fromBallot(p.ballot), fromBallot(p.best), fromValue(p.bestValue), fromValue(p.value)
	q.promised, q.accepted = uint8(p.promised[0]), uint8(p.accepted[0])
}

// vote has acceptor i accept, at itself.
func (w *paxosWorld) vote(i int, b, v uint8) bool {
	a := w.acceptor(i)
	if !a.accept(toBallot(b), toValue(v)) {
		return false
	}
	w.setAcceptor(i, a)
	w.votes[b-1][v] |= 1 << i
	return true
}

// advance is what a proposer does after each promise.
func (s *paxosSearch) advance(w *paxosWorld, i int, p *proposer) {
	must, ok := p.ready()
	if ok {
		v, b := fromValue(must), fromBallot(p.ballot)
		if v == 0 {
			v = uint8(i + 1)
		}
		if !w.vote(i, b, v) {
			w.pro[i] = paxosWorld{}.pro[i] // gives up
			return
		}
		p.value = toValue(v)
		p.accept(i)
		w.accept[b-1] |= 1 << v
	}
	w.setProposer(i, p)
}

func (s *paxosSearch) reach(w paxosWorld) {
	w.tidy()
	if _, ok := s.seen[w]; ok {
		return
	}
	s.seen[w] = struct{}{}
	s.stack = append(s.stack, w)
	var chosen [3]bool
	for b := range w.votes {
		for v := range w.votes[b] {
			if w.votes[b][v] == 3 || w.votes[b][v] == 5 || w.votes[b][v] == 6 || w.votes[b][v] == 7 {
				chosen[v] = true
			}
		}
	}
	for v := range chosen {
		if chosen[v] {
			s.chosen[v]++
		}
	}
	switch {
	case chosen[0]:
		s.failure = "validity: a value nobody proposed is chosen"
	case chosen[1] && chosen[2]:
		s.failure = "agreement: two values are chosen"
	}
}

// tidy removes messages that cannot change anything any more: questions below every
// promise, answers to a ballot that its proposer has left.
func (w *paxosWorld) tidy() {
	for b := uint8(1); b <= paxosBallots; b++ {
		owner := int(b-1) % paxosProposers
		open := false
		for i, a := range w.acc {
			open = open || i != owner && a.promised <= b
		}
		if !open {
			w.prepare &^= 1 << b
			w.accept[b-1] = 0
		}
		if w.pro[owner].ballot != b {
			w.promise[b-1] = [paxosAcceptors][2]uint16{}
			w.accepted[b-1] = 0
		}
	}
}

// expand reaches every state one event away from w.
func (s *paxosSearch) expand(w paxosWorld) {
	for i := range paxosProposers { // a new attempt, giving up one under way
		round := (w.acc[i].promised+paxosProposers-1)/paxosProposers + 1
		if round > s.rounds[i] {
			continue
		}
		n, a := w, w.acceptor(i)
		p := &proposer{ballot: ballot{uint64(round), uint64(i + 1)}, n: paxosAcceptors, all: s.all[i], promised: set{0}, accepted: set{0}}
		a.prepare(p.ballot)
		n.setAcceptor(i, a)
		p.promise(i, a.accepted, a.value)
		n.prepare |= 1 << fromBallot(p.ballot)
		s.advance(&n, i, p)
		s.reach(n)
	}
	for i := range paxosAcceptors { // restarts
		n := w
		if i < paxosProposers {
			n.pro[i] = paxosWorld{}.pro[i]
		}
		if s.forget {
			n.acc[i].promised = n.acc[i].accepted
		}
		s.reach(n)
	}
	for b := uint8(1); b <= paxosBallots; b++ {
		owner := int(b-1) % paxosProposers
		for i := range paxosAcceptors {
			if i != owner {
				s.deliver(w, b, owner, i)
			}
		}
	}
}

// deliver reaches the states after each message of ballot b between its owner and i.
func (s *paxosSearch) deliver(w paxosWorld, b uint8, owner, i int) {
	if w.prepare>>b&1 == 1 {
		n, a := w, w.acceptor(i)
		if a.prepare(toBallot(b)) {
			n.setAcceptor(i, a)
			n.promise[b-1][i][max(fromValue(a.value), 1)-1] |= 1 << fromBallot(a.accepted)
			s.reach(n)
		}
	}
	for v := uint8(1); v <= 2; v++ {
		if w.accept[b-1]>>v&1 == 1 {
			n := w
			if n.vote(i, b, v) {
				n.accepted[b-1] |= 1 << i
				s.reach(n)
			}
		}
		for acc := uint8(0); acc <= paxosBallots; acc++ {
			if w.promise[b-1][i][v-1]>>acc&1 == 1 && w.pro[owner].ballot == b {
				n, p := w, s.proposer(&w, owner)
				value := toValue(v)
				if acc == 0 {
					value = nil
				}
				p.promise(i, toBallot(acc), value)
				s.advance(&n, owner, p)
				s.reach(n)
			}
		}
	}
	if w.accepted[b-1]>>i&1 == 1 && w.pro[owner].ballot == b {
		n, p := w, s.proposer(&w, owner)
		chosen := p.accept(i)
		n.setProposer(owner, p)
		if v := fromValue(p.value); chosen && w.votes[b-1][v]&(w.votes[b-1][v]-1) == 0 {
			s.failure = "a proposer takes a value for chosen that no majority accepted"
		}
		s.reach(n)
	}
}

func (s *paxosSearch) run() {
	s.seen = make(map[paxosWorld]struct{})
	s.reach(paxosWorld{})
	for len(s.stack) > 0 && s.failure == "" {
		w := s.stack[len(s.stack)-1]
		s.stack = s.stack[:len(s.stack)-1]
		s.expand(w)
	}
}

func TestPaxosExhaustive(t *testing.T) {
	spaces := [][paxosProposers]uint8{{1, 1}, {2, 1}, {1, 2}, {2, 2}}
	if torture {
		spaces = append(spaces, [paxosProposers]uint8{3, 2})
	}
	for _, rounds := range spaces {
		for _, all := range [][paxosProposers]bool{{false, false}, {true, false}, {true, true}} {
			t.Run(fmt.Sprintf("rounds=%v/all=%v", rounds, all), func(t *testing.T) {
				s := &paxosSearch{rounds: rounds, all: all}
				s.run()
				require.Empty(t, s.failure)
				t.Logf("%d states; value 1 chosen in %d, value 2 in %d", len(s.seen), s.chosen[1], s.chosen[2])
				require.NotZero(t, s.chosen[1])
				require.NotZero(t, s.chosen[2])
			})
		}
	}
}

// The search finds the split when an acceptor keeps its promises in memory only.
func TestPaxosForgottenPromise(t *testing.T) {
	s := &paxosSearch{rounds: [paxosProposers]uint8{2, 1}, forget: true}
	s.run()
	require.Equal(t, "agreement: two values are chosen", s.failure)
	t.Logf("found after %d states", len(s.seen))
}
