package kvstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// ceilingAhead is how far ahead of the clock the persisted ceiling is set: one
// sync per so much time under load, and after a crash a wait of at most that
// before the node coordinates, if its clock was right.
const ceilingAhead = 2 * time.Second

// wallClock is the default of Options.Clock: for stamps and deadlines of values.
func wallClock() time.Time { return time.Now() }

// now is for durations and time-outs, where package time's own clock rules.
func now() time.Time { return time.Now() }

// A stamper issues this node's stamps. It never issues one above a ceiling that
// is durable, and after a restart starts at that ceiling: so stamps never run
// backwards, whatever the wall clock did meanwhile.
type stamper struct {
	*vclock.Clock
	wall func() time.Time
	sys  *system
	// floor is the ceiling of the former life: no stamp below it is issued.
	floor uint64
	// raising is a lock that may be held across a sync: capacity 1, full when
	// held. It guards ceiling.
	raising chan struct{}
	ceiling uint64
	// told is a stamp that no later start finds its ceiling below, unless its directory
	// is an older copy.
	told atomic.Uint64
	mu   struct {
		sync.Mutex
		rise *rise // that runs, or nil
	}
	// used says that stamps were issued, or writes taken, since the ceiling was last
	// raised.
	used atomic.Bool
}

func newStamper(wall func() time.Time, maxOffset time.Duration, sys *system) (*stamper, error) {
	floor, err := sys.uint64(sysCeiling)
	if err != nil {
		return nil, err
	}
	if !defences.Ceiling {
		floor = 0
	}
	s := &stamper{Clock: vclock.NewClock(wall, maxOffset, floor), wall: wall, sys: sys, floor: floor, raising: make(chan struct{}, 1), ceiling: floor}
	s.SetCeiling(floor)
	s.told.Store(floor)
	return s, nil
}

// lead is how far the stamps of the former life may be ahead of the wall clock.
// Before that is over the node does not coordinate. What peers with faster clocks
// say has no part in it.
func (s *stamper) lead() time.Duration {
	return vclock.StampTime(s.floor).Sub(s.wall())
}

// Now is the stamp that messages carry: none as long as it would tell of the
// floor, which is ahead of every clock, and of nothing else.
func (s *stamper) Now() uint64 {
	if s.lead() > 0 {
		return 0
	}
	return s.Clock.Now()
}

// next issues a stamp above `above` and above every stamp issued or observed. It
// is ErrCeiling when a higher ceiling must be made durable first: see raise.
func (s *stamper) next(above uint64) (uint64, error) {
	stamp, err := s.Next(above)
	switch {
	case err == nil && !s.used.Load():
		s.used.Store(true)
	case errors.Is(err, vclock.ErrFuture):
		err = fmt.Errorf("%w: %w", ErrClockSkew, err)
	}
	return stamp, err
}

// raise makes a higher ceiling durable, unless somebody else just did. It waits
// for a sync.
func (s *stamper) raise(above uint64) error {
	s.raising <- struct{}{}
	defer func() { <-s.raising }()
	if s.ceiling > max(above, s.Clock.Now()) {
		return nil
	}
	return s.setLocked(ahead(max(above, s.Clock.Now())))
}

// A rise is one raising of the ceiling, for all who need it.
type rise struct {
	done chan struct{} // closed when it is over and err is set
	err  error
}

// rise starts to raise the ceiling on a worker, or joins the rise that runs.
func (s *stamper) rise(above uint64, w *workers) *rise {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.rise != nil {
		return s.mu.rise
	}
	r := &rise{done: make(chan struct{})}
	if !w.run(func() {
		r.err = s.raise(above)
		s.mu.Lock()
		s.mu.rise = nil
		s.mu.Unlock()
		close(r.done)
	}) {
		r.err = fmt.Errorf("%w: %d requests wait for the disk", ErrOverloaded, maxWorkers)
		close(r.done)
		return r
	}
	s.mu.rise = r
	return r
}

// stamp issues a stamp for a write in the epoch of v.
func (db *DB) stamp(ctx context.Context, v *view, above uint64, deadline time.Time) (uint64, error) {
	if db.clocks.wrong.Load() {
		return 0, fmt.Errorf("%w: this node's wall clock is more than Options.MaxClockOffset (%v) from most of the other live members' clocks; set it right", ErrClockSkew, db.opts.MaxClockOffset)
	}
	if skew := vclock.StampTime(db.clock.Clock.Now()).Sub(db.opts.Clock()); skew > db.opts.MaxClockOffset && len(v.nodes) > 1 {
		return 0, fmt.Errorf("%w: this node's stamps are %v ahead of its wall clock, which was wrong or was set back; writes go on when it has caught up", ErrClockSkew, skew)
	}
	for {
		stamp, err := db.clock.next(above)
		if !errors.Is(err, vclock.ErrCeiling) {
			return stamp, err
		}
		r := db.clock.rise(above, db.workers)
		timeout := time.NewTimer(deadline.Sub(now()))
		select {
		case <-r.done:
			err = r.err
		case <-ctx.Done():
			err = contextError(ctx)
		case <-timeout.C:
			err = ErrTimeout
		}
		timeout.Stop()
		if err != nil {
			return 0, err
		}
	}
}

// observe takes in the highest stamp of a record from elsewhere. One too far ahead is
// refused: if the record were taken, nobody could write above it before that time has
// come. What a causal record holds counts, whatever its head says.
func (db *DB) observe(r *replica.Record) error {
	top := r.Dot
	if r.Causal && !r.Digest {
		if _, hi, err := vclock.EncodedDots(r.Value); err == nil && top.Less(hi) { // else it is refused as damaged
			top = hi
		}
	}
	return db.heedStamp(top.Stamp)
}

// heedStamp takes in a stamp from elsewhere, or refuses it.
func (db *DB) heedStamp(stamp uint64) error {
	if err := db.clock.Observe(stamp); defences.FutureStamps {
		return err
	}
	return nil
}

// refresh raises the ceiling ahead of need when stamps were issued since it was
// last raised, so that requests seldom wait for it.
func (s *stamper) refresh() error {
	s.raising <- struct{}{}
	defer func() { <-s.raising }()
	stamp := s.Clock.Now()
	if !s.used.Load() || s.ceiling > stamp+(ahead(stamp)-stamp)/2 {
		return nil
	}
	return s.setLocked(ahead(stamp))
}

func ahead(stamp uint64) uint64 {
	return vclock.NewStamp(vclock.StampTime(stamp).Add(ceilingAhead))
}

// rest lowers the ceiling to the last stamp at a clean end, so that the next
// start need not wait.
func (s *stamper) rest() error {
	s.raising <- struct{}{}
	defer func() { <-s.raising }()
	return s.setLocked(s.Clock.Now())
}

// keepAgain makes the ceiling durable again that the disk has lost.
func (s *stamper) keepAgain() error {
	s.raising <- struct{}{}
	defer func() { <-s.raising }()
	return s.setLocked(s.ceiling)
}

// setLocked persists the ceiling, then lets the clock use it. raising is held.
func (s *stamper) setLocked(ceiling uint64) error {
	told := min(s.Last(), ceiling) // not the clock: one that is wrong may be put right before rest
	if err := s.sys.set(number(sysCeiling, ceiling)); err != nil {
		return engineError(err)
	}
	s.used.Store(false)
	s.told.Store(max(told, s.told.Load()))
	s.ceiling = ceiling
	s.SetCeiling(ceiling)
	return nil
}
