// Package transporttest says whether a transport.Transport does what the
// interface promises, and has a faulty wire to test what is built on streams.
package transporttest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"example.com/kvstore/transport"
)

// Nodes gives, at each call, the transport of another node and an address that
// it can listen on. All nodes of one test must be able to reach each other.
type Nodes func() (t transport.Transport, listen string)

// Run runs the conformance suite. start is called once per test.
func Run(t *testing.T, start func(t *testing.T) Nodes) {
	tests := []struct {
		name string
		run  func(*suite)
	}{
		{"Exchange", exchange},
		{"Sizes", sizes},
		{"SendCopies", sendCopies},
		{"Identities", identities},
		{"IdentityAtHandshake", identityAtHandshake},
		{"OneHandlerAtATime", oneAtATime},
		{"NoReentry", noReentry},
		{"Bounded", bounded},
		{"TooLarge", tooLarge},
		{"NobodyThere", nobodyThere},
		{"Refusals", refusals},
		{"CloseConn", closeConn},
		{"CloseAccepted", closeAccepted},
		{"CloseEndpoint", closeEndpoint},
		{"Mux", mux},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(&suite{T: t, nodes: start(t)}) })
	}
}

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

type suite struct {
	*testing.T
	nodes Nodes
}

// open opens the endpoint of a new node. change may alter the configuration.
func (s *suite) open(node string, accept func() transport.Handler, change func(*transport.Config)) transport.Endpoint {
	s.Helper()
	tr, listen := s.nodes()
	cfg := transport.Config{Listen: listen, Accept: accept,
		Identity: func() transport.Identity { return transport.Identity{Name: "suite", Node: node} },
		Limits:   transport.Limits{HandshakeTimeout: 2 * time.Second}}
	if change != nil {
		change(&cfg)
	}
	e, err := tr.Open(cfg)
	if err != nil {
		s.Fatalf("Open: %v", err)
	}
	s.Cleanup(func() { e.Close() })
	return e
}

// pair connects a new node "a" to a new node "b", whose side is the acceptor.
func (s *suite) pair(dialer, acceptor transport.Handler) (a, b transport.Endpoint, c transport.Conn) {
	s.Helper()
	b = s.open("b", func() transport.Handler { return acceptor }, nil)
	a = s.open("a", func() transport.Handler { return newLog() }, nil)
	return a, b, a.Dial(b.Addr(), dialer)
}

// log is a Handler that keeps what it is told, and checks the order of it.
type log struct {
	opened chan transport.Conn
	got    chan []byte
	closed chan error
	answer bool          // send every message back
	block  chan struct{} // if not nil, Receive waits for it

	mu     sync.Mutex // guards what follows
	state  string
	inside int
	faults []string
}

func newLog() *log {
	return &log{opened: make(chan transport.Conn, 1), got: make(chan []byte, 1<<16), closed: make(chan error, 1)}
}

// enter notes a call of the handler; the result notes its return.
func (l *log) enter(method string) func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inside++; l.inside > 1 {
		l.faults = append(l.faults, method+" was called while another method ran")
	}
	switch {
	case l.state == "Closed":
		l.faults = append(l.faults, method+" was called after Closed")
	case method == "Opened" && l.state != "":
		l.faults = append(l.faults, "Opened was called after "+l.state)
	case (method == "Receive" || method == "BatchEnd") && l.state == "":
		l.faults = append(l.faults, method+" was called before Opened")
	}
	l.state = method
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.inside--
	}
}

func (l *log) Opened(c transport.Conn) {
	defer l.enter("Opened")()
	l.opened <- c
}

func (l *log) Receive(c transport.Conn, msg []byte) {
	defer l.enter("Receive")()
	if l.block != nil {
		<-l.block
	}
	l.got <- bytes.Clone(msg)
	if l.answer {
		c.Send([]byte("re: "), msg)
	}
	clear(msg) // it is ours until we return
}

func (l *log) BatchEnd(c transport.Conn) {
	defer l.enter("BatchEnd")()
	c.Flush()
}

func (l *log) Closed(_ transport.Conn, err error) {
	defer l.enter("Closed")()
	l.closed <- err
}

// check reports calls that came in a wrong order.
func (l *log) check(s *suite) {
	s.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.faults {
		s.Error(f)
	}
}

// acceptor opens the endpoint of a new node that gives every connection a log of
// its own.
func (s *suite) acceptor(node string) (transport.Endpoint, <-chan *log) {
	s.Helper()
	logs := make(chan *log, 16)
	e := s.open(node, func() transport.Handler {
		l := newLog()
		logs <- l
		return l
	}, nil)
	return e, logs
}

func wait[T any](s *suite, ch <-chan T, what string) T {
	s.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-ch:
		return v
	case <-timer.C:
		s.Fatalf("waited %v for %s", patience, what)
		panic("unreachable")
	}
}

func (s *suite) send(c transport.Conn, msg string) {
	s.Helper()
	if err := c.Send([]byte(msg[:len(msg)/2]), []byte(msg[len(msg)/2:])); err != nil {
		s.Fatalf("Send: %v", err)
	}
}

// Messages go both ways, sent before the connection is open or later.
func exchange(s *suite) {
	here, there := newLog(), newLog()
	there.answer = true
	_, _, c := s.pair(here, there)
	for i := range 100 {
		if i == 50 {
			wait(s, here.opened, "the connection")
		}
		if i%2 == 0 {
			s.send(c, fmt.Sprintf("message %d", i))
		} else if err := c.Queue([]byte("message"), fmt.Appendf(nil, " %d", i)); err != nil {
			s.Fatalf("Queue: %v", err)
		}
	}
	c.Flush()
	seen := make(map[string]bool)
	for len(seen) < 100 {
		seen[string(wait(s, here.got, "a reply"))] = true
	}
	for i := range 100 {
		if !seen[fmt.Sprintf("re: message %d", i)] {
			s.Errorf("message %d was altered or lost", i)
		}
	}
	here.check(s)
	there.check(s)
}

func sizes(s *suite) {
	here, there := newLog(), newLog()
	_, _, c := s.pair(here, there)
	for _, n := range []int{1, 2, 100, 4<<10 - 1, 64<<10 - 8, 64 << 10, 64<<10 + 1, 1 << 20, 3 << 20} {
		msg := make([]byte, n)
		for i := range msg {
			msg[i] = byte(i * 7 >> 3)
		}
		var err error
		for first := true; first || errors.Is(err, transport.ErrBusy); first = false {
			err = c.Send(msg[:n/3], msg[n/3:]) // the one before may still be on its way
		}
		if err != nil {
			s.Fatalf("Send of %d bytes: %v", n, err)
		}
		if got := wait(s, there.got, fmt.Sprintf("a message of %d bytes", n)); !bytes.Equal(got, msg) {
			s.Errorf("a message of %d bytes arrived as another one, of %d bytes", n, len(got))
		}
	}
	there.check(s)
}

func sendCopies(s *suite) {
	here, there := newLog(), newLog()
	_, _, c := s.pair(here, there)
	head, body := []byte("head"), []byte("body")
	if err := c.Send(head, body); err != nil {
		s.Fatalf("Send: %v", err)
	}
	clear(head)
	clear(body)
	if got := wait(s, there.got, "the message"); string(got) != "headbody" {
		s.Errorf("the message changed with the memory it was sent from: %q", got)
	}
}

func identities(s *suite) {
	here, there := newLog(), newLog()
	_, b, c := s.pair(here, there)
	if id := c.Remote(); id != (transport.Identity{}) && id.Node != "b" {
		s.Errorf("Remote before the connection was open: %+v", id)
	}
	wait(s, here.opened, "the connection")
	if id := c.Remote(); id.Node != "b" || id.Name != "suite" {
		s.Errorf("the dialer sees %+v", id)
	}
	if id := wait(s, there.opened, "the accepted connection").Remote(); id.Node != "a" {
		s.Errorf("the acceptor sees %+v", id)
	}
	if b.Addr() == "" {
		s.Error("an endpoint that listens has no address")
	}
}

// A node that joins changes its identity; the next handshake says so.
func identityAtHandshake(s *suite) {
	b, accepted := s.acceptor("b")
	var mu sync.Mutex
	node := "before"
	a := s.open("", nil, func(c *transport.Config) {
		c.Listen = ""
		c.Identity = func() transport.Identity {
			mu.Lock()
			defer mu.Unlock()
			return transport.Identity{Name: "suite", Node: node}
		}
	})
	for _, want := range []string{"before", "after"} {
		mu.Lock()
		node = want
		mu.Unlock()
		here := newLog()
		c := a.Dial(b.Addr(), here)
		there := wait(s, accepted, "the accepted connection")
		if id := wait(s, there.opened, "the accepted connection").Remote(); id.Node != want {
			s.Errorf("the acceptor sees %q instead of %q", id.Node, want)
		}
		c.Close()
		wait(s, here.closed, "the end")
		wait(s, there.closed, "the end")
	}
}

func oneAtATime(s *suite) {
	here, there := newLog(), newLog()
	there.answer = true
	_, _, c := s.pair(here, there)
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for range 200 {
				for errors.Is(c.Send([]byte("x"), nil), transport.ErrBusy) {
				}
			}
		})
	}
	senders.Wait()
	for range 8 * 200 {
		wait(s, here.got, "a reply")
	}
	here.check(s)
	there.check(s)
}

// No method of a Conn or Endpoint calls a handler, so all of them may be called
// under a lock that the handlers take as well.
func noReentry(s *suite) {
	var mu sync.Mutex
	locked := func(f func()) {
		mu.Lock()
		defer mu.Unlock()
		f()
	}
	b, _ := s.acceptor("b")
	a, _ := s.acceptor("a")
	_, free := s.nodes()
	for _, addr := range []string{b.Addr(), free} {
		h := &locker{log: newLog(), mu: &mu}
		var c transport.Conn
		locked(func() { c = a.Dial(addr, h) })
		locked(func() { c.Send([]byte("x"), nil) })
		locked(func() { c.Flush() })
		locked(func() { c.Close() })
		wait(s, h.closed, "the end")
	}
}

type locker struct {
	*log
	mu *sync.Mutex
}

func (l *locker) Opened(c transport.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log.Opened(c)
}

func (l *locker) Closed(c transport.Conn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log.Closed(c, err)
}

// A peer that does not read costs bounded memory and nobody's time.
func bounded(s *suite) {
	here, there := newLog(), newLog()
	there.block = make(chan struct{})
	b := s.open("b", func() transport.Handler { return there }, nil)
	const limit = 64 << 10
	a := s.open("a", func() transport.Handler { return newLog() }, func(c *transport.Config) { c.Limits.QueueBytes = limit })
	c := a.Dial(b.Addr(), here)
	wait(s, here.opened, "the connection")
	msg := make([]byte, 4<<10)
	const tries = 16 << 10 // 64 MiB: more than any buffer below
	sent := 0
	var err error
	for err == nil && sent < tries {
		if err = c.Send(msg, nil); err == nil {
			sent++
		}
	}
	if !errors.Is(err, transport.ErrBusy) {
		s.Errorf("after %d KiB to a peer that does not read: %v", sent*4, err)
	}
	close(there.block)
	for range sent {
		wait(s, there.got, "a message that was accepted")
	}
	for errors.Is(c.Send([]byte("x"), nil), transport.ErrBusy) {
	}
	if got := wait(s, there.got, "a message after the jam"); string(got) != "x" {
		s.Errorf("after the jam %d bytes arrived", len(got))
	}
}

// What exceeds Limits.FrameBytes is refused, or arrives, if the transport knows
// no frames; it never does harm.
func tooLarge(s *suite) {
	here, there := newLog(), newLog()
	b := s.open("b", func() transport.Handler { return there }, nil)
	a := s.open("a", func() transport.Handler { return newLog() }, func(c *transport.Config) { c.Limits.FrameBytes = 8 << 10 })
	c := a.Dial(b.Addr(), here)
	for _, n := range []int{8<<10 + 1, 8 << 10} {
		switch err := c.Send(make([]byte, 4<<10), make([]byte, n-4<<10)); {
		case err == nil:
			if got := len(wait(s, there.got, "the message")); got != n {
				s.Errorf("a message of %d bytes arrived with %d", n, got)
			}
		case n == 8<<10 || !errors.Is(err, transport.ErrTooLarge):
			s.Errorf("Send of %d bytes with a limit of %d: %v", n, 8<<10, err)
		}
	}
}

func nobodyThere(s *suite) {
	a := s.open("a", func() transport.Handler { return newLog() }, nil)
	b := s.open("b", func() transport.Handler { return newLog() }, nil)
	addr := b.Addr()
	b.Close()
	h := newLog()
	c := a.Dial(addr, h)
	if err := wait(s, h.closed, "the failure"); !errors.Is(err, transport.ErrDown) {
		s.Errorf("the reason is %v", err)
	}
	if err := c.Send([]byte("x"), nil); !errors.Is(err, transport.ErrDown) {
		s.Errorf("Send to nobody: %v", err)
	}
	if c.Remote() != (transport.Identity{}) {
		s.Error("nobody has an identity")
	}
	h.check(s)
}

func refusals(s *suite) {
	identity := func(change func(*transport.Identity)) func(*transport.Config) {
		id := transport.Identity{Name: "suite", Cluster: [16]byte{1}, MinVersion: 2, MaxVersion: 3}
		change(&id)
		return func(c *transport.Config) { c.Identity = func() transport.Identity { return id } }
	}
	for _, tt := range []struct {
		name   string
		change func(*transport.Config)
		want   error
	}{
		{"a member", identity(func(*transport.Identity) {}), nil},
		{"a joining node", identity(func(id *transport.Identity) { id.Cluster = [16]byte{} }), nil},
		{"an optional feature", identity(func(id *transport.Identity) { id.Features = 1 }), nil},
		{"a newer version that speaks the older", identity(func(id *transport.Identity) { id.MinVersion, id.MaxVersion = 3, 9 }), nil},
		{"another name", identity(func(id *transport.Identity) { id.Name = "other" }), transport.ErrWrongCluster},
		{"another cluster", identity(func(id *transport.Identity) { id.Cluster = [16]byte{2} }), transport.ErrWrongCluster},
		{"an older version", identity(func(id *transport.Identity) { id.MinVersion, id.MaxVersion = 1, 1 }), transport.ErrVersion},
		{"a newer version", identity(func(id *transport.Identity) { id.MinVersion, id.MaxVersion = 4, 5 }), transport.ErrVersion},
		{"a required feature", identity(func(id *transport.Identity) { id.Features = 1 << 40 }), transport.ErrVersion},
	} {
		there := newLog()
		b := s.open("b", func() transport.Handler { return there }, identity(func(*transport.Identity) {}))
		a := s.open("a", func() transport.Handler { return newLog() }, tt.change)
		here := newLog()
		c := a.Dial(b.Addr(), here)
		if tt.want == nil {
			s.send(c, "hello")
			if string(wait(s, there.got, "a message of "+tt.name)) != "hello" {
				s.Errorf("%s: the message was altered", tt.name)
			}
			continue
		}
		c.Send([]byte("nobody may see this"), nil) // the refusal may be faster
		if err := wait(s, here.closed, "the refusal of "+tt.name); !errors.Is(err, tt.want) {
			s.Errorf("%s: refused with %v instead of %v", tt.name, err, tt.want)
		}
		b.Close()
		if len(there.got) > 0 {
			s.Errorf("%s: a message passed", tt.name)
		}
		here.check(s)
		there.check(s)
	}
}

func closeConn(s *suite) {
	here, there := newLog(), newLog()
	_, _, c := s.pair(here, there)
	wait(s, there.opened, "the connection")
	c.Close()
	c.Close()
	if err := c.Send([]byte("x"), nil); !errors.Is(err, transport.ErrDown) {
		s.Errorf("Send after Close: %v", err)
	}
	if wait(s, here.closed, "the end at the dialer") == nil || wait(s, there.closed, "the end at the acceptor") == nil {
		s.Error("Closed was called without a reason")
	}
	c.Flush()
	here.check(s)
	there.check(s)
}

func closeAccepted(s *suite) {
	here, there := newLog(), newLog()
	_, _, c := s.pair(here, there)
	wait(s, there.opened, "the connection").Close()
	wait(s, here.closed, "the end at the dialer")
	wait(s, there.closed, "the end at the acceptor")
	if err := c.Send([]byte("x"), nil); !errors.Is(err, transport.ErrDown) {
		s.Errorf("Send after Closed: %v", err)
	}
	here.check(s)
	there.check(s)
}

func closeEndpoint(s *suite) {
	b, accepted := s.acceptor("b")
	a, _ := s.acceptor("a")
	logs := []*log{newLog(), newLog(), newLog()}
	for _, l := range logs {
		a.Dial(b.Addr(), l)
		wait(s, l.opened, "the connection")
	}
	for range 2 {
		if err := a.Close(); err != nil {
			s.Errorf("Close: %v", err)
		}
	}
	for _, l := range logs {
		select {
		case <-l.closed:
		default:
			s.Error("Close returned before all handlers were told")
		}
		l.check(s)
		there := wait(s, accepted, "the accepted connection")
		wait(s, there.closed, "the end at the other node")
		there.check(s)
	}
}

// mux makes calls over the transport.
func mux(s *suite) {
	identity := func() transport.Identity { return transport.Identity{Name: "suite"} }
	tr, listen := s.nodes()
	srv, err := transport.NewMux(tr, transport.MuxConfig{Listen: listen, Identity: identity, Handle: func(r *transport.Request) {
		if r.Op == 2 {
			r.Fail(9, "no")
			return
		}
		r.Reply([]byte("re: "), r.Body)
	}})
	if err != nil {
		s.Fatal(err)
	}
	defer srv.Close()
	tr, _ = s.nodes()
	m, err := transport.NewMux(tr, transport.MuxConfig{Identity: identity})
	if err != nil {
		s.Fatal(err)
	}
	defer m.Close()
	p := m.Peer(srv.Addr())
	var callers sync.WaitGroup
	for i := range 16 {
		callers.Go(func() {
			done := make(completed, 1)
			for j := range 100 {
				body := fmt.Appendf(nil, "%d/%d", i, j)
				if err := p.Call(1, time.Time{}, nil, body, done, 0); err != nil {
					s.Errorf("Call: %v", err)
					return
				}
				if r := <-done; r != "re: "+string(body) {
					s.Errorf("the reply to %s is %q", body, r)
				}
			}
		})
	}
	callers.Wait()
	done := make(completed, 1)
	if err := p.Call(2, time.Time{}, nil, nil, done, 0); err != nil {
		s.Fatal(err)
	}
	if r := <-done; r != (&transport.RemoteError{Code: 9, Text: "no"}).Error() {
		s.Errorf("a failure came as %q", r)
	}
}

type completed chan string

func (c completed) Complete(_ uint64, reply []byte, err error) {
	if err != nil {
		c <- err.Error()
		return
	}
	c <- string(reply)
}
