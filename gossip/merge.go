package gossip

import (
	"cmp"
	"slices"
	"time"
)

// Bounds on what is believed. Real news never exceeds them; a forged or wrapped
// counter must not be able to outrun its owner.
const (
	// maxAhead is how far an incarnation may lie, in milliseconds, beyond both
	// the known one and the present. Clocks may differ by as much.
	maxAhead = uint64(24 * time.Hour / time.Millisecond)
	// maxLeap is how far a heartbeat may lie beyond the known one: 12 days of
	// rounds at 1 s. A peer met again after a longer time is believed in person.
	maxLeap = 1 << 20
	// No counter of an honest member reaches these.
	maxHeartbeat   = 1 << 40
	maxIncarnation = 1 << 62
)

// relation says how an entry stands to what this node knows.
type relation uint8

const (
	equal  relation = iota // or adopted, or not believed: nothing to say
	behind                 // this node lacks a body the entry speaks of
	ahead                  // this node knows more
)

// Step handles a message and returns what to send. A malformed message changes
// nothing. msg may be reused when Step has returned.
func (g *Gossip) Step(now time.Time, msg []byte) []Message {
	g.observe(now)
	g.metrics.MessagesIn++
	g.metrics.BytesIn += uint64(len(msg))
	h, entries, err := decode(msg)
	if err != nil || string(h.from.id) == g.self.id || g.forgotten[string(h.from.id)] {
		g.metrics.Rejected++
		return nil
	}
	if h.kind == kindAck {
		g.believe(&h)
	}
	answer := kindDelta
	if h.kind == kindPing || h.kind == kindAsk {
		answer = kindAck
	}

	// A refutation found on the way goes into the answer's header, so the answer
	// is opened last.
	found := g.merge(nil, &h.from, h.kind)
	g.listen(&h)
	var e entry
	for entries.entry(&e) {
		found = g.merge(found, &e, h.kind)
	}

	switch h.kind {
	case kindAck:
		g.acked(&h)
	case kindVouch:
		g.vouched(&h)
	case kindAsk:
		g.relay(&h)
	}
	if answer == kindAck || len(found) > 0 {
		b := append(g.open(answer, h.nonce, ""), found...)
		if h.kind == kindPing {
			if known := uint64(len(g.sorted)); h.members < known-known/16 {
				b = g.appendMembers(b, replyBytes)
			} else {
				b = g.appendNews(b, digestBytes, nil)
			}
		}
		g.send(string(h.from.addr), b)
	}
	return g.take()
}

// believe takes a member at its word when it answers this node's own probe. The
// probe said what this node believed. An answer beyond the bounds is true all the
// same, and one below denies the belief: it was forged too high to be refuted.
func (g *Gossip) believe(h *header) {
	m, v := g.find(h.from.id), h.from.version
	if m == nil || m.nonce == 0 || m.nonce != h.nonce {
		return
	}
	denied := v.incarnation < m.incarnation || v.incarnation == m.incarnation && v.heartbeat+maxLeap < m.heartbeat
	if denied || m.addr != string(h.from.addr) && v.incarnation == m.incarnation || !g.plausible(m, &h.from) {
		g.note(m)
		m.addr = string(h.from.addr)
		m.bodyAt = 0 // the merge that follows asks for it
		g.adopt(m, v)
	}
}

// listen counts what a member says itself as a sign of life, unless it is old. One
// that speaks of another incarnation or address than is believed of it is asked:
// the message is old, or the belief false.
func (g *Gossip) listen(h *header) {
	m := g.find(h.from.id)
	switch {
	case m == nil:
	case h.kind == kindPing && (h.from.incarnation != m.incarnation || string(h.from.addr) != m.addr):
		g.verify(m, string(h.from.addr), m.version)
	case m.version == h.from.version:
		g.answered(m)
	}
}

// verify asks m in person where the word of others is not enough, and tells it
// what is said, so that it can refute. It asks at addr, as the address known may
// be as wrong as the rest.
func (g *Gossip) verify(m *member, addr string, said version) {
	if g.clock.elapsed < m.verified {
		return
	}
	m.verified = g.clock.elapsed + g.config.interval()/2
	g.ask(m)
	claim := member{id: m.id, version: said, bodyAt: min(m.bodyAt, said.heartbeat)}
	g.send(addr, appendEntry(g.open(kindPing, m.nonce, ""), &claim, false))
}

// merge learns e and appends to b what the sender should hear about that member.
// A ping is answered with all that is newer or wanted, an ack or a vouch with
// bodies and wants, a delta with bodies only: so every conversation ends.
func (g *Gossip) merge(b []byte, e *entry, k kind) []byte {
	rel := g.learn(e)
	if rel == equal || len(b) > replyBytes {
		return b
	}
	m := g.find(e.id)
	if rel == behind {
		switch {
		case k == kindDelta:
			return b
		case m == nil:
			return appendWant(b, e.id)
		}
		return appendEntry(b, m, false)
	}
	full := m.lacks(e.incarnation, e.bodyAt)
	if full && m.bodyAt > 0 || !full && m != g.self && (k == kindPing || k == kindAsk) {
		b = appendEntry(b, m, full)
	}
	return b
}

// learn takes e into the table, as far as it is news and believable.
func (g *Gossip) learn(e *entry) relation {
	m := g.find(e.id)
	switch {
	case m == g.self:
		return g.hearOfSelf(e)
	case g.forgotten[string(e.id)]:
		return equal
	case m == nil && e.incarnation == 0:
		return equal // wanted by one who heard of it elsewhere
	case !g.plausible(m, e):
		g.metrics.Rejected++
		if m != nil {
			g.verify(m, cmp.Or(string(e.addr), m.addr), e.version)
		}
		return equal
	case m == nil && !e.full:
		return behind
	case m == nil:
		g.meet(e)
		return equal
	}

	fresh := e.incarnation > m.incarnation || e.incarnation == m.incarnation && e.bodyAt > m.bodyAt
	order := e.compare(m.version)
	if fresh && e.full {
		g.note(m)
		m.body, m.bodyAt = body{string(e.addr), slices.Clone(e.meta)}, e.bodyAt
		g.tell(m)
	}
	if order > 0 && (e.full || e.incarnation == m.incarnation) {
		g.adopt(m, e.version)
	}
	switch {
	case fresh && !e.full:
		return behind
	case order < 0 || m.lacks(e.incarnation, e.bodyAt):
		return ahead
	}
	return equal
}

// plausible reports whether e keeps the bounds against m, which may be nil.
func (g *Gossip) plausible(m *member, e *entry) bool {
	known := uint64(max(0, g.now.UnixMilli()))
	heartbeat := uint64(maxHeartbeat)
	if m != nil {
		known = max(known, m.incarnation)
		if m != g.self && m.incarnation == e.incarnation {
			heartbeat = m.heartbeat + maxLeap
		}
	}
	ahead := maxAhead
	if m == g.self {
		ahead *= 2 // this node refutes what others, by other clocks and counters, believed
	}
	return e.incarnation <= known+ahead && e.heartbeat <= heartbeat
}

// hearOfSelf handles what others say about this node. Only this node raises its
// own incarnation: whatever stands above its own version, be it an accusation,
// news of a life before a restart, or a forgery, is outdone by a new incarnation.
// An accusation below is refuted by the heartbeat it lacks.
func (g *Gossip) hearOfSelf(e *entry) relation {
	s := g.self
	if e.state != Alive {
		g.accused = true
	}
	above := e.compare(s.version) > 0 || e.incarnation == s.incarnation && e.bodyAt > s.bodyAt
	switch {
	case above && !g.plausible(s, e):
		g.metrics.Rejected++
	case above:
		g.note(s)
		s.version = version{e.incarnation + 1, 1, Alive}
		s.bodyAt = 1
		g.metrics.Refutations++
	case e.version == s.version && e.bodyAt == s.bodyAt:
		return equal
	}
	return ahead
}

// meet adds a member that was not known.
func (g *Gossip) meet(e *entry) {
	if len(g.sorted) >= MaxMembers && !g.evict() {
		return
	}
	m := &member{
		id: string(e.id), body: body{string(e.addr), slices.Clone(e.meta)}, bodyAt: e.bodyAt,
		version: version{e.incarnation, e.heartbeat, 0}, seen: g.now,
	}
	g.insert(m)
	g.adopt(m, e.version)
}

// evict removes the member that was suspected longest ago and is dead.
func (g *Gossip) evict() bool {
	var oldest *member
	for _, m := range g.sorted {
		if m.state == Dead && (oldest == nil || m.suspectAt < oldest.suspectAt) {
			oldest = m
		}
	}
	if oldest != nil {
		g.remove(oldest)
	}
	return oldest != nil
}

// adopt gives m a new version.
func (g *Gossip) adopt(m *member, v version) {
	old := m.version
	if v.state == Alive && v.compare(old) > 0 {
		m.seen = g.now
		m.doubt = g.clock.elapsed
	}
	if v.state != old.state || v.incarnation != old.incarnation {
		g.note(m)
		g.count[old.state]--
		g.count[v.state]++
	}
	m.version = v
	if v.state == Suspect {
		m.suspectAt = g.clock.elapsed
	}
	if v.state != old.state || v.incarnation != old.incarnation || v.state != Alive {
		g.tell(m)
	}
}
