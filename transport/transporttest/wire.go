package transporttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"example.com/kvstore/transport"
)

// Wire is a network of byte streams in memory, for what lies below the frames:
// bytes that come late, in pieces, altered, or not at all. It works in a
// synctest bubble. The zero value is a perfect wire.
type Wire struct {
	// Faults decides about one direction of the n-th connection, counted from
	// 0. Nil: nothing happens to any.
	Faults func(n int, toListener bool) StreamFaults

	mu        sync.Mutex // guards what follows
	listeners map[string]*wireListener
	conns     []*stream
	number    int
	stalled   bool
}

// StreamFaults happen to the bytes of one direction of one connection.
type StreamFaults struct {
	Delay   time.Duration // of every byte
	Piece   int           // a read gives at most so many bytes; 0: as many as there are
	Cut     int           // so many bytes arrive, then both directions break; 0: all
	Corrupt int           // this byte, counted from 1, arrives with a flipped bit; 0: none
}

// Transport is a transport.Stream over the wire. Addresses are any strings.
func (w *Wire) Transport() transport.Transport {
	return transport.Stream{Listen: w.Listen, Dial: w.Dial}
}

// Listen accepts connections at addr.
func (w *Wire) Listen(addr string) (net.Listener, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listeners == nil {
		w.listeners = make(map[string]*wireListener)
	}
	if w.listeners[addr] != nil {
		return nil, fmt.Errorf("listen on %s: address in use", addr)
	}
	l := &wireListener{w: w, addr: wireAddr(addr), queue: make(chan net.Conn, 128), done: make(chan struct{})}
	w.listeners[addr] = l
	return l, nil
}

// Dial connects to addr at once, or fails.
func (w *Wire) Dial(ctx context.Context, addr string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.listeners[addr]
	if l == nil {
		return nil, fmt.Errorf("dial %s: connection refused", addr)
	}
	var there, back StreamFaults
	if w.Faults != nil {
		there, back = w.Faults(w.number, true), w.Faults(w.number, false)
	}
	w.number++
	up, down := newStream(there), newStream(back)
	up.stalled, down.stalled = w.stalled, w.stalled
	up.twin, down.twin = down, up
	w.conns = append(w.conns, up)
	select {
	case l.queue <- &wireConn{in: up, out: down, local: l.addr, remote: "dialer"}:
	default:
		return nil, fmt.Errorf("dial %s: too many connections wait", addr)
	}
	return &wireConn{in: down, out: up, local: "dialer", remote: l.addr}, nil
}

// Break resets all connections.
func (w *Wire) Break() {
	for _, s := range w.all() {
		s.breakBoth()
	}
}

// Stall stops, or continues, the delivery of bytes on all connections: writers
// get stuck when about 64 KiB wait.
func (w *Wire) Stall(on bool) {
	w.mu.Lock()
	w.stalled = on
	w.mu.Unlock()
	for _, s := range w.all() {
		s.stall(on)
		s.twin.stall(on)
	}
}

func (w *Wire) all() []*stream {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*stream(nil), w.conns...)
}

type wireListener struct {
	w     *Wire
	addr  wireAddr
	queue chan net.Conn // capacity 128; never closed
	done  chan struct{} // closed by Close
	once  sync.Once
}

func (l *wireListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *wireListener) Close() error {
	l.once.Do(func() {
		l.w.mu.Lock()
		delete(l.w.listeners, string(l.addr))
		l.w.mu.Unlock()
		close(l.done)
	})
	for {
		select {
		case c := <-l.queue:
			c.Close()
		default:
			return nil
		}
	}
}

func (l *wireListener) Addr() net.Addr { return l.addr }

type wireAddr string

func (a wireAddr) Network() string { return "wire" }
func (a wireAddr) String() string  { return string(a) }

// wireConn is one end: it reads from in and writes to out.
type wireConn struct {
	in, out       *stream
	local, remote wireAddr
}

func (c *wireConn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *wireConn) Write(b []byte) (int, error) { return c.out.write(b) }
func (c *wireConn) LocalAddr() net.Addr         { return c.local }
func (c *wireConn) RemoteAddr() net.Addr        { return c.remote }

func (c *wireConn) Close() error {
	c.SetDeadline(time.Time{})
	c.in.change(func() { c.in.noRead = true })
	c.out.change(func() { c.out.noWrite = true })
	return nil
}

func (c *wireConn) SetDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readBy, t)
	c.out.setDeadline(&c.out.writeBy, t)
	return nil
}

func (c *wireConn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readBy, t)
	return nil
}

func (c *wireConn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.writeBy, t)
	return nil
}

// streamBuffer is how much a stream holds before its writers wait.
const streamBuffer = 64 << 10

var errReset = errors.New("connection reset")

// stream is one direction. Waiting is on cond, so no lock is held meanwhile.
type stream struct {
	f    StreamFaults
	twin *stream // the other direction

	mu      sync.Mutex // guards what follows
	cond    *sync.Cond
	chunks  [][]byte
	arrived int // how many of them may be read
	held    int // bytes in chunks
	written int
	stalled bool
	broken  bool
	noRead  bool // the reader has closed
	noWrite bool // the writer has closed
	readBy  deadline
	writeBy deadline
}

// deadline is a context that ends at a time, or nothing.
type deadline struct {
	ctx    context.Context
	cancel func()
}

func (d deadline) passed() bool { return d.ctx != nil && d.ctx.Err() != nil }

// errTimeout is what a passed deadline gives; a net.Error.
type errTimeout struct{}

func (errTimeout) Error() string   { return "deadline exceeded" }
func (errTimeout) Timeout() bool   { return true }
func (errTimeout) Temporary() bool { return true }

func newStream(f StreamFaults) *stream {
	s := &stream{f: f}
	s.cond = sync.NewCond(&s.mu)
	return s
}

func (s *stream) read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.noRead:
			return 0, net.ErrClosed
		case s.readBy.passed():
			return 0, errTimeout{}
		case s.arrived > 0 && !s.stalled:
			if s.f.Piece > 0 {
				b = b[:min(len(b), s.f.Piece)]
			}
			n := copy(b, s.chunks[0])
			if s.chunks[0] = s.chunks[0][n:]; len(s.chunks[0]) == 0 {
				s.chunks = s.chunks[1:]
				s.arrived--
			}
			s.held -= n
			s.cond.Broadcast()
			return n, nil
		case len(s.chunks) > 0: // later
		case s.broken:
			return 0, errReset
		case s.noWrite && !s.stalled:
			return 0, io.EOF
		}
		s.cond.Wait()
	}
}

func (s *stream) write(b []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n < len(b) {
		switch {
		case s.noWrite:
			return n, net.ErrClosed
		case s.broken || s.noRead:
			return n, errReset
		case s.writeBy.passed():
			return n, errTimeout{}
		case s.held >= streamBuffer:
			s.cond.Wait()
			continue
		}
		part := append([]byte(nil), b[n:min(len(b), n+streamBuffer-s.held)]...)
		if at := s.f.Corrupt - 1 - s.written; at >= 0 && at < len(part) {
			part[at] ^= 0x10
		}
		cut := s.f.Cut > 0 && s.written+len(part) > s.f.Cut
		if cut {
			part = part[:s.f.Cut-s.written]
		}
		n += len(part)
		s.written += len(part)
		if len(part) > 0 {
			s.held += len(part)
			s.chunks = append(s.chunks, part)
			if s.f.Delay > 0 {
				time.AfterFunc(s.f.Delay, s.arrive)
			} else {
				s.arrived++
				s.cond.Broadcast()
			}
		}
		if cut {
			s.mu.Unlock()
			s.breakBoth()
			s.mu.Lock()
		}
	}
	return n, nil
}

// arrive makes one more chunk readable.
func (s *stream) arrive() { s.change(func() { s.arrived++ }) }

func (s *stream) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.cond.Broadcast()
}

func (s *stream) breakBoth() {
	s.change(func() { s.broken = true })
	s.twin.change(func() { s.twin.broken = true })
}

func (s *stream) stall(on bool) { s.change(func() { s.stalled = on }) }

func (s *stream) setDeadline(d *deadline, t time.Time) {
	s.change(func() {
		if d.cancel != nil {
			d.cancel()
		}
		*d = deadline{}
		if t.IsZero() {
			return
		}
		ctx, cancel := context.WithDeadline(context.Background(), t)
		stop := context.AfterFunc(ctx, func() { s.change(func() {}) })
		*d = deadline{ctx, func() { stop(); cancel() }}
	})
}
