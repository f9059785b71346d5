package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// Stream is a Transport over byte streams: frames and handshake are those of
// PROTOCOL.md. TCP is one; Unix sockets, or a faulty wire for tests, are others.
type Stream struct {
	// Listen may be nil if no endpoint listens.
	Listen func(addr string) (net.Listener, error)
	// Dial gives up when ctx is done.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
}

// Open opens an endpoint.
func (s Stream) Open(cfg Config) (Endpoint, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	e := &streamEndpoint{stream: s, cfg: cfg, addr: cfg.Advertise, tls: tlsConfig(cfg.TLS), budget: newBudget(cfg.Limits.largeBytes())}
	e.mu.open = make(map[*streamConn]bool)
	e.mu.perHost = make(map[string]int)
	e.ctx, e.cancel = context.WithCancel(context.Background())
	if cfg.Listen != "" {
		ln, err := s.Listen(cfg.Listen)
		if err != nil {
			return nil, fmt.Errorf("transport: listen on %s: %w", cfg.Listen, err)
		}
		e.ln = ln
		if e.addr == "" {
			e.addr = ln.Addr().String()
		}
		e.live.Go(e.accept)
	}
	return e, nil
}

// streamEndpoint owns the listener and the connections of a node.
type streamEndpoint struct {
	stream Stream
	cfg    Config
	tls    *tls.Config
	ln     net.Listener // nil: it only dials
	addr   string
	ctx    context.Context // done when the endpoint is closed
	cancel context.CancelFunc
	budget *budget
	count  traffic
	live   sync.WaitGroup // every goroutine

	mu struct {
		sync.Mutex
		closed   bool
		open     map[*streamConn]bool // all but those in shaking; true: accepted
		accepted int
		perHost  map[string]int // of accepted
		shaking  []*streamConn  // accepted, and not yet known; the oldest first
	}
}

func (e *streamEndpoint) Addr() string { return e.addr }

func (e *streamEndpoint) Dial(addr string, h Handler) Conn {
	c := newStreamConn(e, h)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.closed {
		c.shut(ErrShutdown)
		go h.Closed(c, down(ErrShutdown)) // nobody waits for a closed endpoint
		return c
	}
	e.mu.open[c] = false
	e.live.Go(func() {
		nc, err := c.connect(addr)
		if err == nil {
			err = c.serve(nc, false)
		}
		c.finish(err)
		e.remove(c)
	})
	return c
}

// accept takes connections until the listener is closed. When it fails for
// another reason, such as too many open files, it tries again a little later.
func (e *streamEndpoint) accept() {
	const minWait, maxWait = 5 * time.Millisecond, time.Second
	wait := minWait
	for {
		nc, err := e.ln.Accept()
		switch {
		case err == nil:
			wait = minWait
			e.admit(nc)
		case e.ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		default:
			select {
			case <-time.After(wait):
				wait = min(2*wait, maxWait)
			case <-e.ctx.Done():
				return
			}
		}
	}
}

var (
	errCrowded = errors.New("transport: too many connections wait for their handshake")
	errTooMany = errors.New("transport: too many connections")
)

// admit lets a fresh connection shake hands. If too many do, the oldest goes:
// an honest node needs far less time than it takes to fill the queue.
func (e *streamEndpoint) admit(nc net.Conn) {
	c := newStreamConn(e, nil)
	c.host = host(nc.RemoteAddr().String())
	c.mu.nc = nc
	e.mu.Lock()
	if e.mu.closed || !e.roomLocked(c.host) {
		e.mu.Unlock()
		e.count.refused.Add(1)
		c.shut(errTooMany)
		return
	}
	var oldest *streamConn
	if len(e.mu.shaking) >= e.cfg.Limits.handshakes() {
		oldest = e.mu.shaking[0]
		e.mu.shaking = slices.Delete(e.mu.shaking, 0, 1)
	}
	e.mu.shaking = append(e.mu.shaking, c)
	e.live.Go(func() { e.receive(c, nc) })
	e.mu.Unlock()
	if oldest != nil {
		oldest.shut(errCrowded)
	}
}

// receive runs an accepted connection.
func (e *streamEndpoint) receive(c *streamConn, nc net.Conn) {
	sc, err := c.shake(nc, "")
	if err == nil {
		err = e.promote(c)
	}
	if err != nil {
		e.count.refused.Add(1)
		c.shut(err)
		e.remove(c)
		return
	}
	c.h = e.cfg.Accept()
	c.finish(c.serve(sc, true))
	e.remove(c)
}

// promote counts a connection as accepted.
func (e *streamEndpoint) promote(c *streamConn) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.mu.closed:
		return ErrShutdown
	case c.ctx.Err() != nil:
		return c.reason()
	case !e.roomLocked(c.host):
		return errTooMany
	}
	e.unshakeLocked(c)
	e.mu.open[c] = true
	e.mu.accepted++
	e.mu.perHost[c.host]++
	return nil
}

func (e *streamEndpoint) roomLocked(host string) bool {
	return e.mu.accepted < e.cfg.Limits.accepted() && e.mu.perHost[host] < e.cfg.Limits.acceptedPerHost()
}

func (e *streamEndpoint) unshakeLocked(c *streamConn) {
	if i := slices.Index(e.mu.shaking, c); i >= 0 {
		e.mu.shaking = slices.Delete(e.mu.shaking, i, i+1)
	}
}

// remove forgets a connection that is over.
func (e *streamEndpoint) remove(c *streamConn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.unshakeLocked(c)
	if e.mu.open[c] {
		e.mu.accepted--
		if e.mu.perHost[c.host]--; e.mu.perHost[c.host] == 0 {
			delete(e.mu.perHost, c.host)
		}
	}
	delete(e.mu.open, c)
}

func (e *streamEndpoint) Close() error {
	e.mu.Lock()
	first := !e.mu.closed
	e.mu.closed = true
	conns := slices.Clone(e.mu.shaking)
	for c := range e.mu.open {
		conns = append(conns, c)
	}
	e.mu.Unlock()
	e.cancel()
	var err error
	if first && e.ln != nil {
		err = e.ln.Close()
	}
	for _, c := range conns {
		c.shut(ErrShutdown)
	}
	e.live.Wait()
	return err
}

// Metrics gives what the connections moved; Mux.Metrics adds it to its own.
func (e *streamEndpoint) Metrics() Metrics {
	e.mu.Lock()
	open := len(e.mu.open)
	e.mu.Unlock()
	t := &e.count
	return Metrics{Open: open, Writes: t.writes.Load(), Reads: t.reads.Load(), Refused: t.refused.Load(),
		FramesOut: t.framesOut.Load(), FramesIn: t.framesIn.Load(), BytesOut: t.bytesOut.Load(), BytesIn: t.bytesIn.Load()}
}
