package gossip

import (
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Config is what a node brings along. It is copied; slices must not be modified
// afterwards.
type Config struct {
	ID          string   // 1 to MaxIDBytes bytes, unique in the cluster
	Addr        string   // where the others reach this node; 1 to MaxAddrBytes bytes
	Incarnation uint64   // greater at every start: Unix milliseconds of the start, or a persisted counter; 0 is taken as 1
	Seeds       []string // addresses to meet the cluster through, tried for ever
	Meta        []byte   // see SetMeta

	// Interval is the time between two rounds; default 1 s. News needs about
	// 2 + log2(members)/2 rounds; bytes per second are inverse to Interval.
	Interval time.Duration
	// SuspectAfter is how long a member's probes must stay unanswered until it is
	// suspect; default 5 s, and never below 3 Intervals. A suspect that does not
	// refute is dead after another SuspectAfter * max(1, log10(members)). Less finds
	// failures sooner and accuses more often in bad networks.
	SuspectAfter time.Duration

	Seed uint64 // of the node's random choices; mixed with ID
}

const (
	defaultInterval     = time.Second
	defaultSuspectAfter = 5 * time.Second
)

func (c *Config) interval() time.Duration {
	if c.Interval <= 0 {
		return defaultInterval
	}
	return c.Interval
}

func (c *Config) suspectAfter() time.Duration {
	d := c.SuspectAfter
	if d <= 0 {
		d = defaultSuspectAfter
	}
	return max(d, 3*c.interval())
}

// A Message is to be delivered to Addr, or lost: the protocol does not mind
// loss, delay, duplication or reordering. Body belongs to the caller.
type Message struct {
	Addr string
	Body []byte
}

// MaxMembers bounds the table. When it is full the longest-dead member makes
// room for a new one; without a dead one the new one is not learned.
const MaxMembers = 4096

// Gossip is one node's part in the protocol: a state machine without I/O, time
// or threads of its own. The same events in the same order give the same bytes.
// It is not safe for concurrent use: one goroutine owns it.
type Gossip struct {
	config Config
	clock  clock
	health health
	random *rand.Rand
	now    time.Time // the caller's time of the running event

	self      *member
	sorted    []*member     // the table: all members by id, this node included
	count     [Dead + 1]int // members by state
	forgotten map[string]bool

	round time.Duration // when the next round is due
	check time.Duration // when unanswered probes go to helpers; 0: nothing to check

	order   []*member // who is probed next, a shuffled table; may hold gone ones
	probing []*member // members with an unanswered probe
	relays  []relay

	news     []*member // what is told first, see news.go
	digestAt int       // where in sorted the next digest goes on
	foundAt  int       // where in sorted the last entry was about
	changed  []*member
	accused  bool // since the last round somebody held this node for suspect or dead

	out     []Message
	metrics Metrics
}

// New returns a node that knows itself only. It panics when ID, Addr or Meta
// break the limits of Config: the caller checks what comes from outside.
func New(c Config) *Gossip {
	switch {
	case len(c.ID) == 0 || len(c.ID) > MaxIDBytes:
		panic("gossip: Config.ID must have 1 to 128 bytes")
	case len(c.Addr) == 0 || len(c.Addr) > MaxAddrBytes:
		panic("gossip: Config.Addr must have 1 to 255 bytes")
	case len(c.Meta) > MaxMetaBytes:
		panic("gossip: Config.Meta must not exceed 512 bytes")
	}
	h := fnv.New64a()
	h.Write([]byte(c.ID))
	g := &Gossip{
		config:    c,
		random:    rand.New(rand.NewPCG(c.Seed, h.Sum64())),
		forgotten: map[string]bool{},
	}
	g.self = &member{
		id: c.ID, version: version{incarnation: max(c.Incarnation, 1), heartbeat: 1, state: Alive},
		bodyAt: 1, body: body{c.Addr, slices.Clone(c.Meta)},
	}
	g.insert(g.self)
	return g
}

// Tick runs what is due at now and returns what to send. Calling it before Next
// does no harm.
func (g *Gossip) Tick(now time.Time) []Message {
	g.observe(now)
	if g.check > 0 && g.clock.elapsed >= g.check {
		g.check = 0
		g.askHelpers()
	}
	if g.clock.elapsed >= g.round {
		g.runRound()
	}
	return g.take()
}

// Next returns when Tick wants to run, by the caller's clock. Any event may move
// it; before the first event it is the zero time, that is: at once.
func (g *Gossip) Next() time.Time {
	if !g.clock.started {
		return time.Time{}
	}
	return g.clock.last.Add(max(0, g.due()-g.clock.elapsed))
}

func (g *Gossip) due() time.Duration {
	if g.check > 0 {
		return min(g.check, g.round)
	}
	return g.round
}

// observe begins an event.
func (g *Gossip) observe(now time.Time) {
	g.now = now
	limit := max(g.clock.elapsed, g.due()+g.config.interval()/2)
	if g.health.off {
		limit = 1<<63 - 1
	}
	if g.clock.advance(now, limit) {
		g.health.late = true
	}
}

func (g *Gossip) runRound() {
	g.self.heartbeat++
	g.self.seen = g.now
	g.judgeProbes()
	g.judgeSuspects()

	first := g.nextInOrder()
	if first != nil {
		g.ping(first, digestBytes)
	}
	if second := g.randomMember(first); second != nil {
		g.ping(second, shortBytes)
	}
	g.pingDead()
	g.pingSeeds()
	for _, m := range g.probing {
		if m.asked != g.clock.elapsed {
			g.ping(m, 0)
		}
	}

	interval := g.config.interval()
	g.round = g.clock.elapsed + interval*9/10 + time.Duration(g.random.Int64N(int64(interval)/5+1))
	if len(g.probing) > 0 {
		g.check = g.clock.elapsed + interval/2
	}
}

// pingDead now and then greets a dead member, so that both sides of a healed
// partition meet again: the rate grows with the share of the dead.
func (g *Gossip) pingDead() {
	dead := g.count[Dead]
	if dead == 0 || g.random.IntN(len(g.sorted)) >= dead {
		return
	}
	nth := g.random.IntN(dead)
	for _, m := range g.sorted {
		if m.state != Dead {
			continue
		}
		if nth == 0 {
			g.ping(m, digestBytes)
			return
		}
		nth--
	}
}

// seedsPerRound bounds how many seeds a lonely node asks in one round.
const seedsPerRound = 3

// pingSeeds keeps asking the seeds: a node that knows no living peer every round,
// others now and then, in case the seed belongs to a part never met.
func (g *Gossip) pingSeeds() {
	seeds := g.config.Seeds
	n := min(seedsPerRound, len(seeds))
	if g.count[Alive] > 1 {
		if g.random.IntN(len(g.sorted)) >= len(seeds) {
			return
		}
		n = 1
	}
	if n == 0 {
		return
	}
	for i, at := 0, g.random.IntN(len(seeds)); i < n; i++ {
		if addr := seeds[(at+i)%len(seeds)]; !g.livesAt(addr) {
			g.send(addr, g.appendDigest(g.open(kindPing, 0, ""), digestBytes, nil))
		}
	}
}

// livesAt reports whether addr is this node's or that of a live member.
func (g *Gossip) livesAt(addr string) bool {
	for _, m := range g.sorted {
		if m.addr == addr && m.state == Alive {
			return true
		}
	}
	return false
}

// SetMeta replaces this node's meta, which the others learn like any news.
// It is copied. It fails, changing nothing, when meta exceeds MaxMetaBytes. Every change costs
// each member one message of this size, so leave seconds between changes.
func (g *Gossip) SetMeta(meta []byte) error {
	if len(meta) > MaxMetaBytes {
		return errMeta
	}
	g.note(g.self)
	g.self.meta = slices.Clone(meta)
	g.self.heartbeat++
	g.self.bodyAt = g.self.heartbeat
	return nil
}

// SetSeeds replaces the addresses to meet the cluster through. The slice is kept.
func (g *Gossip) SetSeeds(seeds []string) { g.config.Seeds = seeds }

// Forget removes a member for good: what is still told about the id, and what it
// tells itself, is ignored from now on. The node's own id cannot be forgotten.
func (g *Gossip) Forget(id string) {
	if id == g.self.id {
		return
	}
	g.forgotten[strings.Clone(id)] = true
	if m := g.find([]byte(id)); m != nil {
		g.remove(m)
	}
}

// Members returns all known members, this node included, by id.
func (g *Gossip) Members() []Member {
	s := make([]Member, len(g.sorted))
	for i, m := range g.sorted {
		s[i] = m.snapshot()
	}
	return s
}

// Changes returns the members that changed since the last call, in the order of
// their first change, and forgets them.
func (g *Gossip) Changes() []Change {
	var s []Change
	for _, m := range g.changed {
		if !m.gone {
			s = append(s, Change{m.snapshot(), m.before})
		}
		m.changed = false
	}
	g.changed = g.changed[:0]
	return s
}

// note remembers that m is about to change.
func (g *Gossip) note(m *member) {
	if !m.changed {
		m.changed, m.before = true, m.state
		g.changed = append(g.changed, m)
	}
}

// position returns where id is in sorted, or would be.
func (g *Gossip) position(id []byte) (at int, found bool) {
	return slices.BinarySearchFunc(g.sorted, id, func(m *member, id []byte) int {
		switch {
		case m.id < string(id): // compares without allocating
			return -1
		case m.id == string(id):
			return 0
		}
		return 1
	})
}

// find returns the member with that id, or nil. Digests go through the table in
// order, so the members after the one found last are tried first.
func (g *Gossip) find(id []byte) *member {
	for i := g.foundAt; i < min(g.foundAt+4, len(g.sorted)); i++ {
		if m := g.sorted[i]; m.id == string(id) {
			g.foundAt = i
			return m
		}
	}
	i, found := g.position(id)
	if !found {
		return nil
	}
	g.foundAt = i
	return g.sorted[i]
}

// insert adds m to the table.
func (g *Gossip) insert(m *member) {
	i, _ := g.position([]byte(m.id))
	g.sorted = slices.Insert(g.sorted, i, m)
	g.count[m.state]++
}

// remove takes m out of the table; the lists drop it when they come to it.
func (g *Gossip) remove(m *member) {
	i, _ := g.position([]byte(m.id))
	g.sorted = slices.Delete(g.sorted, i, i+1)
	g.count[m.state]--
	m.gone = true
	gone := func(m *member) bool { return m.gone }
	g.order = slices.DeleteFunc(g.order, gone)
	g.probing = slices.DeleteFunc(g.probing, gone)
	g.news = slices.DeleteFunc(g.news, gone)
	g.changed = slices.DeleteFunc(g.changed, gone)
}

// open begins a message.
func (g *Gossip) open(k kind, nonce uint64, about string) []byte {
	s := g.self
	return appendHeader(make([]byte, 0, 256), &header{
		kind: k, nonce: nonce, members: uint64(len(g.sorted)), about: []byte(about),
		from: entry{id: []byte(s.id), addr: []byte(s.addr), version: s.version, bodyAt: s.bodyAt},
	})
}

func (g *Gossip) send(addr string, body []byte) {
	g.metrics.MessagesOut++
	g.metrics.BytesOut += uint64(len(body))
	g.out = append(g.out, Message{addr, body})
}

// take ends an event.
func (g *Gossip) take() []Message {
	out := g.out
	g.out = nil
	return out
}
