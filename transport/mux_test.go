package transport

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// result is what a call ended with.
type result struct {
	tag   uint64
	reply string
	err   error
}

// results is a Completion that keeps everything.
type results chan result

func (r results) Complete(tag uint64, reply []byte, err error) { r <- result{tag, string(reply), err} }

func identity(node string) func() Identity {
	return func() Identity { return Identity{Name: "test", Node: node} }
}

// echo answers every call with its operation and body.
func echo(r *Request) { r.Reply([]byte{r.Op}, r.Body) }

// openMux opens a Mux that is closed with the test.
func openMux(t testing.TB, tr Transport, cfg MuxConfig) *Mux {
	t.Helper()
	if cfg.Identity == nil {
		cfg.Identity = identity(cfg.Listen)
	}
	m, err := NewMux(tr, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// pair opens a caller "a" and an answering node "b" on n.
func pair(t testing.TB, n *Network, handle func(*Request)) (a *Mux, b *Peer) {
	openMux(t, n.Transport("b"), MuxConfig{Listen: "b", Handle: handle})
	a = openMux(t, n.Transport("a"), MuxConfig{Listen: "a"})
	return a, a.Peer("b")
}

func soon() time.Time { return time.Now().Add(time.Second) }

func TestMuxCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, NewNetwork(nil), echo)
		require.True(t, b.Up())
		done := make(results, 100)
		for i := range 100 {
			require.NoError(t, b.Call(7, soon(), []byte("head "), fmt.Append(nil, i), done, uint64(i)))
		}
		for range 100 {
			r := <-done
			require.NoError(t, r.err)
			require.Equal(t, fmt.Sprintf("\x07head %d", r.tag), r.reply)
		}
		require.Equal(t, "b", b.Remote().Node)
		require.Same(t, b, a.Peer("b"))
	})
}

func TestMuxOneWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := make(chan string, 1)
		_, b := pair(t, NewNetwork(nil), func(r *Request) {
			r.Reply(nil, []byte("nobody asked"))
			got <- fmt.Sprintln(r.Op, string(r.Body), r.From.Node, r.Deadline.IsZero())
		})
		require.NoError(t, b.Send(9, []byte("he"), []byte("llo")))
		require.Equal(t, "9 hello a true\n", <-got)
	})
}

func TestMuxFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, b := pair(t, NewNetwork(nil), func(r *Request) { r.Fail(3, "no such thing") })
		done := make(results, 1)
		require.NoError(t, b.Call(1, soon(), nil, nil, done, 0))
		var re *RemoteError
		require.ErrorAs(t, (<-done).err, &re)
		require.Equal(t, RemoteError{3, "no such thing"}, *re)
	})
}

func TestMuxReplyTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(nil)
		openMux(t, n.Transport("b"), MuxConfig{Listen: "b", Limits: Limits{FrameBytes: 4 << 10},
			Handle: func(r *Request) { r.Reply(nil, make([]byte, 5000)) }})
		a := openMux(t, n.Transport("a"), MuxConfig{Limits: Limits{FrameBytes: 4 << 10}})
		done := make(results, 1)
		require.ErrorIs(t, a.Peer("b").Call(1, soon(), nil, make([]byte, 5000), done, 0), ErrTooLarge)
		require.NoError(t, a.Peer("b").Call(1, soon(), nil, nil, done, 0))
		var re *RemoteError
		require.ErrorAs(t, (<-done).err, &re)
		require.EqualValues(t, CodeTooLarge, re.Code)
	})
}

func TestMuxDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late Responder
		a, b := pair(t, NewNetwork(nil), func(r *Request) {
			require.InDelta(t, time.Until(r.Deadline), 300*time.Millisecond, float64(time.Millisecond))
			late = r.Responder
		})
		done := make(results, 2)
		require.ErrorIs(t, b.Call(1, time.Now(), nil, nil, done, 0), ErrDeadline)
		began := time.Now()
		require.NoError(t, b.Call(1, began.Add(300*time.Millisecond), nil, nil, done, 5))
		r := <-done
		require.ErrorIs(t, r.err, ErrDeadline)
		require.EqualValues(t, 5, r.tag)
		require.LessOrEqual(t, time.Since(began), 300*time.Millisecond+sweepInterval)
		synctest.Wait()
		require.False(t, a.armed.Load(), "nothing is pending, so the sweeper sleeps")

		// A reply that comes too late, and one more that nobody asked for, are dropped.
		late.Reply(nil, nil)
		late.Reply(nil, nil)
		time.Sleep(time.Second)
		require.Empty(t, done)
		require.EqualValues(t, 2, a.Metrics().Late)
		require.EqualValues(t, 1, a.Metrics().Expired)
	})
}

func TestMuxDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(nil)
		a := openMux(t, n.Transport("a"), MuxConfig{})
		b := a.Peer("b")
		done := make(results, 1)
		require.NoError(t, b.Call(1, soon(), nil, nil, done, 0), "queued until it is known that nobody is there")
		require.ErrorIs(t, (<-done).err, ErrDown)
		require.False(t, b.Up())
		require.ErrorIs(t, b.Err(), ErrDown)
		require.ErrorIs(t, b.Call(1, soon(), nil, nil, done, 0), ErrDown)
		time.Sleep(10 * time.Second)
		dials := a.Metrics().Dials
		require.Greater(t, dials, uint64(6), "it is tried for ever")
		require.Less(t, dials, uint64(20), "and with growing pauses")

		openMux(t, n.Transport("b"), MuxConfig{Listen: "b", Handle: echo})
		time.Sleep(maxPause + time.Millisecond)
		require.True(t, b.Up())
		require.NoError(t, b.Err())
		require.NoError(t, b.Call(1, soon(), nil, nil, done, 0))
		require.NoError(t, (<-done).err)
	})
}

// A peer that goes away fails what is pending, at once and once.
func TestMuxLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(nil)
		srv := openMux(t, n.Transport("b"), MuxConfig{Listen: "b", Handle: func(*Request) {}})
		a := openMux(t, n.Transport("a"), MuxConfig{})
		done := make(results, 10)
		for i := range 10 {
			require.NoError(t, a.Peer("b").Call(1, soon(), nil, nil, done, uint64(i)))
		}
		synctest.Wait()
		began := time.Now()
		require.NoError(t, srv.Close())
		for range 10 {
			require.ErrorIs(t, (<-done).err, ErrClosed)
		}
		require.Less(t, time.Since(began), sweepInterval)
		require.False(t, a.Peer("b").Up())
		time.Sleep(2 * time.Second)
		require.Empty(t, done)
	})
}

// A connection on which calls expire and nothing arrives is given up: the other
// node may have died without a word.
func TestMuxStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(nil)
		a, b := pair(t, n, echo)
		done := make(results, 1)
		call := func() error {
			if err := b.Call(1, time.Now().Add(500*time.Millisecond), nil, nil, done, 0); err != nil {
				return err
			}
			return (<-done).err
		}
		require.NoError(t, call())
		time.Sleep(time.Hour)
		n.Cut("b", "a")
		require.ErrorIs(t, call(), ErrDeadline)
		require.True(t, b.Up(), "one silent call after an idle hour proves nothing")
		for range 9 {
			require.ErrorIs(t, call(), ErrDeadline)
		}
		require.ErrorIs(t, call(), ErrDown)
		synctest.Wait()
		require.EqualValues(t, 1, a.Metrics().Lost)
		n.Heal()
		time.Sleep(8 * time.Second)
		require.NoError(t, call())
	})
}

func TestMuxClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, NewNetwork(nil), func(*Request) {})
		done := make(results, 1)
		require.NoError(t, b.Call(1, soon(), nil, nil, done, 0))
		synctest.Wait()
		require.NoError(t, a.Close())
		require.ErrorIs(t, (<-done).err, ErrClosed)
		require.ErrorIs(t, b.Call(1, soon(), nil, nil, done, 0), ErrShutdown)
		require.ErrorIs(t, a.Peer("c").Send(1, nil, nil), ErrShutdown)
		require.NoError(t, a.Close())
	})
}

func TestPeerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, NewNetwork(nil), echo)
		done := make(results, 1)
		require.NoError(t, b.Call(1, soon(), nil, nil, done, 0))
		require.NoError(t, (<-done).err)
		b.Close()
		b.Close()
		require.ErrorIs(t, b.Call(1, soon(), nil, nil, done, 0), ErrShutdown)
		again := a.Peer("b")
		require.NotSame(t, b, again)
		require.NoError(t, again.Call(1, soon(), nil, nil, done, 0))
		require.NoError(t, (<-done).err)
	})
}

// On a network that does everything a network may do, every call completes
// exactly once, and a reply is the reply to it.
func TestMuxFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(&NetworkOptions{Fate: Chances{Seed: 1, Drop: 0.1, Duplicate: 0.1, MaxDelay: 50 * time.Millisecond}.Fate})
		_, b := pair(t, n, echo)
		var mu sync.Mutex
		ends := make(map[uint64]int)
		var failed int
		done := completion(func(tag uint64, reply []byte, err error) {
			mu.Lock()
			defer mu.Unlock()
			ends[tag]++
			if err != nil {
				failed++
			} else if !bytes.Equal(reply, fmt.Append([]byte{1}, tag)) {
				t.Errorf("the reply to %d is %q", tag, reply)
			}
		})
		sent := 0
		for i := range 2000 {
			if i%50 == 0 {
				time.Sleep(10 * time.Millisecond)
			}
			err := b.Call(1, time.Now().Add(200*time.Millisecond), nil, fmt.Append(nil, i), done, uint64(i))
			if err == nil {
				sent++
			} else if !errors.Is(err, ErrDown) {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, ends, sent)
		for tag, times := range ends {
			require.Equal(t, 1, times, "call %d", tag)
		}
		require.InDelta(t, 0.19, float64(failed)/float64(sent), 0.05)
	})
}

type completion func(tag uint64, reply []byte, err error)

func (f completion) Complete(tag uint64, reply []byte, err error) { f(tag, reply, err) }

// TestLeave: what is pending is answered, and nothing else is sent to a node that leaves.
func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(nil)
		held := make(chan Responder, 1)
		b := openMux(t, n.Transport("b"), MuxConfig{Listen: "b", Handle: func(r *Request) { held <- r.Responder }})
		a := openMux(t, n.Transport("a"), MuxConfig{Listen: "a"})
		peer := a.Peer("b")
		done := make(results, 1)
		require.NoError(t, peer.Call(1, soon(), nil, nil, done, 7))
		r := <-held
		left := make(chan struct{})
		go func() {
			b.Leave(time.Minute)
			close(left)
		}()
		synctest.Wait()
		require.False(t, peer.Up())
		err := peer.Call(1, soon(), nil, nil, done, 8)
		require.ErrorIs(t, err, ErrDown)
		require.ErrorIs(t, err, ErrLeaving)
		require.ErrorIs(t, peer.Send(1, nil, nil), ErrLeaving)
		select {
		case <-left:
			t.Fatal("it has left, and a call is pending")
		default:
		}
		r.Reply([]byte("yes"), nil)
		require.Equal(t, result{7, "yes", nil}, <-done)
		began := time.Now()
		<-left
		require.Less(t, time.Since(began), time.Second, "a hangs up when it has its answer")
	})
}

// TestLeaveAgain: a node that stays while it leaves is dialed less and less often, and soon
// enough when it is back.
func TestLeaveAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(nil)
		b := openMux(t, n.Transport("b"), MuxConfig{Listen: "b", Handle: echo})
		a := openMux(t, n.Transport("a"), MuxConfig{Listen: "a"})
		done := make(results, 1)
		require.NoError(t, a.Peer("b").Call(1, soon(), nil, nil, done, 0))
		require.NoError(t, (<-done).err)
		before := a.Metrics().Dials
		b.Leave(time.Minute)
		time.Sleep(10 * time.Second)
		dials := a.Metrics().Dials - before
		require.Greater(t, dials, uint64(10_000/400))
		require.Less(t, dials, uint64(10_000/200+5))
	})
}

// TestLeaveIdle: whoever waits for nothing hangs up at once, and one that cannot be reached
// holds up nobody for longer than was said.
func TestLeaveIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(nil)
		b := openMux(t, n.Transport("b"), MuxConfig{Listen: "b", Handle: echo})
		for _, name := range []string{"a", "c"} {
			done := make(results, 1)
			require.NoError(t, openMux(t, n.Transport(name), MuxConfig{Listen: name}).Peer("b").Call(1, soon(), nil, nil, done, 0))
			require.NoError(t, (<-done).err)
			time.Sleep(time.Second) // its sweeper rests
		}
		n.Cut("b", "c")
		began := time.Now()
		b.Leave(time.Minute)
		require.Equal(t, time.Minute, time.Since(began))
		n.Heal()
		b.Leave(time.Minute)
		require.Equal(t, time.Minute, time.Since(began), "both have hung up, so the second takes no time")
	})
}
