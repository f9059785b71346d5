package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// streamConn is a connection over a byte stream. One goroutine connects it and
// then reads it, and is the only one that calls the handler; another one writes.
type streamConn struct {
	e      *streamEndpoint
	h      Handler // nil until an accepted connection is open
	host   string  // of the dialer, on an accepted connection
	remote atomic.Pointer[Identity]
	out    *out
	ctx    context.Context // done when the connection is closed
	cancel context.CancelFunc

	mu struct {
		sync.Mutex
		nc  net.Conn // the stream itself, below TLS
		err error    // why the connection is closed
	}
}

func newStreamConn(e *streamEndpoint, h Handler) *streamConn {
	c := &streamConn{e: e, h: h}
	c.ctx, c.cancel = context.WithCancel(e.ctx)
	c.out = newOut(&e.cfg.Limits, &e.count, c.shut)
	return c
}

func (c *streamConn) Send(head, body []byte) error  { return c.because(c.out.send(head, body, false)) }
func (c *streamConn) Queue(head, body []byte) error { return c.because(c.out.send(head, body, true)) }
func (c *streamConn) Flush()                        { c.out.flush() }

// because adds why the connection is down.
func (c *streamConn) because(err error) error {
	if err != ErrDown {
		return err
	}
	return down(c.reason())
}

func (c *streamConn) Remote() Identity {
	if id := c.remote.Load(); id != nil {
		return *id
	}
	return Identity{}
}

func (c *streamConn) Close() error {
	c.shut(ErrShutdown)
	return nil
}

// shut closes the connection for the given reason; the first one counts. The
// reader then ends, and tells the handler.
func (c *streamConn) shut(reason error) {
	c.mu.Lock()
	if c.mu.err == nil {
		c.mu.err = reason
	}
	nc := c.mu.nc
	c.mu.Unlock()
	c.cancel()
	c.out.close()
	if nc != nil {
		nc.Close() // which ends a blocked read or write
	}
}

func (c *streamConn) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.err
}

// attach puts the stream below the connection, which may have been closed while
// it was dialed.
func (c *streamConn) attach(nc net.Conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.err != nil {
		nc.Close()
		return c.mu.err
	}
	c.mu.nc = nc
	return nil
}

// connect dials, for a connection of ours, and shakes hands.
func (c *streamConn) connect(addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.e.cfg.Limits.handshakeTimeout())
	defer cancel()
	nc, err := c.e.stream.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	if err := c.attach(nc); err != nil {
		return nil, err
	}
	return c.shake(nc, addr)
}

// shake secures the fresh stream and introduces the two sides, within
// HandshakeTimeout.
func (c *streamConn) shake(nc net.Conn, addr string) (net.Conn, error) {
	if err := nc.SetDeadline(now().Add(c.e.cfg.Limits.handshakeTimeout())); err != nil {
		return nil, err
	}
	dialer := addr != ""
	sc, err := secure(c.ctx, nc, c.e.tls, addr, dialer)
	if err != nil {
		return nil, err
	}
	id, err := handshake(sc, &c.e.cfg, dialer)
	if err != nil {
		return nil, tlsAlert(err)
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	c.remote.Store(&id)
	return sc, nil
}

// serve runs an open connection until it ends.
func (c *streamConn) serve(nc net.Conn, accepted bool) error {
	if !c.out.start(nc) {
		return c.reason()
	}
	c.e.live.Go(c.out.run)
	c.h.Opened(c)
	r := reader{c: c, nc: nc, hold: accepted, buf: make([]byte, readBuffer)}
	return r.run()
}

// finish tells the handler that the connection is over.
func (c *streamConn) finish(err error) {
	c.shut(err)
	if err = c.reason(); c.remote.Load() != nil {
		err = lost(err)
	} else {
		err = down(err)
	}
	c.h.Closed(c, err)
}

// readBuffer is the size of a reader's buffer. Larger frames get one of their
// own, for which they wait for their part of Limits.LargeBytes.
const readBuffer = 64 << 10

// reader takes frames from the stream and hands them to the handler, a buffer
// full at a time.
type reader struct {
	c    *streamConn
	nc   net.Conn
	hold bool // replies wait for the end of the batch
	buf  []byte
	n    int       // bytes in buf, the beginning of a frame
	due  time.Time // when the read deadline was set; zero: there is none
}

func (r *reader) run() error {
	for {
		n, err := r.nc.Read(r.buf[r.n:])
		r.n += n
		r.c.e.count.reads.Add(1)
		r.c.e.count.bytesIn.Add(uint64(n))
		batch, size, perr := r.batch()
		switch {
		case perr != nil:
			return perr
		case errors.Is(err, io.EOF) && r.n > 0:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
		if size > len(r.buf) {
			err = r.large(size)
		} else {
			err = r.limitTime(batch > 0)
		}
		if err != nil {
			return err
		}
		if batch > 1 {
			runtime.Gosched() // whom the batch woke sends before the next read
		}
	}
}

// batch hands over every whole frame and moves what is left to the front. It
// gives the number of frames, and the size of the one that is incomplete, as far
// as known.
func (r *reader) batch() (frames, size int, err error) {
	c, from := r.c, 0
	for {
		var msg []byte
		msg, size, err = parseFrame(r.buf[from:r.n], c.e.cfg.Limits.frameBytes())
		if err != nil || msg == nil {
			break
		}
		if frames == 0 && r.hold {
			c.out.held.Store(true)
		}
		c.h.Receive(c, msg)
		frames++
		from += size
	}
	if from > 0 {
		r.n = copy(r.buf, r.buf[from:r.n])
		r.end(frames)
	}
	return frames, size, err
}

// end closes a batch: the replies leave. Who sends after held is cleared wakes
// the writer; what was sent before is flushed here.
func (r *reader) end(frames int) {
	r.c.e.count.framesIn.Add(uint64(frames))
	if r.hold {
		r.c.out.held.Store(false)
		defer r.c.out.flush()
	}
	r.c.h.BatchEnd(r.c)
}

// limitTime sees to it that a frame that has begun arrives within FrameTimeout,
// or half of that under a stream of frames, where the deadline is not moved each
// time.
func (r *reader) limitTime(fresh bool) error {
	if r.n == 0 {
		if r.due.IsZero() {
			return nil
		}
		r.due = time.Time{}
		return r.nc.SetReadDeadline(time.Time{})
	}
	if !fresh && !r.due.IsZero() {
		return nil
	}
	timeout := r.c.e.cfg.Limits.frameTimeout()
	if t := now(); t.Sub(r.due) > timeout/2 {
		r.due = t
		return r.nc.SetReadDeadline(t.Add(timeout))
	}
	return nil
}

// large receives a frame that does not fit into the buffer.
func (r *reader) large(size int) error {
	c := r.c
	if !c.e.budget.take(size, c.ctx.Done()) {
		return c.reason()
	}
	defer c.e.budget.give(size)
	b := make([]byte, size)
	if err := r.nc.SetReadDeadline(now().Add(c.e.cfg.Limits.frameTimeout())); err != nil {
		return err
	}
	n := copy(b, r.buf[:r.n])
	if _, err := io.ReadFull(r.nc, b[n:]); err != nil {
		return err
	}
	r.n, r.due = 0, time.Time{}
	c.e.count.reads.Add(1)
	c.e.count.bytesIn.Add(uint64(size - n))
	if err := r.nc.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	msg, _, err := parseFrame(b, c.e.cfg.Limits.frameBytes())
	if err != nil {
		return err
	}
	c.out.held.Store(r.hold)
	c.h.Receive(c, msg)
	r.end(1)
	return nil
}
