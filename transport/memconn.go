package transport

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
)

// memConn is one end of a connection of a Network.
//
// What happens to it (open, message, end) is put into its inbox and run by
// whoever finds nobody running it, so handlers are called one at a time and
// never under a lock, on whatever goroutines the deliveries come.
type memConn struct {
	e      *memEndpoint
	h      Handler
	number uint64 // of the connection, for a reproducible order
	remote atomic.Pointer[Identity]

	mu      sync.Mutex // guards what follows
	peer    *memConn   // the other end, once it is known to be there
	queued  [][]byte   // sent before the connection was open
	bytes   int        // sent, and not yet arrived or lost
	ended   error      // why the connection is over
	inbox   []func()
	running bool

	finished bool // Closed was called; owned by the inbox
}

func (n *Network) newConn(e *memEndpoint, h Handler) *memConn {
	return &memConn{e: e, h: h, number: n.conns.Add(1)}
}

func sortByNumber(cs []*memConn) {
	slices.SortFunc(cs, func(a, b *memConn) int { return cmp.Compare(a.number, b.number) })
}

// run puts f into the inbox and empties that, unless somebody is at it already.
func (c *memConn) run(f func()) {
	c.mu.Lock()
	c.inbox = append(c.inbox, f)
	if c.running {
		c.mu.Unlock()
		return
	}
	c.running = true
	for len(c.inbox) > 0 {
		f := c.inbox[0]
		c.inbox = c.inbox[1:]
		c.mu.Unlock()
		f()
		c.mu.Lock()
	}
	c.running = false
	c.mu.Unlock()
}

func (c *memConn) isOpen() bool { return c.remote.Load() != nil }

func (c *memConn) isOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended != nil
}

func (c *memConn) other() *memConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer
}

func (c *memConn) Remote() Identity {
	if id := c.remote.Load(); id != nil {
		return *id
	}
	return Identity{}
}

func (c *memConn) Send(head, body []byte) error {
	l := &c.e.cfg.Limits
	size := len(head) + len(body)
	if size > l.frameBytes() {
		return ErrTooLarge
	}
	msg := append(append(make([]byte, 0, size), head...), body...)
	c.mu.Lock()
	if c.ended != nil {
		c.mu.Unlock()
		return ErrDown
	}
	if c.bytes > 0 && c.bytes+size > l.queueBytes() {
		c.mu.Unlock()
		return ErrBusy
	}
	c.bytes += size
	open := c.isOpen()
	if !open {
		c.queued = append(c.queued, msg)
	}
	c.mu.Unlock()
	if open {
		c.carry(msg)
	}
	return nil
}

func (c *memConn) Queue(head, body []byte) error { return c.Send(head, body) }

func (c *memConn) Flush() {}

// Close ends the connection on this side now; Closed follows, and the other side
// learns of it if the message arrives.
func (c *memConn) Close() error {
	c.end(lost(nil), true)
	return nil
}

// carry sends a message to the other end.
func (c *memConn) carry(msg []byte) {
	o := c.other()
	c.e.n.carry(Link{c.e.name, o.e.name}, func() { o.receive(msg) }, func() {
		c.mu.Lock()
		c.bytes -= len(msg)
		c.mu.Unlock()
	})
}

// opened lets the connection begin: at the accepting end when the dial arrives,
// at the dialing end when the answer does.
func (c *memConn) opened(theirs Identity) {
	c.run(func() {
		c.mu.Lock()
		if c.ended != nil || c.isOpen() {
			c.mu.Unlock()
			return
		}
		c.remote.Store(&theirs)
		queued := c.queued
		c.queued = nil
		c.mu.Unlock()
		c.h.Opened(c)
		for _, msg := range queued {
			c.carry(msg)
		}
	})
}

// receive is the arrival of a message. To a connection that is over it brings
// back the news of that; one that overtakes the answer to the dial brings it
// along.
func (c *memConn) receive(msg []byte) {
	if !c.isOpen() {
		c.opened(c.other().e.cfg.Identity().complete())
	}
	msg = slices.Clone(msg) // a handler may write into it, and there may be copies
	c.run(func() {
		if c.isOver() {
			c.hangUp()
			return
		}
		c.h.Receive(c, msg)
		clear(msg) // it dies with the return, so let that show
		c.h.BatchEnd(c)
	})
}

// end closes this end for the given reason; tell says whether the other one
// should hear of it.
func (c *memConn) end(reason error, tell bool) {
	c.mu.Lock()
	first := c.ended == nil
	if first {
		c.ended = reason
	}
	c.mu.Unlock()
	if !first {
		return
	}
	if tell {
		c.hangUp()
	}
	c.e.n.o.Schedule(c.e.n.o.Now(), func() { c.run(c.finish) })
}

// hangUp tells the other end that this one is over.
func (c *memConn) hangUp() {
	if o := c.other(); o != nil {
		c.e.n.carry(Link{c.e.name, o.e.name}, func() { o.end(lost(nil), false) }, nil)
	}
}

// finish tells the handler; it runs in the inbox.
func (c *memConn) finish() {
	if c.finished {
		return
	}
	c.finished = true
	reason := c.ended
	if c.isOpen() {
		reason = lost(reason)
	} else {
		reason = down(reason)
	}
	c.h.Closed(c, reason)
	c.e.remove(c)
}
