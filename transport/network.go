package transport

import (
	"crypto/hmac"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Link names one direction between two nodes of a Network.
type Link struct{ From, To string }

// Fate is what happens to one message.
type Fate struct {
	Drop   bool
	Delay  time.Duration // messages with different delays overtake each other
	Copies int           // further deliveries, each another Delay (at least 1 ms) later
}

// NetworkOptions configures a Network. The zero value is a perfect network.
type NetworkOptions struct {
	// Fate decides about the n-th message from one node to another, counted
	// from 0 over all their connections, those that open and close connections
	// included. Nil: all arrive at once and in order. See Chances.
	Fate func(l Link, n uint64) Fate
	// Schedule runs every delivery at its time, never from within the call. Nil:
	// by package time (virtual in a synctest bubble), one after the other,
	// ordered by time, then by the order in which they were sent.
	Schedule func(at time.Time, run func())
	// Now is the clock that Schedule understands; time.Now if nil.
	Now func() time.Time
}

// Network is a network in memory. It moves whole messages, and may delay, lose,
// duplicate and reorder them; a connection survives that, as it would survive
// nothing of the kind over TCP, so that what builds on it relies on nothing.
//
// Messages of closed and opened connections share the fate of the others: a
// connection whose end got lost is half-open, as in life.
type Network struct {
	o     NetworkOptions
	conns atomic.Uint64

	mu struct {
		sync.Mutex
		endpoints map[string]*memEndpoint // by address
		sent      map[Link]uint64
		cut       map[Link]bool
		groups    map[string]int // nil: no partition; nodes not named are group 0
	}
}

// NewNetwork gives an empty network. o may be nil.
func NewNetwork(o *NetworkOptions) *Network {
	n := &Network{}
	if o != nil {
		n.o = *o
	}
	if n.o.Now == nil {
		n.o.Now = now
	}
	if n.o.Schedule == nil {
		n.o.Schedule = (&timeline{}).schedule
	}
	n.mu.endpoints = make(map[string]*memEndpoint)
	n.mu.sent = make(map[Link]uint64)
	n.mu.cut = make(map[Link]bool)
	return n
}

// Transport gives the network as seen by the node with this name, which Link,
// Cut and Partition know it by. Addresses are any strings: Config.Listen is
// taken as it is.
func (n *Network) Transport(name string) Transport { return memTransport{n, name} }

// Cut loses everything that from sends to to, from now on and also what is on
// its way, until Heal.
func (n *Network) Cut(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.cut[Link{from, to}] = true
}

// Partition separates the groups from each other and from all other nodes,
// which form one more group. It replaces an earlier partition and leaves cuts.
func (n *Network) Partition(groups ...[]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.groups = make(map[string]int)
	for i, g := range groups {
		for _, name := range g {
			n.mu.groups[name] = i + 1
		}
	}
}

// Heal ends the partition and all cuts.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.groups = nil
	clear(n.mu.cut)
}

// severed reports whether nothing passes this link now.
func (n *Network) severed(l Link) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.cut[l] || n.mu.groups[l.From] != n.mu.groups[l.To]
}

// carry runs arrive, once or several times or never, as the fate of the next
// message on l says; gone, which may be nil, runs once when it is settled that
// no further arrival follows.
func (n *Network) carry(l Link, arrive, gone func()) {
	n.mu.Lock()
	number := n.mu.sent[l]
	n.mu.sent[l]++
	n.mu.Unlock()
	var f Fate
	if n.o.Fate != nil {
		f = n.o.Fate(l, number)
	}
	t := n.o.Now()
	if f.Drop || n.severed(l) {
		if gone != nil {
			n.o.Schedule(t.Add(f.Delay), gone)
		}
		return
	}
	step := max(f.Delay, time.Millisecond)
	for i := 0; i <= f.Copies; i++ {
		last := i == f.Copies
		n.o.Schedule(t.Add(f.Delay+time.Duration(i)*step), func() {
			if !n.severed(l) {
				arrive()
			}
			if last && gone != nil {
				gone()
			}
		})
	}
}

type memTransport struct {
	n    *Network
	name string
}

func (t memTransport) Open(cfg Config) (Endpoint, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	e := &memEndpoint{n: t.n, name: t.name, cfg: cfg, addr: cfg.Listen, conns: make(map[*memConn]bool)}
	if cfg.Advertise != "" {
		e.addr = cfg.Advertise
	}
	if cfg.Listen == "" {
		return e, nil
	}
	t.n.mu.Lock()
	defer t.n.mu.Unlock()
	if t.n.mu.endpoints[e.addr] != nil {
		return nil, fmt.Errorf("transport: listen on %s: address in use", e.addr)
	}
	t.n.mu.endpoints[e.addr] = e
	return e, nil
}

type memEndpoint struct {
	n    *Network
	name string
	addr string
	cfg  Config

	mu     sync.Mutex // guards what follows
	closed bool
	conns  map[*memConn]bool
	live   sync.WaitGroup // one per connection, until its Closed has returned
}

func (e *memEndpoint) Addr() string { return e.addr }

func (e *memEndpoint) Close() error {
	e.n.mu.Lock()
	if e.n.mu.endpoints[e.addr] == e {
		delete(e.n.mu.endpoints, e.addr)
	}
	e.n.mu.Unlock()
	e.mu.Lock()
	e.closed = true
	conns := make([]*memConn, 0, len(e.conns))
	for c := range e.conns {
		conns = append(conns, c)
	}
	e.mu.Unlock()
	sortByNumber(conns)
	for _, c := range conns {
		c.end(ErrShutdown, true)
		c.run(func() { c.finish() })
	}
	e.live.Wait()
	return nil
}

// add registers a connection, or reports that the endpoint is closed.
func (e *memEndpoint) add(c *memConn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.conns[c] = true
	e.live.Add(1)
	return true
}

func (e *memEndpoint) remove(c *memConn) {
	e.mu.Lock()
	delete(e.conns, c)
	e.mu.Unlock()
	e.live.Done()
}

// Dial is a handshake of two messages: the way there tells who dials, the way
// back who answers, or why not.
func (e *memEndpoint) Dial(addr string, h Handler) Conn {
	n := e.n
	c := n.newConn(e, h)
	if !e.add(c) {
		c.ended = ErrShutdown
		n.o.Schedule(n.o.Now(), func() { h.Closed(c, down(ErrShutdown)) })
		return c
	}
	n.o.Schedule(n.o.Now().Add(e.cfg.Limits.handshakeTimeout()), func() {
		if !c.isOpen() {
			c.end(errNoAnswer, false)
		}
	})
	n.mu.Lock()
	target := n.mu.endpoints[addr]
	n.mu.Unlock()
	if target == nil {
		n.o.Schedule(n.o.Now(), func() { c.end(errRefused, false) })
		return c
	}
	mine := e.cfg.Identity().complete()
	n.carry(Link{e.name, target.name}, func() { target.accept(c, mine) }, nil)
	return c
}

var (
	errNoAnswer = errors.New("no answer")
	errRefused  = errors.New("connection refused")
)

// accept is the arrival of a dial.
func (e *memEndpoint) accept(from *memConn, theirs Identity) {
	back := Link{e.name, from.e.name}
	refuse := func(err error) { e.n.carry(back, func() { from.end(err, false) }, nil) }
	if from.other() != nil {
		return // a duplicate
	}
	mine := e.cfg.Identity().complete()
	if _, err := mine.Version(theirs); err != nil {
		refuse(err)
		return
	}
	if !hmac.Equal(e.cfg.ClusterKey, from.e.cfg.ClusterKey) {
		refuse(ErrBadKey)
		return
	}
	c := e.n.newConn(e, e.cfg.Accept())
	c.peer = from
	if !e.add(c) {
		refuse(errRefused)
		return
	}
	from.mu.Lock()
	from.peer = c
	from.mu.Unlock()
	c.opened(theirs)
	e.n.carry(back, func() {
		if from.isOver() {
			from.hangUp()
			return
		}
		from.opened(mine)
	}, nil)
}
