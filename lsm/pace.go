package lsm

import (
	"math"
	"sync/atomic"
	"time"
)

// Writers are slowed down before they have to stop, and compactions before they
// push writers aside. What lies before the flush and the compactions is the
// pressure, from 0, none, to 1, nothing more can be taken:
//
//	memtables   from memorySoft to memoryHard of what all may hold
//	tables      compaction.Pressure: runs of a slice, waste
//
// Writers may then write as fast as memtables are flushed, times a factor that
// falls with the pressure; so they settle where the background keeps up.
const (
	memorySoft = 0.45
	memoryHard = 0.9

	throttleFrom = 1.25 // the factor as pressure begins
	throttleTo   = 0.1  // and at full pressure

	minPause = 500 * time.Microsecond // less is carried over: timers are no better
	maxPause = 10 * time.Millisecond  // of one write; beyond it the hard limits decide

	recordBytes = 28 // of a record in the log, beside key and value, about

	regulateBytes = 256 << 10 // of the log, between looks at the pressure

	// While somebody writes and there is no pressure, each compaction may read the debt
	// in three quarters of the time in which a memtable fills, from minPaceTime to
	// maxPaceTime, and minPaced bytes in that time; and a flush takes an eighth of the
	// time in which one fills, up to maxFlushTime. So what a slow writer makes to do
	// is spread, and not a burst that its callers feel.
	minPaceTime  = 500 * time.Millisecond
	maxPaceTime  = 20 * time.Second
	minPaced     = 64 << 20
	maxFlushTime = 2 * time.Second
	paceBytes    = 512 << 10 // between looks at the clock
)

// A throttle hands out time to bytes.
type throttle struct {
	rate atomic.Uint64 // bytes a second; 0: no limit
	free atomic.Int64  // when the next byte is due, nanoseconds
}

// reserve gives how long the writer of n bytes has to wait.
func (h *throttle) reserve(now time.Duration, n int, rate uint64) time.Duration {
	cost := int64(float64(n) / float64(rate) * float64(time.Second))
	for {
		free := h.free.Load()
		// What was not used is gone, and what came much too early is forgotten.
		from := min(max(free, int64(now)), int64(now+maxPause))
		if h.free.CompareAndSwap(free, min(from+cost, int64(now+maxPause))) {
			return time.Duration(from) - now
		}
	}
}

// load is the state behind all that.
type load struct {
	writers  throttle
	unpaced  atomic.Int64  // bytes of Submit, which the log's goroutine waits for
	logged   uint64        // bytes of the log at the last look; owned by logLoop
	flushing atomic.Int64  // bytes of the memtable that is being flushed which have been
	rotated  time.Duration // when the active memtable began; owned by logLoop
	filled   atomic.Int64  // how long the last one took to fill, nanoseconds
	drain    atomic.Uint64 // bytes a second that flushes manage
	tables   atomic.Uint64 // pressure of the tables, the bits of a float64
	pending  atomic.Int64  // bytes that compactions not yet begun have to read
	reading  atomic.Int64  // and those that run
}

// elapsed is a time that only goes on, for differences.
func (t *Tree) elapsed() time.Duration { return since(t.opened) }

// slowDown makes the writer of n bytes wait, if it has to.
func (t *Tree) slowDown(n int) {
	rate := t.load.writers.rate.Load()
	if rate == 0 {
		return
	}
	if d := t.load.writers.reserve(t.elapsed(), n, rate); d >= minPause {
		t.stats.delays.Add(1)
		t.stats.delayed.Add(uint64(d))
		t.pause(d)
	}
}

// pause waits, at most until Close.
func (t *Tree) pause(d time.Duration) {
	timer := time.NewTimer(d)
	select {
	case <-timer.C:
	case <-t.stopping:
	}
	timer.Stop()
}

// regulate is called by logLoop before each group.
func (t *Tree) regulate() {
	logged := t.stats.logBytes.Load()
	if logged-t.load.logged < regulateBytes {
		return
	}
	t.load.logged = logged
	v := t.acquire(0)
	n := -t.load.flushing.Load()
	for _, m := range v.mems {
		n += m.Bytes()
	}
	t.release(v, 0)
	full := float64(n) / float64(t.o.MemtableBytes*int64(t.o.MaxMemtables))
	p := max((full-memorySoft)/(memoryHard-memorySoft), math.Float64frombits(t.load.tables.Load()))
	t.load.writers.rate.Store(admitted(p, t.load.drain.Load()))
	if n := t.load.unpaced.Swap(0); n > 0 {
		t.slowDown(int(n))
	}
}

// admitted is how many bytes a second may be written under pressure p when
// drain can be flushed; 0 is no limit.
func admitted(p float64, drain uint64) uint64 {
	if p <= 0 {
		return 0
	}
	return uint64(float64(drain) * (throttleFrom - min(p, 1)*(throttleFrom-throttleTo)))
}

// drained notes how long a flush of n bytes took.
func (t *Tree) drained(n int64, took time.Duration) {
	if n < t.o.MemtableBytes/4 || took <= 0 {
		return // too little to tell
	}
	now := uint64(float64(n) / took.Seconds())
	if before := t.load.drain.Load(); before > 0 {
		now = (now + before) / 2
	}
	t.load.drain.Store(now)
}

// paceTime is the time for what there is to compact.
func (t *Tree) paceTime() time.Duration {
	return min(max(time.Duration(t.load.filled.Load()*3/4), minPaceTime), maxPaceTime)
}

// spread holds back the flush of a memtable that began then and has done a part, unless
// somebody or another memtable waits for it. It gives how long.
func (t *Tree) spread(m *mem, began time.Duration, part float64) time.Duration {
	over := min(time.Duration(t.load.filled.Load()/8), maxFlushTime)
	ahead := time.Duration(part*float64(over)) - (t.elapsed() - began)
	if ahead < minPause || m.awaited.Load() || t.closing.Load() || t.newestSealed() != m {
		return 0
	}
	ahead = min(ahead, maxPause)
	t.pause(ahead)
	return ahead
}

// A pacer holds back one compaction.
type pacer struct {
	t      *Tree
	bytes  int           // read since the last look
	left   int64         // of what load.reading has of this compaction
	at     time.Duration // of the last look
	logged uint64        // bytes of the log then
}

func (t *Tree) newPacer(bytes uint64) *pacer {
	t.load.reading.Add(int64(bytes))
	return &pacer{t: t, left: int64(bytes), at: t.elapsed(), logged: t.stats.logBytes.Load()}
}

// done ends a compaction, wherever it got to.
func (p *pacer) done() { p.t.load.reading.Add(-p.left) }

// read is called for all bytes that the compaction reads.
func (p *pacer) read(bytes int) {
	if p.bytes += bytes; p.bytes < paceBytes {
		return
	}
	t := p.t
	n := min(int64(p.bytes), p.left)
	p.left -= n
	debt := t.load.pending.Load() + t.load.reading.Add(-n)
	rate := float64(max(debt, minPaced)) / t.paceTime().Seconds()
	now, logged := t.elapsed(), t.stats.logBytes.Load()
	wait := time.Duration(float64(p.bytes)/rate*float64(time.Second)) - (now - p.at)
	if logged != p.logged && math.Float64frombits(t.load.tables.Load()) <= 0 && wait >= minPause {
		t.pause(min(wait, 10*maxPause))
		now = t.elapsed()
	}
	p.bytes, p.at, p.logged = 0, now, logged
}
