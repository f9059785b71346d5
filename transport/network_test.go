package transport

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// listener keeps what one connection receives, and when.
type listener struct {
	began time.Time
	got   []string
	ended error
}

func (l *listener) Opened(Conn) {}
func (l *listener) Receive(_ Conn, msg []byte) {
	l.got = append(l.got, fmt.Sprintf("%s@%d", msg, time.Since(l.began).Milliseconds()))
}
func (l *listener) BatchEnd(Conn)          {}
func (l *listener) Closed(_ Conn, e error) { l.ended = e }

// link opens the nodes a and b on n and a connection from a to b.
func linkOn(t *testing.T, n *Network) (c Conn, here, there *listener) {
	here, there = &listener{began: time.Now()}, &listener{began: time.Now()}
	var ends [2]Endpoint
	for i, name := range []string{"a", "b"} {
		e, err := n.Transport(name).Open(Config{Listen: name, Identity: identity(name), Accept: func() Handler { return there }})
		require.NoError(t, err)
		t.Cleanup(func() { e.Close() })
		ends[i] = e
	}
	return ends[0].Dial("b", here), here, there
}

// script gives the fates of the messages from a to b, the dial included; all
// others arrive at once.
func script(fates ...Fate) *NetworkOptions {
	return &NetworkOptions{Fate: func(l Link, n uint64) Fate {
		if l != (Link{"a", "b"}) || n >= uint64(len(fates)) {
			return Fate{}
		}
		return fates[n]
	}}
}

func send(t *testing.T, c Conn, msgs ...string) {
	for _, m := range msgs {
		require.NoError(t, c.Send([]byte(m), nil))
	}
}

func TestNetworkFates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ms = time.Millisecond
		c, _, there := linkOn(t, NewNetwork(script(Fate{Delay: 10 * ms},
			Fate{Delay: 30 * ms}, Fate{Drop: true}, Fate{Delay: 5 * ms, Copies: 2}, Fate{})))
		send(t, c, "late", "lost", "thrice", "plain")
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, []string{"plain@10", "thrice@15", "thrice@20", "thrice@25", "late@40"}, there.got)
	})
}

func TestNetworkCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(script(Fate{}, Fate{Delay: time.Second}))
		c, here, there := linkOn(t, n)
		send(t, c, "on its way")
		synctest.Wait()
		n.Cut("a", "b")
		send(t, c, "into the cut")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Empty(t, there.got, "what is on its way is cut as well")
		n.Heal()
		send(t, c, "healed")
		synctest.Wait()
		n.Partition([]string{"a", "c"}, []string{"d"}) // b is among the others
		send(t, c, "parted")
		synctest.Wait()
		n.Partition([]string{"a", "b"})
		send(t, c, "together")
		synctest.Wait()
		n.Cut("b", "a")
		send(t, c, "one way")
		synctest.Wait()
		require.Equal(t, []string{"healed@2000", "together@2000", "one way@2000"}, there.got)

		// The end does not get through, and so the other side does not know.
		n.Heal()
		n.Cut("a", "b")
		c.Close()
		time.Sleep(time.Second)
		synctest.Wait()
		require.Error(t, here.ended)
		require.NoError(t, there.ended)
	})
}

// A message to a connection that is over brings back the news.
func TestNetworkHalfOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(nil)
		srv := openMux(t, n.Transport("b"), MuxConfig{Listen: "b", Handle: echo})
		a := openMux(t, n.Transport("a"), MuxConfig{})
		w := &waiter{make(chan error, 1)}
		require.NoError(t, w.call(a.Peer("b"), soon(), nil, nil))
		n.Partition([]string{"b"})
		require.NoError(t, srv.Close()) // a crash: nobody is told
		n.Heal()
		openMux(t, n.Transport("b"), MuxConfig{Listen: "b", Handle: echo})
		require.ErrorIs(t, w.call(a.Peer("b"), soon(), nil, nil), ErrClosed)
		time.Sleep(maxPause)
		require.NoError(t, w.call(a.Peer("b"), soon(), nil, nil))
	})
}

// With Schedule the simulator owns every delivery: here it runs them by hand,
// in an order of its own.
func TestNetworkSchedule(t *testing.T) {
	type event struct {
		at  time.Time
		run func()
	}
	var events []event
	clock := time.Unix(1000, 0)
	n := NewNetwork(&NetworkOptions{
		Now:      func() time.Time { return clock },
		Schedule: func(at time.Time, run func()) { events = append(events, event{at, run}) },
		Fate:     func(Link, uint64) Fate { return Fate{Delay: time.Second} },
	})
	drain := func(until time.Time) {
		for {
			i := slices.IndexFunc(events, func(e event) bool { return !e.at.After(until) })
			if i < 0 {
				return
			}
			e := events[i]
			events = slices.Delete(events, i, i+1)
			clock = e.at
			e.run()
		}
	}
	c, _, there := linkOn(t, n)
	send(t, c, "x")
	require.Zero(t, c.Remote())
	drain(time.Unix(1002, 0))
	require.Equal(t, "b", c.Remote().Node)
	require.Empty(t, there.got)
	drain(time.Unix(1003, 0))
	require.Len(t, there.got, 1)
}

func TestNetworkAddressInUse(t *testing.T) {
	n := NewNetwork(nil)
	openMux(t, n.Transport("a"), MuxConfig{Listen: "here"})
	_, err := NewMux(n.Transport("b"), MuxConfig{Listen: "here", Identity: identity("b")})
	require.ErrorContains(t, err, "in use")
}

// One seed, one course of events.
func TestNetworkReproducible(t *testing.T) {
	run := func(seed uint64) string {
		var trace strings.Builder
		synctest.Test(t, func(t *testing.T) {
			n := NewNetwork(&NetworkOptions{Fate: Chances{Seed: seed, Drop: 0.2, Duplicate: 0.2, MaxDelay: 20 * time.Millisecond}.Fate})
			c, _, there := linkOn(t, n)
			for i := range 200 {
				_ = c.Send(fmt.Append(nil, i), nil)
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			fmt.Fprint(&trace, there.got)
		})
		return trace.String()
	}
	require.Equal(t, run(1), run(1))
	require.NotEqual(t, run(1), run(2))
}

func TestChances(t *testing.T) {
	c := Chances{Seed: 3, Drop: 0.25, Duplicate: 0.1, MinDelay: time.Millisecond, MaxDelay: 3 * time.Millisecond}
	const draws = 20000
	var drops, copies int
	var delays time.Duration
	for n := range uint64(draws) {
		f := c.Fate(Link{"a", "b"}, n)
		require.Equal(t, f, c.Fate(Link{"a", "b"}, n))
		if f.Drop {
			drops++
		}
		copies += f.Copies
		delays += f.Delay
		require.True(t, f.Delay >= c.MinDelay && f.Delay < c.MaxDelay)
	}
	require.InDelta(t, 0.25, float64(drops)/draws, 0.02)
	require.InDelta(t, 0.1, float64(copies)/draws, 0.02)
	require.InDelta(t, 2e6, float64(delays)/draws, 5e4)
	require.NotEqual(t, hash(1, "ab", "c", 0), hash(1, "a", "bc", 0))
	require.Equal(t, Fate{}, Chances{}.Fate(Link{}, math.MaxUint64))
}
