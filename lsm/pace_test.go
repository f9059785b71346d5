package lsm

import (
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
)

func TestAdmitted(t *testing.T) {
	require.Zero(t, admitted(-1, 100), "no limit")
	require.Zero(t, admitted(0, 100))
	require.Zero(t, admitted(0.5, 0), "nothing is known yet")
	last := uint64(math.MaxUint64)
	for p := 0.01; p <= 1.5; p += 0.01 {
		rate := admitted(p, 1_000_000)
		require.LessOrEqual(t, rate, last)
		require.GreaterOrEqual(t, rate, uint64(99_999), "never to a standstill")
		last = rate
	}
	require.Greater(t, admitted(0.05, 1000), uint64(1000), "more than is flushed at first")
	require.Less(t, admitted(0.5, 1000), uint64(1000), "and then less")
}

// TestThrottle: writers together get the rate, and what was not used is gone.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := open(t, small(vfs.NewMem(1)))
		tree.load.writers.rate.Store(1 << 20)
		time.Sleep(time.Minute)
		began := tree.elapsed()
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 256 {
					tree.slowDown(1 << 10)
				}
			})
		}
		all.Wait()
		require.InDelta(t, 2, (tree.elapsed() - began).Seconds(), 0.05)
		require.Positive(t, tree.stats.delays.Load())

		tree.load.writers.rate.Store(1)
		for range 5 {
			began = tree.elapsed()
			tree.slowDown(1 << 20)
			require.LessOrEqual(t, tree.elapsed()-began, maxPause, "no write waits longer")
		}
		tree.load.writers.rate.Store(1 << 20)
		time.Sleep(2 * maxPause)
		began = tree.elapsed()
		tree.slowDown(1)
		require.Zero(t, tree.elapsed()-began, "what came too early is forgotten as well")
		require.NoError(t, tree.Close())
	})
}

// TestPacer: a compaction is held back while somebody writes, and less the more
// there is to do; not when nobody writes, nor when it has fallen behind.
func TestPacer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := open(t, small(vfs.NewMem(1)))
		took := func(debt uint64, writing bool, pressure float64) float64 {
			tree.load.tables.Store(math.Float64bits(pressure))
			p := tree.newPacer(debt)
			began := tree.elapsed()
			for range 128 {
				if writing {
					tree.stats.logBytes.Add(1)
				}
				p.read(512 << 10)
			}
			p.done()
			require.Zero(t, tree.load.reading.Load())
			return (tree.elapsed() - began).Seconds()
		}
		require.InDelta(t, minPaceTime.Seconds(), took(64<<20, true, 0), 0.1)
		require.Less(t, took(1<<30, true, 0), 0.2)
		require.Zero(t, took(64<<20, false, 0))
		require.Zero(t, took(64<<20, true, 0.1))
		require.NoError(t, tree.Close())
	})
}

// TestSpread: what fills slowly is flushed slowly, in an eighth of that time, unless
// somebody waits for it.
func TestSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := make(chan time.Duration, 10)
		o := small(vfs.NewMem(1))
		o.MemtableBytes = 1 << 20
		o.Events = &EventListener{Flushed: func(i FlushInfo) { took <- i.Took }}
		tree := open(t, o)
		defer func() { require.NoError(t, tree.Close()) }()
		time.Sleep(8 * time.Second)
		first := tree.active.Load()
		for i := 0; tree.active.Load() == first; i++ {
			require.NoError(t, tree.Put(key(i), nil))
		}
		require.InDelta(t, 1, (<-took).Seconds(), 0.1)
		time.Sleep(8 * time.Second)
		for i := range 1000 {
			require.NoError(t, tree.Put(key(i), make([]byte, 100)))
		}
		require.NoError(t, tree.Flush())
		require.LessOrEqual(t, <-took, 2*maxPause)
	})
}

// TestRegulate: writers are slowed down when memtables wait, before they have to
// stop.
func TestRegulate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := small(vfs.NewMem(1))
		o.MemtableBytes = 1 << 20
		tree := open(t, o)
		defer func() { require.NoError(t, tree.Close()) }()
		synctest.Wait()
		tree.drained(1<<20, time.Second)
		require.Equal(t, uint64(1<<20), tree.load.drain.Load())
		tree.drained(1, time.Second)
		require.Equal(t, uint64(1<<20), tree.load.drain.Load(), "too little to tell")
		tree.load.tables.Store(math.Float64bits(0.5))
		for i := range 40 {
			require.NoError(t, tree.Put(key(i), make([]byte, 16<<10)))
		}
		require.Equal(t, admitted(0.5, 1<<20), tree.load.writers.rate.Load())
		require.Positive(t, tree.stats.delays.Load())
	})
}
