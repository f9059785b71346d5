package transport

import (
	"crypto/tls"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// MuxConfig configures a Mux. The first fields are those of Config.
type MuxConfig struct {
	Listen, Advertise string
	Identity          func() Identity
	ClusterKey        []byte
	TLS               *tls.Config
	Limits            Limits
	// Handle is called for every call and one-way message that arrives, inline
	// in the connection's reader: it must not block. It may be nil for a node
	// that only calls others.
	Handle func(*Request)
	// Seed makes the jitter of redials reproducible.
	Seed uint64
}

// Mux sends calls and one-way messages to other nodes and answers theirs.
type Mux struct {
	cfg   MuxConfig
	ep    Endpoint
	start time.Time // deadlines in rings count from here

	count struct{ busy, expired, late, lost, dials, malformed atomic.Uint64 }

	// armed: the sweeper's timer runs, or the sweeper itself. See sweep.
	armed  atomic.Bool
	timer  *time.Timer
	sweeps sync.WaitGroup // one while armed

	mu struct {
		sync.Mutex // before Peer.mu, if both
		closed     bool
		peers      map[string]*Peer // by address
		order      []*Peer          // by creation, so that nothing depends on map order
		inbound    []Conn           // open, dialed by others
		leaving    bool
		gone       chan struct{} // closed, and set to nil, when inbound is empty while leaving
	}
}

// NewMux opens an endpoint of t.
func NewMux(t Transport, cfg MuxConfig) (*Mux, error) {
	m := &Mux{cfg: cfg, start: now()}
	m.mu.peers = make(map[string]*Peer)
	m.timer = time.AfterFunc(time.Hour, m.sweep)
	m.timer.Stop()
	ep, err := t.Open(Config{
		Listen: cfg.Listen, Advertise: cfg.Advertise, Identity: cfg.Identity,
		ClusterKey: cfg.ClusterKey, TLS: cfg.TLS, Limits: cfg.Limits,
		Accept: func() Handler { return &inbound{m: m} },
	})
	if err != nil {
		return nil, err
	}
	m.ep = ep
	return m, nil
}

// Addr is the address that other nodes reach this one by.
func (m *Mux) Addr() string { return m.ep.Addr() }

// Peer gives the handle of the node at addr, the same one each time. It is
// dialed at the first call.
func (m *Mux) Peer(addr string) *Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.mu.peers[addr]
	if p == nil {
		p = &Peer{m: m, addr: addr, calls: newPending(m.cfg.Limits.calls())}
		p.mu.closed = m.mu.closed
		m.mu.peers[addr] = p
		m.mu.order = append(m.mu.order, p)
	}
	return p
}

// forget drops a closed peer.
func (m *Mux) forget(p *Peer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.peers[p.addr] != p {
		return
	}
	delete(m.mu.peers, p.addr)
	order := make([]*Peer, 0, len(m.mu.order)) // a sweep may be reading the old one
	for _, q := range m.mu.order {
		if q != p {
			order = append(order, q)
		}
	}
	m.mu.order = order
}

// arrived and departed keep the list of connections that others dialed.
func (m *Mux) arrived(c Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.inbound = append(m.mu.inbound, c)
	if m.mu.leaving {
		_ = c.Send(appendLeave(nil), nil)
	}
}

func (m *Mux) departed(c Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.Index(m.mu.inbound, c)
	if i < 0 {
		return // it was never open
	}
	m.mu.inbound = slices.Delete(m.mu.inbound, i, i+1)
	if m.mu.gone != nil && len(m.mu.inbound) == 0 {
		close(m.mu.gone)
		m.mu.gone = nil
	}
}

// Leave comes before Close and spares others calls whose outcome is unknown: whoever
// has a connection to this node is told to send nothing more, and hangs up when its
// pending calls are answered, for which requests are handled as before. It returns when
// all have, or the time is over. Whoever connects meanwhile is told the same; what it sends
// just before Close may still be lost. One call at a time.
func (m *Mux) Leave(within time.Duration) {
	gone := make(chan struct{})
	m.mu.Lock()
	m.mu.leaving = true
	all := slices.Clone(m.mu.inbound)
	if len(all) > 0 {
		m.mu.gone = gone
	}
	m.mu.Unlock()
	if len(all) == 0 {
		return
	}
	for _, c := range all {
		_ = c.Send(appendLeave(nil), nil) // to one that is closed or does not read: it need not know
	}
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-gone:
	case <-timer.C:
	}
}

// Close closes all connections; pending calls end with ErrClosed. It waits for
// the last handler and completion, so it must not be called from one. It may be
// called twice.
func (m *Mux) Close() error {
	m.mu.Lock()
	m.mu.closed = true
	peers := m.mu.order
	m.mu.Unlock()
	for _, p := range peers {
		p.shut()
	}
	err := m.ep.Close() // every pending call is failed by its connection's end
	if m.timer.Stop() {
		m.sweeps.Done()
	}
	m.sweeps.Wait()
	return err
}

// sweepInterval is how often deadlines are looked at, and so how late a call
// may learn of its own. The odd rest keeps it from the instants in which a dial
// that began with the same call gives up: a simulation cannot tell which of two
// timers of one instant comes first.
const sweepInterval = 20*time.Millisecond + 7*time.Nanosecond

// arm starts the sweeper. It is called after a call was claimed.
func (m *Mux) arm() {
	if m.armed.Load() || !m.armed.CompareAndSwap(false, true) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return
	}
	m.sweeps.Add(1)
	m.timer.Reset(sweepInterval)
}

// sweep completes the calls whose deadline has passed, and goes on as long as
// calls are pending.
//
// Invariant: when a call is pending, armed is true. A call is claimed before
// armed is read; armed is cleared before the rings are looked at again. So
// either the call sees that armed is false, or the sweeper sees the call.
func (m *Mux) sweep() {
	defer m.sweeps.Done()
	m.mu.Lock()
	peers, closed := m.mu.order, m.mu.closed
	m.mu.Unlock()
	if closed {
		return
	}
	t := now()
	remain := false
	for _, p := range peers {
		remain = p.sweep(t) || remain
	}
	if !remain {
		m.armed.Store(false)
		m.mu.Lock()
		peers = m.mu.order // there may be another one
		m.mu.Unlock()
		for _, p := range peers {
			remain = remain || !p.calls.idle()
		}
		if remain {
			m.arm()
		}
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.mu.closed {
		m.sweeps.Add(1)
		m.timer.Reset(sweepInterval)
	}
}
