package gossip

import (
	"math"
	"slices"
	"time"
)

// A probe is the question "are you there?", put to one member. Any first-hand
// news of the member answers it: its ack, anything else it says that is not old,
// or a helper's vouch (Das et al. 2002, section 3.1).
type probe struct {
	waiting  bool
	helped   bool          // a helper answered, so this node's own link works
	nonce    uint64        // names the question in acks and vouches; 0: none asked
	asked    time.Duration // when it was last put
	verified time.Duration // until when it need not be verified again
	doubt    time.Duration // since when there is neither an answer nor news from others
}

// Limits of probing.
const (
	maxProbing = 32 // unanswered probes pursued at a time
	maxHelped  = 8  // of them, how many go to helpers per round
	helpers    = 3  // asked per probe
	maxRelays  = 64 // probes for others under way; the oldest is dropped
)

// A relay is a probe made for another node.
type relay struct {
	nonce  uint64 // of our ping
	target string
	to     string // who asked: address, and
	theirs uint64 // the nonce of its question
}

// ask notes that a question is put to m.
func (g *Gossip) ask(m *member) {
	if !m.waiting {
		m.nonce = g.random.Uint64() | 1
		m.doubt = g.clock.elapsed
		m.helped = false
		if m.state != Dead && len(g.probing) < maxProbing {
			m.waiting = true
			g.probing = append(g.probing, m)
		}
	}
	m.asked = g.clock.elapsed
}

// ping probes m with a message of at most limit bytes that tells m what this node
// believes about it, so that it can refute.
func (g *Gossip) ping(m *member, limit int) {
	g.ask(m)
	b := appendEntry(g.open(kindPing, m.nonce, ""), m, false)
	if limit > 0 {
		b = g.appendDigest(b, limit, m)
	}
	g.send(m.addr, b)
}

// nextInOrder returns the next member to probe: everybody's turn comes once per
// shuffle, so the time until a failure is noticed is bounded (section 4.3).
func (g *Gossip) nextInOrder() *member {
	for range 2 {
		for len(g.order) > 0 {
			m := g.order[0]
			g.order = g.order[1:]
			if m.state != Dead {
				return m
			}
		}
		for _, m := range g.sorted {
			if m != g.self && m.state != Dead {
				g.order = append(g.order, m)
			}
		}
		g.random.Shuffle(len(g.order), func(i, j int) { g.order[i], g.order[j] = g.order[j], g.order[i] })
	}
	return nil
}

// randomMember returns a random live member other than this node and skip, or
// nil when a few draws find none.
func (g *Gossip) randomMember(skip ...*member) *member {
	for range 8 {
		m := g.sorted[g.random.IntN(len(g.sorted))]
		if m != g.self && m.state == Alive && !slices.Contains(skip, m) {
			return m
		}
	}
	return nil
}

// askHelpers lets others probe the members that have not answered in time.
func (g *Gossip) askHelpers() {
	for _, m := range g.probing[:min(len(g.probing), maxHelped)] {
		if !m.waiting {
			continue
		}
		skip := []*member{m}
		for range helpers {
			h := g.randomMember(skip...)
			if h == nil {
				break
			}
			skip = append(skip, h)
			g.send(h.addr, appendEntry(g.open(kindAsk, m.nonce, m.id), m, false))
		}
		m.helped = m.helped || len(skip) == 1 // nobody to ask: no verdict on ourselves
	}
}

// judgeProbes ends the round for the probes under way: the answered ones are
// done, a member silent for too long becomes suspect, the others are asked again.
func (g *Gossip) judgeProbes() {
	worse := g.health.late || g.accused
	g.health.late, g.accused = false, false
	patience := g.health.patience(g.config.suspectAfter())
	g.probing = slices.DeleteFunc(g.probing, func(m *member) bool {
		switch {
		case !m.waiting:
			g.health.better()
			return true
		case m.state == Dead:
			m.waiting = false
			return true
		}
		worse = worse || !m.helped
		m.helped = false
		if m.state == Alive && g.clock.elapsed-m.doubt >= patience {
			g.adopt(m, version{m.incarnation, m.heartbeat, Suspect})
		}
		return false
	})
	if worse {
		g.health.worse()
	}
}

// judgeSuspects declares dead who has been suspect for too long. The time grows
// with the cluster, as does the time a refutation needs to come around.
func (g *Gossip) judgeSuspects() {
	if g.count[Suspect] == 0 {
		return
	}
	factor := max(1, math.Log10(float64(len(g.sorted))))
	wait := g.health.patience(time.Duration(float64(g.config.suspectAfter()) * factor))
	for _, m := range g.sorted {
		if m.state == Suspect && g.clock.elapsed-m.suspectAt >= wait {
			g.adopt(m, version{m.incarnation, m.heartbeat, Dead})
		}
	}
}

// relay probes the member named by an ask for the one who asked.
func (g *Gossip) relay(h *header) {
	m := g.find(h.about)
	if m == nil || m == g.self {
		return
	}
	if len(g.relays) == maxRelays {
		g.relays = slices.Delete(g.relays, 0, 1)
	}
	nonce := g.random.Uint64() | 1
	g.relays = append(g.relays, relay{nonce: nonce, target: m.id, to: string(h.from.addr), theirs: h.nonce})
	g.send(m.addr, appendEntry(g.open(kindPing, nonce, ""), m, false))
}

// acked handles the answer to a probe of our own, of a helper, or for another.
func (g *Gossip) acked(h *header) {
	for i, r := range g.relays {
		if r.nonce == h.nonce && r.target == string(h.from.id) {
			g.relays = slices.Delete(g.relays, i, i+1)
			b := g.open(kindVouch, r.theirs, r.target)
			if m := g.find(h.from.id); m != nil {
				b = appendEntry(b, m, m.bodyAt > 0)
			}
			g.send(r.to, b)
			return
		}
	}
	for _, m := range g.probing {
		if m.nonce == h.nonce && m.id != string(h.from.id) {
			m.helped = true
		}
	}
}

// vouched handles a helper's word that a member has answered it.
func (g *Gossip) vouched(h *header) {
	if m := g.find(h.about); m != nil && m.waiting && m.nonce == h.nonce {
		g.answered(m)
	}
}

func (g *Gossip) answered(m *member) {
	m.waiting = false
	m.seen = g.now
}
