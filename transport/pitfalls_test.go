package transport_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/transport"
	"example.com/kvstore/transport/transporttest"
)

func identity() transport.Identity { return transport.Identity{Name: "test"} }

func echo(r *transport.Request) { r.Reply(nil, r.Body) }

func open(t testing.TB, tr transport.Transport, cfg transport.MuxConfig) *transport.Mux {
	t.Helper()
	cfg.Identity = identity
	m, err := transport.NewMux(tr, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

type completion func(tag uint64, reply []byte, err error)

func (f completion) Complete(tag uint64, reply []byte, err error) { f(tag, reply, err) }

// call makes one call and waits for its end.
func call(p *transport.Peer, timeout time.Duration, body string) (string, error) {
	type end struct {
		reply string
		err   error
	}
	done := make(chan end, 1)
	err := p.Call(1, time.Now().Add(timeout), nil, []byte(body),
		completion(func(_ uint64, reply []byte, err error) { done <- end{string(reply), err} }), 0)
	if err != nil {
		return "", err
	}
	e := <-done
	return e.reply, e.err
}

// Two nodes that flood each other, each answering in its readers: with a
// blocking write in a reader both would wait for the other to read.
func TestNoDeadlockOfReaders(t *testing.T) {
	for name, tr := range map[string]transport.Transport{"tcp": transport.TCP(), "wire": (&transporttest.Wire{}).Transport()} {
		t.Run(name, func(t *testing.T) {
			listen := func(wire string) string {
				if name == "tcp" {
					return "127.0.0.1:0"
				}
				return wire
			}
			// Room for all requests and replies: whoever is refused would hide a deadlock.
			limits := transport.Limits{QueueBytes: 32 << 20}
			a := open(t, tr, transport.MuxConfig{Listen: listen("a"), Handle: echo, Limits: limits})
			b := open(t, tr, transport.MuxConfig{Listen: listen("b"), Handle: echo, Limits: limits})
			body := make([]byte, 4<<10)
			const callers, calls = 2000, 4000
			var all sync.WaitGroup
			for _, p := range []*transport.Peer{a.Peer(b.Addr()), b.Peer(a.Addr())} {
				var left atomic.Int64
				left.Store(calls)
				all.Add(calls)
				var done completion
				done = func(_ uint64, reply []byte, err error) {
					defer all.Done()
					if err != nil || len(reply) != len(body) {
						t.Errorf("%d bytes, %v", len(reply), err)
					}
					if left.Add(-1) >= 0 {
						if err := p.Call(1, time.Time{}, nil, body, done, 0); err != nil {
							t.Error(err)
							all.Done()
						}
					}
				}
				left.Add(-callers)
				for range callers {
					require.NoError(t, p.Call(1, time.Time{}, nil, body, done, 0))
				}
			}
			all.Wait()
		})
	}
}

// A peer that is stopped costs bounded memory and slots, nobody's time, and
// nothing of the others'. Every call to it ends, and it is back when it is back.
func TestStoppedPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stopped, other := &transporttest.Wire{}, &transporttest.Wire{}
		const queue = 256 << 10
		limits := transport.Limits{QueueBytes: queue}
		open(t, stopped.Transport(), transport.MuxConfig{Listen: "b", Handle: echo})
		open(t, other.Transport(), transport.MuxConfig{Listen: "c", Handle: echo})
		toB := open(t, stopped.Transport(), transport.MuxConfig{Limits: limits})
		b := toB.Peer("b")
		c := open(t, other.Transport(), transport.MuxConfig{}).Peer("c")
		_, err := call(b, time.Second, "before")
		require.NoError(t, err)

		stopped.Stall(true)
		began := time.Now()
		var made, ended atomic.Int64
		body := make([]byte, 1000)
		done := completion(func(_ uint64, _ []byte, err error) {
			ended.Add(1)
			if !errors.Is(err, transport.ErrDeadline) && !errors.Is(err, transport.ErrClosed) {
				t.Error(err)
			}
		})
		busy := 0
		for time.Since(began) < 4*time.Second {
			for range 100 {
				switch err := b.Call(1, time.Now().Add(10*time.Second), nil, body, done, 0); {
				case err == nil:
					made.Add(1)
				case errors.Is(err, transport.ErrBusy):
					busy++
				default:
					t.Fatal(err)
				}
			}
			require.LessOrEqual(t, b.Held(), 3*queue)
			_, err := call(c, time.Second, "another peer")
			require.NoError(t, err)
			time.Sleep(100 * time.Millisecond)
		}
		require.Greater(t, busy, 1000)
		require.Less(t, made.Load(), int64(queue/1000+3*64))
		require.True(t, b.Up())

		time.Sleep(3 * time.Second) // the write has waited for 5 s
		require.False(t, b.Up())
		require.Equal(t, made.Load(), ended.Load(), "the end of the connection ends its calls")
		require.ErrorIs(t, b.Call(1, time.Now().Add(time.Second), nil, nil, done, 0), transport.ErrDown)

		stopped.Stall(false)
		time.Sleep(10 * time.Second)
		require.True(t, b.Up())
		_, err = call(b, time.Second, "after")
		require.NoError(t, err)
		require.Equal(t, made.Load(), ended.Load())
	})
}

// Calls to a peer that reads but never answers fill the ring, not more.
func TestSilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &transporttest.Wire{}
		open(t, w.Transport(), transport.MuxConfig{Listen: "b", Handle: func(*transport.Request) {}})
		a := open(t, w.Transport(), transport.MuxConfig{Limits: transport.Limits{Calls: 256}})
		b := a.Peer("b")
		ended := 0
		done := completion(func(_ uint64, _ []byte, err error) {
			require.ErrorIs(t, err, transport.ErrDeadline)
			ended++
		})
		for range 256 {
			require.NoError(t, b.Call(1, time.Now().Add(time.Second), nil, nil, done, 0))
		}
		require.ErrorIs(t, b.Call(1, time.Now().Add(time.Second), nil, nil, done, 0), transport.ErrBusy)
		time.Sleep(time.Second + transport.SweepInterval)
		synctest.Wait()
		require.Equal(t, 256, ended)
		_, err := call(b, time.Second, "there is room again")
		require.ErrorIs(t, err, transport.ErrDeadline)
		require.EqualValues(t, 1, a.Metrics().Busy)
	})
}

// Bytes that come one by one, or late, change nothing.
func TestPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &transporttest.Wire{Faults: func(int, bool) transporttest.StreamFaults {
			return transporttest.StreamFaults{Piece: 1, Delay: 10 * time.Millisecond}
		}}
		open(t, w.Transport(), transport.MuxConfig{Listen: "b", Handle: echo})
		b := open(t, w.Transport(), transport.MuxConfig{}).Peer("b")
		for i := range 20 {
			got, err := call(b, time.Second, fmt.Sprint("message ", i))
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint("message ", i), got)
		}
	})
}

// Wherever the stream breaks, or a bit flips, in the handshake or after, in
// either direction: every call ends once, no reply is wrong, and the next
// connection works.
func TestBrokenStreams(t *testing.T) {
	const calls = 20
	for _, fault := range []string{"cut", "corrupt"} {
		for at := 1; at < 700; at++ {
			synctest.Test(t, func(t *testing.T) {
				w := &transporttest.Wire{Faults: func(n int, toListener bool) (f transporttest.StreamFaults) {
					switch {
					case n > 0 || toListener != (at%2 == 0):
					case fault == "cut":
						f.Cut = at
					default:
						f.Corrupt = at
					}
					return f
				}}
				open(t, w.Transport(), transport.MuxConfig{Listen: "b", Handle: echo})
				b := open(t, w.Transport(), transport.MuxConfig{}).Peer("b")
				ends := make([]int, calls)
				for i := range calls {
					err := b.Call(1, time.Now().Add(time.Second), nil, binary.BigEndian.AppendUint64(nil, uint64(i)),
						completion(func(tag uint64, reply []byte, err error) {
							ends[tag]++
							if err == nil && (len(reply) != 8 || binary.BigEndian.Uint64(reply) != tag) {
								t.Errorf("%s at byte %d: the reply to %d is %x", fault, at, tag, reply)
							}
						}), uint64(i))
					if err != nil {
						ends[i]++
					}
					if i%5 == 0 {
						time.Sleep(time.Millisecond)
					}
				}
				time.Sleep(20 * time.Second) // for a length that lies, until the frame is due
				synctest.Wait()
				for i, n := range ends {
					require.Equal(t, 1, n, "%s at byte %d: ends of call %d", fault, at, i)
				}
				_, err := call(b, time.Second, "the fault may be as late as this")
				for tries := 0; err != nil && tries < 20; tries++ {
					time.Sleep(time.Second)
					_, err = call(b, time.Second, "again")
				}
				require.NoError(t, err, "%s at byte %d", fault, at)
			})
		}
	}
}

// Close ends everything in whatever state it is: dialing, shaking hands, idle,
// with a write that is stuck. The bubble reports goroutines that remain.
func TestCloseInEveryState(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault transporttest.StreamFaults
		do    func(t *testing.T, w *transporttest.Wire, p *transport.Peer)
	}{
		{"shaking hands", transporttest.StreamFaults{Delay: time.Second}, func(t *testing.T, _ *transporttest.Wire, p *transport.Peer) {
			require.NoError(t, p.Send(1, nil, nil))
			time.Sleep(1500 * time.Millisecond)
		}},
		{"idle", transporttest.StreamFaults{}, func(t *testing.T, _ *transporttest.Wire, p *transport.Peer) {
			_, err := call(p, time.Second, "x")
			require.NoError(t, err)
		}},
		{"just dialed", transporttest.StreamFaults{}, func(t *testing.T, _ *transporttest.Wire, p *transport.Peer) {
			require.NoError(t, p.Send(1, nil, nil))
		}},
		{"write stuck", transporttest.StreamFaults{}, func(t *testing.T, w *transporttest.Wire, p *transport.Peer) {
			_, err := call(p, time.Second, "x")
			require.NoError(t, err)
			w.Stall(true)
			require.NoError(t, p.Send(1, nil, make([]byte, 1<<20)))
			synctest.Wait()
		}},
		{"broken", transporttest.StreamFaults{}, func(t *testing.T, w *transporttest.Wire, p *transport.Peer) {
			_, err := call(p, time.Second, "x")
			require.NoError(t, err)
			w.Break()
			synctest.Wait()
			require.False(t, p.Up())
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &transporttest.Wire{Faults: func(int, bool) transporttest.StreamFaults { return tt.fault }}
				open(t, w.Transport(), transport.MuxConfig{Listen: "b", Handle: echo})
				a := open(t, w.Transport(), transport.MuxConfig{})
				tt.do(t, w, a.Peer("b"))
				began := time.Now()
				require.NoError(t, a.Close())
				require.Equal(t, began, time.Now(), "nothing is waited for")
			})
		})
	}
}

// A node that dials a black hole is told when the time is over, not for ever.
func TestSilentListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &transporttest.Wire{}
		ln, err := w.Listen("hole")
		require.NoError(t, err)
		defer ln.Close()
		p := open(t, w.Transport(), transport.MuxConfig{}).Peer("hole")
		began := time.Now()
		_, err = call(p, 10*time.Second, "anybody?")
		require.ErrorIs(t, err, transport.ErrDown)
		require.Equal(t, 5*time.Second, time.Since(began))
	})
}
