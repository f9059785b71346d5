package transport

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
)

// out is the writing half of a connection: a double buffer that senders append
// frames to, and one writer at a time that takes it whole.
//
// The writer is usually a goroutine, woken by a sender. It yields before it takes
// the buffer if the last one held several frames: the other senders that are
// about to run add theirs first, and many frames leave in one system call. At
// the end of a batch a reader may be the writer, for one write that does not
// block; the goroutine finishes what is left.
//
//	idle --send, flush--> writing --nothing left--> idle
//
// Invariant: whoever set writing owns cur, off and direct, and either clears
// writing or passes it on with a token in wake. Close sets writing like a sender,
// so the goroutine always gets to see it.
type out struct {
	limits *Limits
	count  *traffic
	broken func(error) // closes the connection
	wake   chan struct{}
	// held: a reader is at work and will flush, so senders need not wake anybody.
	held atomic.Bool

	mu struct {
		sync.Mutex
		nc      net.Conn // nil until the connection is open
		buf     []byte   // frames that wait
		frames  int      // in buf
		spare   []byte
		flight  int // bytes in cur
		writing bool
		closed  bool
	}

	// Owned by whoever set writing.
	nc     net.Conn
	direct *directWriter // nil: this stream knows only blocking writes
	cur    []byte        // being written
	off    int           // how far
	last   int           // frames in cur
}

const (
	// keepBuffer is the largest buffer that is kept for the next frames.
	keepBuffer = 1 << 20
	// writePart is what a peer must take within WriteTimeout.
	writePart = 256 << 10
)

func newOut(l *Limits, count *traffic, broken func(error)) *out {
	return &out{limits: l, count: count, broken: broken, wake: make(chan struct{}, 1)}
}

// start lets the frames go that were sent before the connection was open. The
// caller then runs the writer. It reports false if the connection is closed.
func (o *out) start(nc net.Conn) bool {
	o.nc, o.direct = nc, newDirectWriter(nc)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.closed {
		return false
	}
	o.mu.nc = nc
	if o.mu.frames > 0 {
		o.wakeLocked()
	}
	return true
}

// wakeLocked makes the goroutine the writer. There is room for the token,
// because writing was false.
func (o *out) wakeLocked() {
	o.mu.writing = true
	o.wake <- struct{}{}
}

// send appends a frame. With lazy it waits for somebody else to start a write.
func (o *out) send(head, body []byte, lazy bool) error {
	if len(head)+len(body) > o.limits.frameBytes() {
		return ErrTooLarge
	}
	sum := checksum(head, body)
	size := frameHeader + len(head) + len(body)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.closed {
		return ErrDown
	}
	if waiting := len(o.mu.buf) + o.mu.flight; waiting > 0 && waiting+size > o.limits.queueBytes() {
		return ErrBusy
	}
	o.mu.buf = appendFrame(o.mu.buf, sum, head, body)
	o.mu.frames++
	if !lazy && !o.mu.writing && o.mu.nc != nil && !o.held.Load() {
		o.wakeLocked()
	}
	return nil
}

// flush writes what there is, once, as far as it goes without blocking. If
// somebody else is writing, that one will not stop before the buffer is empty.
func (o *out) flush() {
	o.mu.Lock()
	if o.mu.writing || o.mu.closed || o.mu.nc == nil || o.mu.frames == 0 {
		o.mu.Unlock()
		return
	}
	if o.direct == nil {
		o.wakeLocked()
		o.mu.Unlock()
		return
	}
	o.mu.writing = true
	o.swapLocked()
	o.mu.Unlock()

	err := o.writeDirect()
	if err != nil {
		o.broken(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.off == len(o.cur) && o.mu.frames == 0 && !o.mu.closed {
		o.retireLocked()
		o.mu.writing = false
		return
	}
	o.wakeLocked()
}

// run is the writer goroutine. It returns when the connection is closed.
func (o *out) run() {
	for range o.wake {
		if o.last > 1 {
			runtime.Gosched()
		}
		for {
			if err := o.finish(); err != nil {
				o.broken(err)
			}
			more, closed := o.next()
			if closed {
				return
			}
			if !more {
				break
			}
		}
	}
}

// next takes the waiting frames, or goes idle when there are none.
func (o *out) next() (more, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.retireLocked()
	switch {
	case o.mu.closed:
		o.mu.buf, o.mu.spare = nil, nil
		return false, true
	case o.mu.frames == 0:
		o.mu.writing = false
		return false, false
	}
	o.swapLocked()
	return true, false
}

func (o *out) swapLocked() {
	o.retireLocked()
	o.cur, o.off, o.last = o.mu.buf, 0, o.mu.frames
	o.mu.buf, o.mu.spare = o.mu.spare, nil
	o.mu.frames, o.mu.flight = 0, len(o.cur)
	o.count.framesOut.Add(uint64(o.last))
	o.count.bytesOut.Add(uint64(len(o.cur)))
}

// retireLocked makes the written buffer the spare one.
func (o *out) retireLocked() {
	if o.cur != nil && cap(o.cur) <= keepBuffer {
		o.mu.spare = o.cur[:0]
	}
	o.cur, o.off = nil, 0
	o.mu.flight = 0
}

// writeDirect writes what the stream takes at once.
func (o *out) writeDirect() error {
	o.count.writes.Add(1)
	n, err := o.direct.write(o.cur[o.off:])
	o.off += n
	return err
}

// finish writes the rest of cur, blocking. Only the goroutine does that.
func (o *out) finish() error {
	if o.direct != nil && o.off == 0 && len(o.cur) > 0 {
		if err := o.writeDirect(); err != nil {
			return err
		}
	}
	for o.off < len(o.cur) {
		part := o.cur[o.off:min(len(o.cur), o.off+writePart)]
		if err := o.nc.SetWriteDeadline(now().Add(o.limits.writeTimeout())); err != nil {
			return err
		}
		o.count.writes.Add(1)
		n, err := o.nc.Write(part)
		o.off += n
		if err != nil {
			return err
		}
	}
	return nil
}

// close refuses further frames and ends the goroutine, once the caller has
// closed the stream under a write that may be blocked.
func (o *out) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.closed {
		return
	}
	o.mu.closed = true
	if !o.mu.writing {
		o.wakeLocked()
	}
}

// traffic counts what the connections of an endpoint moved.
type traffic struct {
	writes, reads, framesOut, framesIn, bytesOut, bytesIn, refused atomic.Uint64
}
