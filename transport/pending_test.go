package transport

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPendingFullNeverSpins(t *testing.T) {
	p := newPending(4096)
	for i := range 4096 {
		id, ok := p.claim(nil, 0, 0)
		require.True(t, ok, "slot %d of 4096", i)
		require.EqualValues(t, i+1, id)
	}
	before := p.next.Load()
	_, ok := p.claim(nil, 0, 0)
	require.False(t, ok)
	require.LessOrEqual(t, p.next.Load()-before, uint64(4096), "a bounded number of probes")
}

// Calls that hang, alone or side by side, are passed over.
func TestPendingStuckSlots(t *testing.T) {
	p := newPending(256)
	done := completion(func(uint64, []byte, error) {})
	for range 100 { // hang for ever
		_, ok := p.claim(done, 0, 0)
		require.True(t, ok)
	}
	for range 10000 {
		id, ok := p.claim(done, 7, 0)
		require.True(t, ok)
		_, tag, ok := p.take(id)
		require.True(t, ok)
		require.EqualValues(t, 7, tag)
	}
}

func TestPendingTakesOnce(t *testing.T) {
	p := newPending(8)
	done := completion(func(uint64, []byte, error) {})
	id, _ := p.claim(done, 1, 0)
	_, _, ok := p.take(id + 8) // the same slot, another call
	require.False(t, ok)
	_, _, ok = p.take(id)
	require.True(t, ok)
	for _, late := range []uint64{id, 0, claiming} {
		_, _, ok = p.take(late)
		require.False(t, ok, "id %d", late)
	}
	require.False(t, p.used[0].Load() && func() bool { p.expire(0, nil); return !p.idle() }())
}

func TestPendingExpire(t *testing.T) {
	p := newPending(256)
	var ended []uint64
	done := completion(func(tag uint64, _ []byte, err error) {
		require.ErrorIs(t, err, ErrDeadline)
		ended = append(ended, tag)
	})
	for i := range 200 {
		p.claim(done, uint64(i), int64(i))
	}
	n, remain := p.expire(99, ErrDeadline)
	require.Equal(t, 100, n)
	require.True(t, remain)
	require.False(t, p.idle())
	for i, tag := range ended {
		require.EqualValues(t, i, tag)
	}
	n, remain = p.expire(1000, ErrDeadline)
	require.Equal(t, 100, n)
	require.False(t, remain)
	require.True(t, p.idle())
}

// Whatever replies, sweeps and lost connections do at once, a call ends once.
func TestPendingRace(t *testing.T) {
	p := newPending(64)
	var ended [4 * 5000]atomic.Int32
	done := completion(func(tag uint64, _ []byte, _ error) { ended[tag].Add(1) })
	stop := make(chan struct{})
	var others, callers sync.WaitGroup
	others.Go(func() {
		for i := int64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
				p.expire(i%3, ErrDeadline)
				runtime.Gosched()
			}
		}
	})
	for c := range 4 {
		callers.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(c)))
			for i := range 5000 {
				tag := uint64(c*5000 + i)
				for {
					id, ok := p.claim(done, tag, int64(rng.IntN(4)))
					if !ok {
						p.fail(ErrClosed)
						continue
					}
					if rng.IntN(2) == 0 {
						if d, tag, ok := p.take(id); ok {
							d.Complete(tag, nil, nil)
						}
					}
					break
				}
			}
		})
	}
	callers.Wait()
	close(stop)
	others.Wait()
	p.fail(ErrClosed)
	for tag := range ended {
		require.EqualValues(t, 1, ended[tag].Load(), "call %d", tag)
	}
	require.True(t, p.idle())
}
