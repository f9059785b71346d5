package transport

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Peer is the handle of one other node: one connection, made at the first call
// and made again, with growing pauses, whenever it is lost.
type Peer struct {
	m     *Mux
	addr  string
	calls *pending
	link  atomic.Pointer[link] // nil while there is no connection
	down  atomic.Bool          // the last connection failed, and no other is open yet

	mu struct {
		sync.Mutex
		closed  bool
		waiting bool // link.Closed is at work, or retry is running
		attempt int
		retry   *time.Timer
		err     error // why down
	}
}

// Pauses between attempts to connect grow from the first to the second, with up
// to a half taken off at random.
const (
	minPause = 50 * time.Millisecond
	maxPause = 2 * time.Second
	// mostLeaves bounds how far they grow with connections on which the other side said at
	// once that it leaves: it may be back soon.
	mostLeaves = 3
)

// Addr is the address the peer was asked for by.
func (p *Peer) Addr() string { return p.addr }

// Up is false after a connection failed or was lost, until the next one is
// open. It is true when none was tried yet.
func (p *Peer) Up() bool { return !p.down.Load() }

// Err says why the peer is not up: nil when it is.
func (p *Peer) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.err
}

// Remote is the identity of the node that answers at this address; the zero
// Identity while there is no connection.
func (p *Peer) Remote() Identity {
	if l := p.link.Load(); l != nil {
		return l.c.Remote()
	}
	return Identity{}
}

// Call sends a request of head+body. Both are copied before it returns. A
// non-nil error means that nothing was sent and c is never called; otherwise c
// is called exactly once, at the latest about sweepInterval after the deadline.
// The zero deadline is one hour away, which is also the furthest that the other
// side is told of.
func (p *Peer) Call(op uint8, deadline time.Time, head, body []byte, c Completion, tag uint64) error {
	l, err := p.connect()
	if err != nil {
		return err
	}
	t := now()
	if deadline.IsZero() {
		deadline = t.Add(maxRemaining)
	}
	remaining := deadline.Sub(t)
	if remaining <= 0 {
		return ErrDeadline
	}
	id, ok := p.calls.claim(c, tag, int64(deadline.Sub(p.m.start)))
	if !ok {
		p.m.count.busy.Add(1)
		return ErrBusy
	}
	p.m.arm()
	if l.left.Load() {
		// It may be that nobody waits for this one. See leave.
		if _, _, ours := p.calls.take(id); ours {
			return down(ErrLeaving)
		}
		return nil
	}
	s := newScratch()
	s.b = append(appendCall(s.b, op, remaining, id), head...)
	err = l.c.Send(s.b, body)
	s.free()
	if err == nil {
		return nil
	}
	if _, _, ours := p.calls.take(id); !ours {
		return nil // the sweeper or the end of the connection has completed it
	}
	return p.refused(err)
}

// Send sends a one-way message of head+body. Both are copied before it returns.
// A nil error does not say that it will arrive.
func (p *Peer) Send(op uint8, head, body []byte) error {
	l, err := p.connect()
	if err != nil {
		return err
	}
	s := newScratch()
	s.b = append(appendOneWay(s.b, op), head...)
	err = l.c.Send(s.b, body)
	s.free()
	return p.refused(err)
}

func (p *Peer) refused(err error) error {
	if errors.Is(err, ErrBusy) {
		p.m.count.busy.Add(1)
	}
	return err
}

// Close gives the peer up: its connection is closed and not made again. A later
// Mux.Peer with the same address gives a new handle.
func (p *Peer) Close() {
	p.shut()
	if l := p.link.Load(); l != nil {
		l.c.Close()
	}
	p.m.forget(p)
}

// shut ends the redialing.
func (p *Peer) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.closed = true
	p.mu.err = ErrShutdown
	p.down.Store(true)
	if p.mu.retry != nil {
		p.mu.retry.Stop()
	}
}

// connect gives the link to send on, and starts one if that was never tried. A
// peer that is down is left to the retries: the caller is told at once.
func (p *Peer) connect() (*link, error) {
	if l := p.link.Load(); l != nil && !p.down.Load() {
		return l, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.mu.closed:
		return nil, ErrShutdown
	case p.mu.err != nil:
		return nil, p.mu.err
	case p.mu.waiting:
		return nil, ErrDown
	case p.link.Load() == nil:
		p.dialLocked()
	}
	return p.link.Load(), nil
}

// dialLocked starts a connection. Dial does no I/O and calls no handler before
// it returns, so it may be called under the lock.
func (p *Peer) dialLocked() {
	p.m.count.dials.Add(1)
	l := &link{p: p}
	l.c = p.m.ep.Dial(p.addr, l)
	p.link.Store(l)
}

func (p *Peer) redial() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mu.closed {
		p.mu.waiting = false
		p.dialLocked()
	}
}

// sweep completes expired calls and reports whether others are pending.
func (p *Peer) sweep(t time.Time) (remain bool) {
	l := p.link.Load()
	left := l != nil && l.left.Load()
	expired, remain := p.calls.expire(int64(t.Sub(p.m.start)), ErrDeadline)
	p.m.count.expired.Add(uint64(expired))
	if l != nil {
		l.watch(expired, remain)
		if left && !remain {
			l.c.Close()
		}
	}
	return remain
}

// link is one connection to a peer: the handler of what comes back on it.
type link struct {
	p     *Peer
	c     Conn
	open  atomic.Bool
	left  atomic.Bool // the other side is leaving
	heard atomic.Bool // something arrived since the last sweep

	attempts int       // that it took; owned by p.mu
	opened   time.Time // owned by p.mu

	silent time.Duration // how long calls were pending and nothing was heard; owned by the sweeper
}

// watch closes a connection that is dead though nobody said so: calls expire on
// it, and nothing arrives for StallTimeout while calls are pending.
func (l *link) watch(expired int, remain bool) {
	if l.heard.Swap(false) {
		l.silent = 0
	} else if expired > 0 || remain {
		l.silent += sweepInterval
	}
	if expired > 0 && l.open.Load() && l.silent >= l.p.m.cfg.Limits.stallTimeout() {
		l.c.Close()
	}
}

func (l *link) Opened(Conn) {
	l.open.Store(true)
	l.heard.Store(true)
	p := l.p
	p.mu.Lock()
	defer p.mu.Unlock()
	l.attempts, l.opened, p.mu.attempt = p.mu.attempt, now(), 0
	if !p.mu.closed {
		p.mu.err = nil
		p.down.Store(false)
	}
}

func (l *link) Receive(c Conn, msg []byte) {
	if !l.heard.Load() {
		l.heard.Store(true)
	}
	m, err := decodeMessage(msg)
	if err == nil && m.kind == kindLeave {
		l.leave()
		return
	}
	if err != nil || m.kind != kindReply && m.kind != kindFail {
		l.p.m.count.malformed.Add(1)
		c.Close()
		return
	}
	done, tag, ok := l.p.calls.take(m.id)
	switch {
	case !ok:
		l.p.m.count.late.Add(1)
	case m.kind == kindFail:
		done.Complete(tag, nil, &RemoteError{Code: m.op, Text: string(m.body[:min(len(m.body), maxFailText)])})
	default:
		done.Complete(tag, m.body, nil)
	}
}

// leave takes the peer out of use until it is dialed again. The connection stays open
// for what is pending: the sweeper closes it after that.
//
// Invariant: who looks for pending calls has seen left before. So a call that is claimed
// too late to be seen sees left itself, and is not sent.
func (l *link) leave() {
	p := l.p
	l.left.Store(true)
	p.mu.Lock()
	if now().Sub(l.opened) < maxPause {
		p.mu.attempt = min(l.attempts, mostLeaves)
	}
	if !p.mu.closed {
		p.mu.err = down(ErrLeaving)
	}
	p.down.Store(true)
	p.mu.Unlock()
	if p.calls.idle() {
		l.c.Close()
	}
}

func (l *link) BatchEnd(Conn) {}

// Closed fails the calls of this connection before another one is started.
func (l *link) Closed(_ Conn, err error) {
	p := l.p
	if l.open.Load() {
		err = lost(err)
		p.m.count.lost.Add(1)
	} else {
		err = down(err)
	}
	p.mu.Lock()
	p.mu.waiting = true
	if !p.mu.closed {
		p.mu.err = down(err)
	}
	p.down.Store(true)
	p.link.Store(nil)
	p.mu.Unlock()

	p.calls.fail(err)

	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mu.closed {
		p.mu.retry = time.AfterFunc(p.pauseLocked(), p.redial)
	}
}

// pauseLocked gives the pause before the next attempt. p.mu is held.
func (p *Peer) pauseLocked() time.Duration {
	d := maxPause
	if p.mu.attempt < 8 {
		d = min(minPause<<p.mu.attempt, maxPause)
	}
	p.mu.attempt++
	h := hash(p.m.cfg.Seed, p.m.Addr(), p.addr, uint64(p.mu.attempt))
	return d - time.Duration(h%uint64(d/2))
}
