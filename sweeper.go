package kvstore

import (
	"sync/atomic"
	"time"
)

// sweepEvery is the resolution of deadlines and of spare reads. The odd rest
// keeps it from the instants of the transport's sweeps: a simulation cannot tell
// which of two timers of one instant comes first.
const sweepEvery = 25*time.Millisecond + 19*time.Nanosecond

// A sweeper looks at all calls in flight now and then, instead of one timer per
// call, and sleeps while there are none.
type sweeper struct {
	asleep atomic.Bool
	kick   chan struct{} // capacity 1: wakes a sleeping sweeper
}

// wake must be called after a call was taken into use.
func (s *sweeper) wake() {
	if s.asleep.Load() && s.asleep.CompareAndSwap(true, false) {
		s.kick <- struct{}{}
	}
}

// sweep runs until db.stop closes.
func (db *DB) sweep() {
	timer := time.NewTimer(sweepEvery)
	defer timer.Stop()
	idle := false
	for {
		if idle {
			db.sweeper.asleep.Store(true)
			// A call that began before the line above saw a sweeper awake.
			if db.gate.inside() > 0 && db.sweeper.asleep.CompareAndSwap(true, false) {
				idle = false
				timer.Reset(sweepEvery)
			}
		}
		select {
		case <-db.sweeper.kick:
			idle = false
			timer.Reset(sweepEvery)
			continue
		case <-db.stop:
			return
		case now := <-timer.C:
			for _, c := range db.writes.every() {
				c.sweep(now)
			}
			for _, c := range db.reads.every() {
				c.sweep(now)
			}
			idle = db.gate.inside() == 0
			if !idle {
				timer.Reset(sweepEvery)
			}
		}
	}
}
