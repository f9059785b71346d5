package transporttest_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"example.com/kvstore/transport"
	"example.com/kvstore/transport/transporttest"
)

// hub is a transport of one's own: nodes in one process that pass each other
// messages through channels.
type hub struct{ ports sync.Map } // address to *port

func (h *hub) Open(cfg transport.Config) (transport.Endpoint, error) {
	p := &port{Config: cfg, hub: h}
	p.Context, p.cancel = context.WithCancel(context.Background())
	h.ports.Store(cfg.Listen, p)
	return p, nil
}

// port is the endpoint of one node; its context ends with it.
type port struct {
	transport.Config
	context.Context
	cancel func()
	hub    *hub
	live   sync.WaitGroup
}

func (p *port) Addr() string { return p.Listen }
func (p *port) Close() error { p.hub.ports.Delete(p.Listen); p.cancel(); p.live.Wait(); return nil }
func (p *port) Dial(addr string, h transport.Handler) transport.Conn {
	a := &end{in: make(chan []byte, 4096), err: transport.ErrDown}
	a.Context, a.cancel = context.WithCancel(p)
	if to, ok := p.hub.ports.Load(addr); ok {
		to := to.(*port)
		b := &end{in: make(chan []byte, 4096), out: a.in, remote: p.Identity(), Context: a, cancel: a.cancel}
		a.out, a.remote = b.in, to.Identity()
		if _, a.err = a.remote.Version(b.remote); a.err == nil {
			context.AfterFunc(to, a.cancel)
			to.live.Go(func() { b.run(to.Accept()) })
		}
	}
	p.live.Go(func() { a.run(h) })
	return a
}

// end is one side of a connection; their context ends with it.
type end struct {
	context.Context
	cancel  func()
	in, out chan []byte
	remote  transport.Identity
	err     error
}

func (e *end) run(h transport.Handler) {
	if e.err == nil {
		h.Opened(e)
	}
	for e.err == nil {
		select {
		case msg := <-e.in:
			h.Receive(e, msg)
			h.BatchEnd(e)
		case <-e.Done():
			e.err = transport.ErrClosed
		}
	}
	e.cancel()
	h.Closed(e, e.err)
}

func (e *end) Send(head, body []byte) error {
	if e.Err() != nil {
		return transport.ErrDown
	}
	select {
	case e.out <- slices.Concat(head, body):
		return nil
	default:
		return transport.ErrBusy
	}
}
func (e *end) Queue(head, body []byte) error { return e.Send(head, body) }
func (e *end) Flush()                        {}
func (e *end) Remote() transport.Identity    { return e.remote }
func (e *end) Close() error                  { e.cancel(); return nil }

// Example_unixSockets plugs in other sockets: frames, handshake, limits and the
// writer come with Stream.
func Example_unixSockets() {
	var d net.Dialer
	unix := transport.Stream{
		Listen: func(addr string) (net.Listener, error) { return net.Listen("unix", addr) },
		Dial:   func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "unix", addr) },
	}
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	greet(unix, dir+"/a", dir+"/b")
	// Output: hello, world
}

// Example_fromNothing calls another node over the hub.
func Example_fromNothing() {
	greet(&hub{}, "a", "b")
	// Output: hello, world
}

// greet lets a node at the address from call one at the address to.
func greet(t transport.Transport, from, to string) {
	identity := func() transport.Identity { return transport.Identity{Name: "example"} }
	b, err := transport.NewMux(t, transport.MuxConfig{Listen: to, Identity: identity,
		Handle: func(r *transport.Request) { r.Reply([]byte("hello, "), r.Body) }})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()
	a, err := transport.NewMux(t, transport.MuxConfig{Listen: from, Identity: identity})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	done := make(printer)
	if err := a.Peer(b.Addr()).Call(1, time.Time{}, nil, []byte("world"), done, 0); err != nil {
		fmt.Println(err)
		return
	}
	<-done
}

type printer chan struct{}

func (p printer) Complete(_ uint64, reply []byte, err error) {
	fmt.Println(string(reply))
	close(p)
}

func TestHub(t *testing.T) {
	transporttest.Run(t, func(*testing.T) transporttest.Nodes {
		h := &hub{}
		return numbered(func(string) transport.Transport { return h })
	})
}
