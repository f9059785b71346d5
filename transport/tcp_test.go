package transport

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const loopback = "127.0.0.1:0"

// tcpPair opens a caller and an answering node over TCP on the loopback.
func tcpPair(t testing.TB, handle func(*Request)) (a *Mux, b *Peer) {
	srv := openMux(t, TCP(), MuxConfig{Listen: loopback, Handle: handle})
	a = openMux(t, TCP(), MuxConfig{})
	return a, a.Peer(srv.Addr())
}

func TestTCPCall(t *testing.T) {
	_, b := tcpPair(t, echo)
	done := make(results, 1000)
	for i := range 1000 {
		require.NoError(t, b.Call(7, soon(), []byte("head "), fmt.Append(nil, i), done, uint64(i)))
	}
	for range 1000 {
		r := <-done
		require.NoError(t, r.err)
		require.Equal(t, fmt.Sprintf("\x07head %d", r.tag), r.reply)
	}
}

// waiter parks one caller at a time on a reused channel.
type waiter struct{ ch chan error }

func (w *waiter) Complete(_ uint64, _ []byte, err error) { w.ch <- err }

func (w *waiter) call(p *Peer, deadline time.Time, head, body []byte) error {
	if err := p.Call(1, deadline, head, body, w, 0); err != nil {
		return err
	}
	return <-w.ch
}

func TestTCPCallAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget")
	}
	_, b := tcpPair(t, echo)
	w := &waiter{make(chan error, 1)}
	head, body := make([]byte, 16), make([]byte, 64)
	deadline := time.Now().Add(time.Minute)
	require.NoError(t, w.call(b, deadline, head, body))
	require.Zero(t, testing.AllocsPerRun(2000, func() {
		if err := w.call(b, deadline, head, body); err != nil {
			t.Fatal(err)
		}
	}))
}

// BenchmarkTCPCall has both ends in one process; bench/transport has them in two.
func BenchmarkTCPCall(b *testing.B) {
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			a, p := tcpPair(b, echo)
			warm := &waiter{make(chan error, 1)}
			require.NoError(b, warm.call(p, time.Now().Add(time.Minute), nil, nil))
			before := a.Metrics()
			b.ReportAllocs()
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					w := &waiter{make(chan error, 1)}
					deadline := time.Now().Add(time.Minute)
					body := make([]byte, 64)
					for left.Add(-1) >= 0 {
						if err := w.call(p, deadline, nil, body); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			after := a.Metrics()
			b.ReportMetric(float64(after.FramesOut-before.FramesOut)/float64(after.Writes-before.Writes), "frames/write")
		})
	}
}
