package transport

import (
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// rawDial opens a connection to a node by hand, past the handshake.
func rawDial(t testing.TB, addr string) net.Conn {
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close() })
	require.NoError(t, nc.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = handshake(nc, &Config{Identity: identity("raw")}, true)
	require.NoError(t, err)
	return nc
}

func appendCallFrame(dst []byte, id uint64, body []byte) []byte {
	head := appendCall(nil, 1, time.Minute, id)
	return appendFrame(dst, checksum(head, body), head, body)
}

// closedSoon waits until the other side has closed nc.
func closedSoon(t testing.TB, nc net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, nc)
	var timeout net.Error
	if err != nil {
		require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "the connection is still open")
	}
}

// Requests that arrive together are answered together.
func TestOneWritePerBatch(t *testing.T) {
	srv := openMux(t, TCP(), MuxConfig{Listen: loopback, Handle: echo})
	nc := rawDial(t, srv.Addr())
	var batch []byte
	for i := range 100 {
		batch = appendCallFrame(batch, uint64(i+1), []byte("0123456789"))
	}
	_, err := nc.Write(batch)
	require.NoError(t, err)
	replies := make([]byte, 100*(frameHeader+replyHeader+1+10))
	_, err = io.ReadFull(nc, replies)
	require.NoError(t, err)
	m := srv.Metrics()
	require.EqualValues(t, 100, m.FramesIn)
	require.EqualValues(t, 100, m.FramesOut)
	require.EqualValues(t, m.Reads, m.Writes, "one write for what one read brought")
	require.Less(t, m.Writes, uint64(5))
}

// A caller that does not read its replies loses its connection; others do not
// notice.
func TestCallerThatDoesNotRead(t *testing.T) {
	srv := openMux(t, TCP(), MuxConfig{Listen: loopback, Handle: echo, Limits: Limits{QueueBytes: 64 << 10}})
	nc := rawDial(t, srv.Addr())
	var err error
	for i := range 2000 { // 64 MiB, more than sockets hold
		if _, err = nc.Write(appendCallFrame(nil, uint64(i+1), make([]byte, 32<<10))); err != nil {
			break
		}
	}
	require.Error(t, err)
	w := &waiter{make(chan error, 1)}
	a := openMux(t, TCP(), MuxConfig{})
	require.NoError(t, w.call(a.Peer(srv.Addr()), time.Now().Add(20*time.Second), nil, nil))
	require.EqualValues(t, 1, srv.Metrics().Busy)
}

// A length that lies is refused before anything is allocated for it; one within
// the limit waits for its bytes without costing more than the budget.
func TestFramesThatLie(t *testing.T) {
	srv := openMux(t, TCP(), MuxConfig{Listen: loopback, Handle: echo,
		Limits: Limits{FrameTimeout: 300 * time.Millisecond, LargeBytes: 16 << 20, FrameBytes: 1 << 20}})
	nc := rawDial(t, srv.Addr())
	_, err := nc.Write([]byte{255, 255, 255, 255, 0, 0, 0, 0})
	require.NoError(t, err)
	closedSoon(t, nc)

	nc = rawDial(t, srv.Addr())
	_, err = nc.Write([]byte{100, 0, 0, 0, 0}) // and no more
	require.NoError(t, err)
	closedSoon(t, nc)

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var conns []net.Conn
	for range 50 {
		nc := rawDial(t, srv.Addr())
		_, err := nc.Write([]byte{0, 0, 0x10, 0, 0, 0, 0, 0, 1}) // 1 MiB
		require.NoError(t, err)
		conns = append(conns, nc)
	}
	for _, nc := range conns {
		closedSoon(t, nc)
	}
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(50*(1<<20+2*readBuffer)+8<<20))
	w := &waiter{make(chan error, 1)}
	a := openMux(t, TCP(), MuxConfig{})
	require.NoError(t, w.call(a.Peer(srv.Addr()), time.Now().Add(20*time.Second), nil, make([]byte, 512<<10)))
}

func TestMalformedMessagesCloseTheConnection(t *testing.T) {
	srv := openMux(t, TCP(), MuxConfig{Listen: loopback, Handle: echo})
	for _, msg := range [][]byte{{9, 9}, {kindCall, 1, 2}, appendReply(nil, 7)} {
		nc := rawDial(t, srv.Addr())
		_, err := nc.Write(appendFrame(nil, checksum(msg, nil), msg, nil))
		require.NoError(t, err)
		closedSoon(t, nc)
	}
	require.EqualValues(t, 3, srv.Metrics().Malformed)
}

// Idle strangers, however many, do not keep a node out, and are gone in time.
func TestSlowLoris(t *testing.T) {
	srv := openMux(t, TCP(), MuxConfig{Listen: loopback, Handle: echo,
		Limits: Limits{Handshakes: 20, HandshakeTimeout: time.Second}})
	var strangers []net.Conn
	for range 200 {
		nc, err := net.Dial("tcp", srv.Addr())
		require.NoError(t, err)
		defer nc.Close()
		_, err = nc.Write([]byte(magic[:3]))
		require.NoError(t, err)
		strangers = append(strangers, nc)
	}
	w := &waiter{make(chan error, 1)}
	a := openMux(t, TCP(), MuxConfig{})
	require.NoError(t, w.call(a.Peer(srv.Addr()), time.Now().Add(20*time.Second), nil, nil))
	for _, nc := range strangers {
		require.NoError(t, nc.SetDeadline(time.Now().Add(20*time.Second)))
		closedSoon(t, nc)
	}
	require.Equal(t, 1, srv.Metrics().Open)
}

func TestConnectionCaps(t *testing.T) {
	srv := openMux(t, TCP(), MuxConfig{Listen: loopback, Handle: echo, Limits: Limits{AcceptedPerHost: 3}})
	var conns []net.Conn
	for range 3 {
		conns = append(conns, rawDial(t, srv.Addr()))
	}
	nc, err := net.Dial("tcp", srv.Addr())
	require.NoError(t, err)
	defer nc.Close()
	require.NoError(t, nc.SetDeadline(time.Now().Add(20*time.Second)))
	closedSoon(t, nc)
	require.EqualValues(t, 1, srv.Metrics().Refused)

	conns[0].Close() // makes room
	a := openMux(t, TCP(), MuxConfig{})
	w := &waiter{make(chan error, 1)}
	for w.call(a.Peer(srv.Addr()), time.Now().Add(20*time.Second), nil, nil) != nil {
		time.Sleep(time.Millisecond) // until the node has noticed
	}
}

func TestListenErrors(t *testing.T) {
	srv := openMux(t, TCP(), MuxConfig{Listen: loopback})
	_, err := NewMux(TCP(), MuxConfig{Listen: srv.Addr(), Identity: identity("x")})
	require.ErrorContains(t, err, srv.Addr())
	_, err = NewMux(TCP(), MuxConfig{Listen: loopback})
	require.ErrorContains(t, err, "Identity")
	_, err = NewMux(TCP(), MuxConfig{Identity: identity("x"), Limits: Limits{FrameBytes: 1}})
	require.ErrorContains(t, err, "FrameBytes")
	_, err = NewMux(TCP(), MuxConfig{Identity: identity("x"), Limits: Limits{QueueBytes: -1}})
	require.ErrorContains(t, err, "negative")
	m := openMux(t, TCP(), MuxConfig{Listen: loopback, Advertise: "example.com:7000"})
	require.Equal(t, "example.com:7000", m.Addr())
}

// A seed that is not a kvstore is told apart.
func TestDialSomethingElse(t *testing.T) {
	ln, err := net.Listen("tcp", loopback)
	require.NoError(t, err)
	var server sync.WaitGroup
	server.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(nc, "SSH-2.0-something\r\n")
			nc.Close()
		}
	})
	a := openMux(t, TCP(), MuxConfig{})
	p := a.Peer(ln.Addr().String())
	w := &waiter{make(chan error, 1)}
	err = w.call(p, soon(), nil, nil)
	require.ErrorIs(t, err, ErrDown)
	require.ErrorIs(t, err, ErrNotKvstore)
	ln.Close()
	server.Wait()
}

// Replies from other goroutines, one by one or through a Flusher, all arrive.
func TestFlusher(t *testing.T) {
	queue := make(chan Responder, 10000)
	srv := openMux(t, TCP(), MuxConfig{Listen: loopback, Handle: func(r *Request) { queue <- r.Responder }})
	var log sync.WaitGroup
	log.Go(func() {
		var f Flusher
		for r := range queue {
			f.Reply(r, []byte("he"), []byte("ad"))
			for range len(queue) {
				f.Reply(<-queue, []byte("he"), []byte("ad"))
			}
			f.Reply(Responder{}, nil, nil)
			f.Flush()
		}
	})
	var callers sync.WaitGroup
	var wrong atomic.Int64
	for range 3 {
		p := openMux(t, TCP(), MuxConfig{}).Peer(srv.Addr())
		for range 20 {
			callers.Go(func() {
				done := make(results, 1)
				for range 100 {
					if err := p.Call(1, time.Time{}, nil, nil, done, 0); err != nil {
						wrong.Add(1)
					} else if r := <-done; r.err != nil || r.reply != "head" {
						wrong.Add(1)
					}
				}
			})
		}
	}
	callers.Wait()
	close(queue)
	log.Wait()
	require.Zero(t, wrong.Load())
	require.Less(t, srv.Metrics().Writes, srv.Metrics().FramesOut)
}

func TestBudget(t *testing.T) {
	b := newBudget(4 * budgetUnit)
	never := make(chan struct{})
	require.True(t, b.take(3*budgetUnit, never))
	over := make(chan struct{})
	close(over)
	require.False(t, b.take(2*budgetUnit, over), "gives up, and gives back what it has")
	require.True(t, b.take(1, never))
	var second sync.WaitGroup
	second.Go(func() {
		b.take(100*budgetUnit, never) // more than there is: all of it
		b.give(100 * budgetUnit)
	})
	b.give(3 * budgetUnit)
	b.give(1)
	second.Wait()
}
