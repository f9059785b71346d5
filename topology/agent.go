package topology

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Pace of an agent. Every wait is drawn between half and one and a half times these.
const (
	retryFirst   = 100 * time.Millisecond // before a message is repeated; doubles
	retryMost    = 2 * time.Second        // up to here
	batchDelay   = 20 * time.Millisecond  // a joiner waits this long for company
	fenceTimeout = 2 * time.Second        // then a fenced member decides the epoch itself
	askedTimeout = 15 * time.Second       // a joiner that stops asking is forgotten
	fetchTries   = 8                      // then a newer epoch has to be heard of again
)

// MaxJoiners bounds how many joiners a member keeps waiting. Further ones ask again.
const MaxJoiners = 1024

// Config is what an Agent starts from.
type Config struct {
	Self  Member
	Name  string          // of the cluster
	State []byte          // the last Effects.State, nil at first
	Chain []*Epoch        // all epochs, the first one first; empty for a node that is to join
	Seeds func() []string // addresses to ask for joining; may be nil for a member
	Seed  uint64          // for jitter

	// Fence stops the acceptance of writes at this node and reports whether it ever
	// accepted one. It does not wait: every write that it does not report sees the
	// fence. So must reads, for others may already write in the next epoch. Unfence
	// ends that, when what was learned is published. Both may be nil for a node that
	// never holds data. NewAgent itself calls Fence when the node was fenced before a
	// restart.
	Fence   func() (hasData bool)
	Unfence func()

	// Gone reports whether a member is down, and whether that is sure: then another
	// directory may take its place, which it never gets back. Nil: none is.
	Gone func(Member) (gone, sure bool)
	// Whole reports whether a member that took another directory's place has all of its
	// data. It may be late to. Nil: at once.
	Whole func(Member) bool
	// TakenFor is how long a node that is to join asks on while it is told that its id is
	// taken: the member that has it may be found to be gone.
	TakenFor time.Duration
}

// Effects are what the owner of an Agent must do after each call, in this order:
// persist Learned and State, synced and in one atomic batch (else Learned first: the
// chain must not end before the epoch that State is of), then publish and Send.
// Messages of an effect whose State is not durable must not go out: an acceptor that
// forgets a promise can split the cluster.
type Effects struct {
	Learned []*Epoch  // new epochs, in order
	State   []byte    // nil: as before
	Send    []Message // may be lost, repeated and reordered
	Joined  bool      // this node is now a member
	Refused error     // the join ended; wraps one of the errors of this package
}

// A Message is for the agent at Addr.
type Message struct {
	Addr string
	Body []byte
}

// An Agent is one node's part in agreeing epochs. It does no I/O, reads no clock and is
// not safe for concurrent use; what it returns depends on its inputs alone.
type Agent struct {
	cfg   Config
	rng   *rand.Rand
	now   time.Time
	fx    Effects
	chain []*Epoch
	hash  [32]byte // of the newest epoch
	me    int      // own place among its members, -1: not a member

	// The epoch after the newest.
	acceptor acceptor
	dirty    bool      // acceptor or fenced changed and are not in fx yet
	fenced   bool      // promised for a join; durable
	patience time.Time // when a fenced member decides the epoch itself
	attempt  *attempt  // nil: not proposing
	round    uint64    // highest heard of
	failures int       // attempts given up since the newest epoch
	after    time.Time // no attempt for joiners starts before

	joiners []joiner // waiting to become members, through this one
	heirs   []joiner // waiting to take the places of members that are gone
	hasData bool     // some member has data: joins are refused at once
	addr    map[uint64]string
	fetch   fetch
	join    join
}

// NewAgent returns an agent that goes on where the one that left State and Chain stopped.
func NewAgent(cfg Config) (*Agent, error) {
	if err := checkMember(cfg.Self); err != nil {
		return nil, err
	}
	if len(cfg.Name) > MaxNameBytes {
		return nil, fmt.Errorf("topology: the cluster name is longer than %d bytes, shorten it", MaxNameBytes)
	}
	a := &Agent{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, cfg.Self.UID)), me: -1, addr: make(map[uint64]string)}
	for _, e := range cfg.Chain {
		if !e.follows(a.Current(), a.hash) {
			return nil, fmt.Errorf("%w: epoch %d does not continue the chain", ErrCorrupt, e.Number)
		}
		if e.Name != cfg.Name {
			return nil, fmt.Errorf("%w: the data directory is of %q, not of %q", ErrWrongCluster, e.Name, cfg.Name)
		}
		a.extend(e)
	}
	if len(cfg.State) > 0 {
		if err := a.restore(cfg.State); err != nil {
			return nil, err
		}
	}
	if a.fenced && cfg.Fence != nil {
		cfg.Fence()
	}
	return a, nil
}

// Current returns the newest epoch, nil before the node joined.
func (a *Agent) Current() *Epoch {
	if len(a.chain) == 0 {
		return nil
	}
	return a.chain[len(a.chain)-1]
}

// Chain returns the epochs after number since.
func (a *Agent) Chain(since uint64) []*Epoch {
	return slices.Clone(a.chain[min(since, uint64(len(a.chain))):])
}

// Fenced reports whether the agent keeps this node from accepting writes.
func (a *Agent) Fenced() bool { return a.fenced }

// Heard tells that the node at addr knows that epoch: if it is newer, it is fetched.
func (a *Agent) Heard(now time.Time, addr string, epoch uint64) Effects {
	a.now = now
	a.hear(addr, epoch)
	return a.effects()
}

// Tick repeats what may have been lost. Call it every 50 ms or so, at least while the
// node joins or is Fenced.
func (a *Agent) Tick(now time.Time) Effects {
	a.now = now
	a.tickJoin()
	a.tickFetch()
	if a.me >= 0 {
		a.tickAttempt()
	}
	return a.effects()
}

// Step takes a message. It does not keep msg. What is not a message of a peer, or of
// no use, is ignored.
func (a *Agent) Step(now time.Time, msg []byte) Effects {
	a.now = now
	m, err := decodeMessage(msg)
	if err != nil || m.from.Is(a.cfg.Self) {
		return Effects{}
	}
	if a.Current() == nil {
		a.stepOutside(m)
	} else if m.cluster == a.Current().Cluster || m.cluster == [16]byte{} || m.kind == kindJoin {
		a.stepInside(m)
	}
	return a.effects()
}

func (a *Agent) stepInside(m *message) {
	cur := a.Current()
	switch m.kind {
	case kindJoin:
		a.asked(m)
		return
	case kindFetch:
		a.sendChain(m.from.Addr, m.slot)
		return
	case kindChain:
		a.learnChain(m)
		return
	}
	a.hear(m.from.Addr, m.epoch)
	from := cur.index(m.from)
	if from < 0 || a.me < 0 {
		return
	}
	a.addr[m.from.UID] = m.from.Addr
	if m.slot <= cur.Number {
		if m.epoch < cur.Number { // the sender missed its end
			a.sendChain(m.from.Addr, m.epoch)
		}
		return
	}
	if m.slot > cur.Number+1 {
		return
	}
	a.round = max(a.round, m.ballot.round, m.other.round)
	switch m.kind {
	case kindProbe:
		a.reply(m, &message{kind: kindProbed, flag: a.probe()})
	case kindPrepare:
		a.prepare(m)
	case kindAccept:
		a.accept(m)
	default:
		if a.attempt != nil && a.attempt.ballot == m.ballot {
			a.answer(from, m)
		}
	}
}

// prepare answers phase 1.
func (a *Agent) prepare(m *message) {
	if m.ballot.less(a.acceptor.promised) {
		a.reply(m, &message{kind: kindReject, other: a.acceptor.promised})
		return
	}
	if m.flag && a.fence() {
		a.reply(m, &message{kind: kindReject, other: a.acceptor.promised, flag: true})
		return
	}
	a.yield(m.ballot)
	a.after = later(a.after, a.now.Add(a.backoff(2))) // leave it time to finish
	a.acceptor.prepare(m.ballot)
	a.dirty = true
	a.reply(m, &message{kind: kindPromise, other: a.acceptor.accepted, value: a.acceptor.value})
}

// accept answers phase 2.
func (a *Agent) accept(m *message) {
	if _, err := a.child(m.value); err != nil {
		return
	}
	a.yield(m.ballot)
	if !a.acceptor.accept(m.ballot, slices.Clone(m.value)) {
		a.reply(m, &message{kind: kindReject, other: a.acceptor.promised})
		return
	}
	a.dirty = true
	a.reply(m, &message{kind: kindAccepted})
}

// child decodes a proposed value: it must be the epoch that follows the newest.
func (a *Agent) child(value []byte) (*Epoch, error) {
	e, err := DecodeEpoch(value)
	if err != nil {
		return nil, err
	}
	if !e.follows(a.Current(), a.hash) {
		return nil, errors.New("topology: a proposal that does not continue the chain")
	}
	return e, nil
}

// fence keeps writes out until the epoch is decided, or reports that it is too late:
// this node has data.
func (a *Agent) fence() (hasData bool) {
	if a.fenced {
		return false
	}
	if a.cfg.Fence != nil && (a.hasData || a.cfg.Fence()) {
		a.hasData = true
		a.cfg.Unfence()
		return true
	}
	a.fenced, a.dirty = true, true
	a.patience = a.now.Add(a.jitter(fenceTimeout))
	return false
}

// probe reports whether this node has data, without fencing it.
func (a *Agent) probe() (hasData bool) {
	if a.fenced || a.cfg.Fence == nil {
		return false
	}
	a.hasData = a.cfg.Fence() || a.hasData
	a.cfg.Unfence()
	return a.hasData
}

// learn appends the agreed epoch e and ends all that concerned its agreement.
func (a *Agent) learn(e *Epoch) {
	a.extend(e)
	a.fx.Learned = append(a.fx.Learned, e)
	a.acceptor, a.attempt, a.dirty = acceptor{}, nil, false
	a.round, a.failures = 0, 0
	if a.fenced {
		a.fenced = false
		if a.cfg.Unfence != nil {
			a.cfg.Unfence()
		}
	}
	a.after = a.now.Add(a.jitter(batchDelay))
	a.joiners = slices.DeleteFunc(a.joiners, func(j joiner) bool {
		if e.index(j.Member) >= 0 {
			a.sendChain(j.Addr, 0)
			return true
		}
		if taken(e, j.Member) {
			a.refuse(j.Addr, ErrNameTaken, "")
			return true
		}
		return false
	})
	a.heirs = slices.DeleteFunc(a.heirs, func(j joiner) bool {
		if e.index(j.Member) >= 0 {
			a.sendChain(j.Addr, 0)
			return true
		}
		return !a.mayFollow(j.Member)
	})
}

func (a *Agent) extend(e *Epoch) {
	a.chain = append(a.chain, e)
	a.hash = e.Hash()
	a.me = e.index(a.cfg.Self)
}

// send queues a message to addr.
func (a *Agent) send(addr string, m *message) {
	m.from.ID, m.from.Addr, m.from.UID = a.cfg.Self.ID, a.cfg.Self.Addr, a.cfg.Self.UID
	if cur := a.Current(); cur != nil {
		m.cluster, m.epoch = cur.Cluster, cur.Number
	}
	a.fx.Send = append(a.fx.Send, Message{Addr: addr, Body: m.encode()})
}

// reply sends m to the sender of q, about the same slot and ballot.
func (a *Agent) reply(q, m *message) {
	m.slot, m.ballot = q.slot, q.ballot
	a.send(q.from.Addr, m)
}

// address is where member m was heard last; it may have moved since the epoch.
func (a *Agent) address(m Member) string {
	if addr, ok := a.addr[m.UID]; ok {
		return addr
	}
	return m.Addr
}

// effects hands out what has gathered.
func (a *Agent) effects() Effects {
	fx := a.fx
	a.fx = Effects{}
	if a.dirty {
		fx.State, a.dirty = a.state(), false
	}
	return fx
}

// jitter draws from d/2 to 3d/2.
func (a *Agent) jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(a.rng.Int64N(int64(d)))
}

// backoff draws the wait before try n.
func (a *Agent) backoff(n int) time.Duration {
	return a.jitter(min(retryFirst<<min(n, 10), retryMost))
}

const stateMagic = "kva1"

// State returns the last Effects.State, or what it would be.
func (a *Agent) State() []byte { return a.state() }

// state encodes what must survive a restart.
//
//	"kva1" | epoch to be decided 8 | fenced 1 | promised 16 | accepted 16 | value blob | CRC32C
//
// An own attempt needs no record: it begins with a promise to itself, and a later one
// has a higher ballot than that.
func (a *Agent) state() []byte {
	b := binary.LittleEndian.AppendUint64([]byte(stateMagic), uint64(len(a.chain))+1)
	b = appendFlag(b, a.fenced)
	b = appendBallot(appendBallot(b, a.acceptor.promised), a.acceptor.accepted)
	return seal(appendBlob(b, a.acceptor.value), 0)
}

// restore is the opposite. The state of an epoch that is known by now is void.
func (a *Agent) restore(b []byte) error {
	r, err := unseal(b, stateMagic)
	if err != nil {
		return err
	}
	slot, fenced := r.uint64(), r.byte() == 1
	acc := acceptor{promised: r.ballot(), accepted: r.ballot(), value: slices.Clone(r.blob())}
	if r.bad || len(r.rest) > 0 || acc.promised.less(acc.accepted) {
		return fmt.Errorf("%w: an agent's state with wrong fields", ErrCorrupt)
	}
	switch next := uint64(len(a.chain)) + 1; {
	case slot > next:
		return fmt.Errorf("%w: the state is of epoch %d, the chain ends at %d", ErrCorrupt, slot, next-1)
	case slot == next:
		a.acceptor, a.fenced = acc, fenced
	}
	return nil
}
