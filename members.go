package kvstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"example.com/kvstore/gossip"
	"example.com/kvstore/replica"
	"example.com/kvstore/topology"
	"example.com/kvstore/transport"
)

const (
	// inboxLen bounds the queue of messages to the loop; beyond it they are
	// dropped, and both protocols repeat themselves.
	inboxLen = 1024
	// peerIdle is how long a connection to an address outside the cluster is
	// kept after its last use.
	peerIdle = time.Minute
	// busyEvery is how often the agent runs while an epoch is being agreed, which
	// is taken to be so for busyFor after each of its messages.
	busyEvery = 50 * time.Millisecond
	busyFor   = 5 * time.Second
)

// members keeps this node's place in the cluster: liveness by gossip, ownership
// by agreed epochs. Both are state machines without I/O; their one loop owns
// them, makes their state durable, sends for them, and publishes the view that
// the data path reads.
type members struct {
	db *DB

	// in is the inbox, capacity inboxLen, written by connection readers, never
	// closed. It is one channel, and what is due is asked by the clock, because a
	// select picks by chance among what is ready: a seed must give one trace.
	in chan inbound

	// Owned by loop.
	gossip    *gossip.Gossip // nil on a node without a listener
	agent     *topology.Agent
	seeds     *seeds
	lastUse   map[string]time.Time // addresses outside the epoch
	busyUntil time.Time
	current   *topology.Epoch    // the newest that is durable here; nil before
	owed      []topology.Effects // not carried out yet: the volume is full
	told      uint64             // the epoch whose members gossip meets
	meant     []byte             // what gossip tells of this node
	unfence   bool               // the agent has lowered the fence: so will apply
	learned   time.Time          // when current was learned, or this node began
	// heirs are the members of heirsOf, by UID, that took the places of earlier ones.
	heirs   map[uint64]uint64
	heirsOf *topology.Epoch

	// Written by loop, read anywhere.
	states   atomic.Pointer[[]gossip.Member]
	trouble  atomic.Pointer[error] // why the node will not become ready
	denied   atomic.Pointer[error] // why it did not become a member so far
	troubled chan struct{}         // closed when trouble is set
}

// An inbound is a message of OpGossip or OpTopology, or with neither op the news
// that the node at addr knows a newer epoch.
type inbound struct {
	op    replica.Op
	body  []byte
	addr  string
	epoch uint64
	kept  chan<- error // instead: write again what the disk has lost, and tell of it here
}

func newMembers(db *DB) *members {
	return &members{db: db, in: make(chan inbound, inboxLen), lastUse: map[string]time.Time{}, troubled: make(chan struct{}), learned: now()}
}

// receive queues a message for the loop. body is copied. Gossip leaves half of
// the inbox to the others.
func (m *members) receive(op replica.Op, body []byte) {
	if op != replica.OpGossip || len(m.in) < inboxLen/2 {
		m.queue(inbound{op: op, body: append([]byte(nil), body...)})
	}
}

// hear tells the loop that the node at addr knows epoch n.
func (m *members) hear(addr string, n uint64) { m.queue(inbound{addr: addr, epoch: n}) }

func (m *members) queue(in inbound) {
	select {
	case m.in <- in:
	default:
	}
}

// loop runs until db.stop closes.
func (m *members) loop() {
	due := now() // the next tick
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !m.db.stopped() {
		var err error
		if now().Before(due) {
			select {
			case in := <-m.in:
				err = m.take(in)
				if in.op == replica.OpTopology {
					due = m.next()
					timer.Reset(due.Sub(now()))
				}
			case <-timer.C:
				continue
			case <-m.db.stop:
				return
			}
		} else {
			err = m.tick()
			due = m.next()
			timer.Reset(due.Sub(now()))
		}
		if err != nil {
			m.fail(err)
			return
		}
		m.noteChanges()
		m.settle()
	}
}

// stopped reports whether Close has come to ending the loops.
func (db *DB) stopped() bool {
	select {
	case <-db.stop:
		return true
	default:
		return false
	}
}

// take hands one message to its machine.
func (m *members) take(in inbound) error {
	switch in.op {
	case replica.OpGossip:
		if m.member() {
			m.sendAll(m.gossip.Step(now(), in.body))
		}
		return nil
	case replica.OpTopology:
		m.busyUntil = now().Add(busyFor)
	}
	if in.kept != nil {
		in.kept <- m.keepAgain()
		return nil
	}
	if len(m.owed) > 0 {
		return nil // one thing after the other; the protocol repeats itself
	}
	if in.op == replica.OpTopology {
		return m.apply(m.agent.Step(now(), in.body))
	}
	return m.apply(m.agent.Heard(now(), in.addr, in.epoch))
}

// member reports whether this node is a member of the newest epoch it knows. No
// other node gossips: one that was refused must not be taken for the member
// whose id it has.
func (m *members) member() bool {
	if m.current == nil {
		return false
	}
	self, ok := m.current.Member(m.db.id)
	return ok && self.UID == m.db.uid
}

// tick lets time pass for both machines.
func (m *members) tick() error {
	t := now()
	if m.gossip != nil && m.member() && !t.Before(m.gossip.Next()) {
		m.tell()
		if m.seeds.fresh.CompareAndSwap(true, false) {
			m.gossip.SetSeeds(m.meetAt(m.current))
		}
		m.sendAll(m.gossip.Tick(t))
		all := m.gossip.Members()
		m.states.Store(&all)
		if v := m.db.view.Load(); v != nil {
			m.db.clocks.ask(v)
		}
		m.dropIdle(t)
	}
	if len(m.owed) > 0 {
		return m.pay()
	}
	if err := m.apply(m.agent.Tick(t)); err != nil {
		return err
	}
	if err := m.agent.Denied(); err != nil {
		m.denied.Store(&err)
	}
	// A full volume may have room again; and a node whose log failed is still a
	// member, from which others read. A disk that does not answer at all keeps the
	// loop here, so that the others take the node for what it is.
	if err := m.db.clock.refresh(); err != nil && !cannotWrite(err) {
		return err
	}
	return nil
}

// next is when tick should run again.
func (m *members) next() time.Time {
	t := now()
	next := t.Add(m.db.opts.GossipInterval)
	if !m.db.ready.Load() || m.agent.Fenced() || t.Before(m.busyUntil) {
		next = t.Add(busyEvery)
	}
	if m.gossip != nil && m.member() && m.gossip.Next().Before(next) {
		next = m.gossip.Next()
	}
	return next
}

// apply carries out effects, after those that are still owed.
func (m *members) apply(e topology.Effects) error {
	m.owed = append(m.owed, e)
	return m.pay()
}

// cannotWrite reports whether err is a state of the disk in which the node stays a
// member: others can read from it.
func cannotWrite(err error) bool { return isAny(err, ErrNoSpace, ErrReadOnly, errUncertain) }

// pay carries out what the agent asked for, in order. What the disk does not take
// stays owed, and so does what comes after it: until there is room, or for good.
func (m *members) pay() error {
	for len(m.owed) > 0 {
		err := m.carryOut(m.owed[0])
		if cannotWrite(err) {
			return nil
		}
		if err != nil {
			return err
		}
		m.owed = m.owed[1:]
	}
	m.owed = nil
	return nil
}

// carryOut makes the agent's state durable, publishes what it learned, and only
// then sends what it says.
func (m *members) carryOut(e topology.Effects) error {
	var settings []setting
	if e.State != nil {
		settings = append(settings, setting{sysTopology, e.State})
	}
	for _, ep := range e.Learned {
		b, err := ep.AppendBinary(nil)
		if err != nil {
			return err
		}
		settings = append(settings, setting{epochKey(ep.Number), b})
	}
	keep := func(more []setting) error {
		if settings = append(settings, more...); len(settings) == 0 {
			return nil
		}
		return m.db.sys.set(settings...)
	}
	var err error
	n := len(e.Learned)
	if n > 0 && m.current == nil && m.follows() {
		inherited, err := m.db.damage.inherit(m.view(e.Learned[n-1]))
		if err != nil {
			return fmt.Errorf("kvstore: take the place of another directory: %w", engineError(err))
		}
		settings = append(settings, inherited...)
	}
	if n > 0 {
		err = m.db.horizons.enter(m.view(e.Learned[n-1]), keep)
	} else {
		err = keep(nil)
	}
	if err != nil {
		return fmt.Errorf("kvstore: keep the cluster's state: %w", engineError(err))
	}
	if n > 0 {
		m.current, m.learned = e.Learned[n-1], now()
		m.publish()
		m.checkPlace()
		if err := m.db.keepIdentity(m.agent.Chain(0)); err != nil {
			m.db.opts.Logger.Warn("kvstore: the second copy of the node's identity is not up to date", "err", err)
		}
		for _, ep := range e.Learned {
			m.db.opts.Logger.Info("kvstore: new epoch", "epoch", ep.Number, "members", len(ep.Members))
			m.db.opts.Events.epoch(EpochInfo{Number: ep.Number, Members: len(ep.Members)})
		}
	}
	if m.unfence { // not before the epoch it was raised for is in force here
		m.unfence = false
		m.db.fence.lower()
	}
	for _, msg := range e.Send {
		m.send(msg.Addr, replica.OpTopology, msg.Body)
	}
	if e.Refused != nil {
		m.fail(fmt.Errorf("%w: %w", ErrJoinRefused, e.Refused))
	}
	return nil
}

// checkPlace ends the part of a node in the cluster whose place another directory has.
func (m *members) checkPlace() {
	if !m.member() {
		m.fail(fmt.Errorf("%w: %w; it has taken this one's place, while this node was away", ErrJoinRefused, topology.ErrNameTaken))
		m.db.ready.Store(false)
	}
}

// follows reports whether this node's place was another directory's before.
func (m *members) follows() bool {
	self, ok := m.agent.Current().Member(m.db.id)
	return ok && self.UID == m.db.uid && m.agent.Follows(self)
}

// gone is topology.Config.Gone. A member of which nothing was heard for long is gone, too.
func (m *members) gone(member topology.Member) (gone, sure bool) {
	if m.gossip != nil {
		for _, g := range m.gossip.Members() {
			if g.ID == member.ID && isMember(g, member) {
				return g.State == gossip.Dead, g.State != gossip.Suspect
			}
		}
	}
	gone = now().Sub(m.learned) > m.db.opts.givenUp()
	return gone, gone
}

// whole is topology.Config.Whole. A member says it of itself, by gossip.
func (m *members) whole(member topology.Member) bool {
	if member.UID == m.db.uid {
		return m.db.damage.barred.Load() == nil
	}
	if !defences.OneHeir {
		return true
	}
	return m.gossip != nil && slices.ContainsFunc(m.gossip.Members(), func(g gossip.Member) bool {
		return g.ID == member.ID && isMember(g, member) && len(g.Meta) == metaLen && g.Meta[metaLen-1] == 0
	})
}

// keepAgain makes durable again what this node knows of the cluster.
func (m *members) keepAgain() error {
	settings := []setting{{sysTopology, m.agent.State()}}
	for _, e := range m.agent.Chain(0) {
		b, err := e.AppendBinary(nil)
		if err != nil {
			return err
		}
		settings = append(settings, setting{epochKey(e.Number), b})
	}
	return m.db.sys.set(settings...)
}

// fail notes the first reason why this node can't take its place.
func (m *members) fail(err error) {
	if m.trouble.CompareAndSwap(nil, &err) {
		m.db.opts.Logger.Error("kvstore: this node does not take part in the cluster", "err", err)
		close(m.troubled)
	}
}

func (m *members) sendAll(msgs []gossip.Message) {
	for _, msg := range msgs {
		m.send(msg.Addr, replica.OpGossip, msg.Body)
	}
}

// send is best effort: both protocols repeat themselves.
func (m *members) send(addr string, op replica.Op, body []byte) {
	m.lastUse[addr] = now()
	_ = m.db.mux.Peer(addr).Send(op, nil, body)
}

// dropIdle closes connections to addresses that are neither a member's nor a
// seed's and were not used for a while.
func (m *members) dropIdle(t time.Time) {
	keep := map[string]bool{}
	if v := m.db.view.Load(); v != nil {
		for _, n := range v.nodes {
			keep[n.addr] = true
		}
	}
	for _, addr := range m.seeds.addrs() {
		keep[addr] = true
	}
	for addr, used := range m.lastUse {
		if !keep[addr] && t.Sub(used) > peerIdle {
			m.db.mux.Peer(addr).Close()
			delete(m.lastUse, addr)
		}
	}
}

// noteChanges takes in what gossip found out: liveness, addresses, epochs.
func (m *members) noteChanges() {
	if m.gossip == nil {
		return
	}
	changes := m.gossip.Changes()
	if len(changes) == 0 {
		return
	}
	known := m.current
	for _, c := range changes {
		if c.State != c.Before {
			m.db.opts.Logger.Info("kvstore: member", "node", c.ID, "state", c.State, "before", c.Before)
			m.db.opts.Events.member(MemberInfo{ID: c.ID, Addr: c.Addr, State: c.State.String(), Before: c.Before.String()})
		}
		if c.State == gossip.Alive && c.ID != m.db.id {
			// News of its life: do not sit out the pause after the last failure.
			// One that leaves still has calls to answer.
			if p := m.db.mux.Peer(c.Addr); !p.Up() && !errors.Is(p.Err(), transport.ErrLeaving) {
				p.Close()
			}
		}
		if n := metaEpoch(c.Meta); known != nil && n > known.Number {
			m.hear(c.Addr, n)
		}
	}
	m.publish()
}

// metaLen is the length of meta, in bytes.
const metaLen = 17

// meta is what this node says of itself in gossip: its epoch, the identity of its
// directory, and 1 if that took another one's place and has not all of the data yet.
func (m *members) meta() []byte {
	var n uint64
	if m.current != nil {
		n = m.current.Number
	}
	b := binary.LittleEndian.AppendUint64(nil, n)
	b = binary.LittleEndian.AppendUint64(b, m.db.uid)
	if m.db.damage.barred.Load() != nil {
		return append(b, 1)
	}
	return append(b, 0)
}

// tell has gossip tell the news of this node.
func (m *members) tell() {
	if meta := m.meta(); !bytes.Equal(meta, m.meant) {
		m.meant = meta
		_ = m.gossip.SetMeta(meta) // metaLen is within its limit
	}
}

// isMember reports whether gossip's g is of the member's directory, and not of
// another one under its id.
func isMember(g gossip.Member, member topology.Member) bool {
	return len(g.Meta) < 16 || binary.LittleEndian.Uint64(g.Meta[8:]) == member.UID
}

func metaEpoch(meta []byte) uint64 {
	if len(meta) < 8 {
		return 0
	}
	return binary.LittleEndian.Uint64(meta)
}

// publish makes the current epoch and what is known of its members the view of
// the data path.
func (m *members) publish() {
	e := m.current
	if e == nil {
		return
	}
	if m.gossip != nil {
		m.tell()
		if e.Number != m.told {
			m.told = e.Number
			m.gossip.SetSeeds(m.meetAt(e))
		}
		all := m.gossip.Members()
		m.states.Store(&all)
	}
	m.db.horizons.show(m.view(e))
}

// view is an epoch, with what is known of its members.
func (m *members) view(e *topology.Epoch) *view {
	states := map[string]gossip.Member{}
	if m.gossip != nil {
		for _, g := range m.gossip.Members() {
			states[g.ID] = g
		}
	}
	v := &view{epoch: e, ring: e.Ring, heirs: m.heirsAt(e), replaced: make(chan struct{})}
	for _, n := range e.Ring.Nodes() {
		member, _ := e.Member(n.ID)
		node := viewNode{id: n.ID, uid: member.UID, addr: member.Addr, centre: n.DataCenter, near: n.DataCenter == m.db.opts.DataCenter}
		if g, ok := states[n.ID]; ok && isMember(g, member) {
			node.addr, node.dead = g.Addr, g.State == gossip.Dead
		}
		if member.UID != m.db.uid {
			node.peer = m.db.mux.Peer(node.addr)
		}
		v.nodes = append(v.nodes, node)
	}
	return v
}

// heirsAt are the members of e, by UID, that took the places of earlier ones, by theirs.
func (m *members) heirsAt(e *topology.Epoch) map[uint64]uint64 {
	if e == m.heirsOf {
		return m.heirs
	}
	m.heirs, m.heirsOf = map[uint64]uint64{}, e
	for _, before := range m.agent.Chain(0) {
		for _, old := range before.Members {
			if heir, ok := e.Member(old.ID); ok && heir.UID != old.UID {
				m.heirs[old.UID] = heir.UID
			}
		}
	}
	return m.heirs
}

// meetAt is where gossip looks for company: the seeds, and where the members were
// when they joined.
func (m *members) meetAt(e *topology.Epoch) []string {
	addrs := m.seeds.addrs()
	for _, member := range e.Members {
		if member.ID != m.db.id && !slices.Contains(addrs, member.Addr) {
			addrs = append(addrs, member.Addr)
		}
	}
	return addrs
}

// settle declares the node ready once it is a member, hears from a majority of
// the members and has compared its clock with theirs, and its clock has passed the
// stamps of its former life.
func (m *members) settle() {
	v := m.db.view.Load()
	if m.db.ready.Load() || v == nil || v.self() < 0 {
		return
	}
	majority := len(v.nodes)/2 + 1
	if m.db.clocks.known() >= majority {
		m.db.trusted.Store(true)
	}
	if len(v.nodes) > 1 && m.db.clock.lead() > 0 {
		return
	}
	alive := 1
	if m.gossip != nil {
		for _, g := range m.gossip.Members() {
			if g.ID != m.db.id && v.ring.Index(g.ID) >= 0 && g.State == gossip.Alive && m.db.mux.Peer(g.Addr).Up() {
				alive++
			}
		}
	}
	if alive >= majority && m.db.clocks.known() >= majority {
		m.db.ready.Store(true)
		close(m.db.readied)
	}
}

// notReady tells why the node does not coordinate.
func (db *DB) notReady() error {
	if db.closing.Load() {
		return ErrClosed
	}
	if p := db.members.trouble.Load(); p != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, *p)
	}
	v := db.view.Load()
	if v == nil {
		if p := db.members.denied.Load(); p != nil {
			return fmt.Errorf("%w: not a member yet; this node asks on: %w", ErrNotReady, *p)
		}
		if err := db.members.seedTrouble(); err != nil {
			return fmt.Errorf("%w: not a member yet; no seed answers: %w", ErrNotReady, err)
		}
		return fmt.Errorf("%w: not a member yet; waiting for the seeds (one node must form the cluster: without Seeds, or with Bootstrap)", ErrNotReady)
	}
	if lead := db.clock.lead(); lead > 0 {
		return fmt.Errorf("%w: the clock must first pass stamps that this node issued before it was last stopped, in %v", ErrNotReady, lead)
	}
	return fmt.Errorf("%w: waiting to hear from a majority of the %d members", ErrNotReady, len(v.nodes))
}

// seedTrouble tells what is wrong with each seed that cannot be reached.
func (m *members) seedTrouble() error {
	var all error
	for _, addr := range m.seeds.addrs() {
		if err := m.db.mux.Peer(addr).Err(); err != nil {
			all = errors.Join(all, fmt.Errorf("%s: %w", addr, err))
		}
	}
	return all
}
