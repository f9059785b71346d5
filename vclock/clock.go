package vclock

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

var (
	// ErrFuture is matched by every FutureError.
	ErrFuture = errors.New("vclock: stamp too far ahead of the local clock")

	// ErrCeiling says that the next stamp would be above the ceiling: persist a
	// higher ceiling, call SetCeiling and retry.
	ErrCeiling = errors.New("vclock: the next stamp is above the ceiling: persist a higher ceiling, set it and retry")
)

// A FutureError refuses a stamp that is further ahead of the local clock than
// the clocks of two healthy nodes may be apart. One of them is wrong.
type FutureError struct {
	Stamp     time.Time     // the time in the refused stamp
	Now       time.Time     // the local clock
	MaxOffset time.Duration // how far ahead a stamp may be
}

func (e *FutureError) Error() string {
	return fmt.Sprintf("vclock: stamp of %s is %s ahead of the local clock %s, allowed are %s: check the clocks of both nodes",
		e.Stamp.UTC().Format(time.RFC3339Nano), e.Stamp.Sub(e.Now), e.Now.UTC().Format(time.RFC3339Nano), e.MaxOffset)
}

// Is reports whether target is ErrFuture.
func (e *FutureError) Is(target error) bool { return target == ErrFuture }

// A Clock is a hybrid logical clock (Kulkarni et al. 2014, figure 5, with both
// of its parts in one word): its stamps follow the time while that advances, and
// count upwards from the last stamp while it stands still or runs backwards. When
// the 65,536 stamps of a millisecond are used up, counting goes on into the next
// millisecond.
//
// All methods may be called concurrently; none takes a lock or allocates, except
// for the error that refuses a stamp.
type Clock struct {
	now       func() time.Time
	maxOffset time.Duration
	ceiling   atomic.Uint64
	last      atomic.Uint64 // Invariant: never decreases.
}

// NewClock returns a clock that reads the time from now, refuses stamps more
// than maxOffset ahead of it, and stamps strictly above floor. An owner that
// persists ceilings passes the last one as the floor after a restart. There is no
// ceiling until SetCeiling is called.
func NewClock(now func() time.Time, maxOffset time.Duration, floor uint64) *Clock {
	c := &Clock{now: now, maxOffset: maxOffset}
	c.ceiling.Store(math.MaxUint64)
	c.last.Store(floor)
	return c
}

// Next returns a stamp above everything it returned before, everything that was
// observed, and above. If above is too far ahead it returns a FutureError; if the
// stamp would be above the ceiling, ErrCeiling. The clock is then as before.
func (c *Clock) Next(above uint64) (uint64, error) {
	now := c.now()
	if err := c.judge(above, now); err != nil {
		return 0, err
	}
	for {
		last := c.last.Load()
		prev := max(last, above)
		ceiling := c.ceiling.Load()
		if prev >= ceiling { // also keeps prev+1 from wrapping around
			return 0, ErrCeiling
		}
		next := max(NewStamp(now), prev+1)
		if next > ceiling {
			return 0, ErrCeiling
		}
		if c.last.CompareAndSwap(last, next) {
			return next, nil
		}
	}
}

// Observe takes note of a stamp from elsewhere: later ones of Next are above it.
// A stamp too far ahead is refused with a FutureError and changes nothing.
func (c *Clock) Observe(stamp uint64) error {
	last := c.last.Load()
	if stamp <= last {
		return nil
	}
	if err := c.judge(stamp, c.now()); err != nil {
		return err
	}
	for stamp > last && !c.last.CompareAndSwap(last, stamp) {
		last = c.last.Load()
	}
	return nil
}

// SetCeiling bounds the stamps of Next from now on. The owner has made the
// ceiling durable before, and starts from it after a restart, so that the clock
// never runs backwards over one. A few seconds above Now make a good ceiling.
func (c *Clock) SetCeiling(stamp uint64) { c.ceiling.Store(stamp) }

// Now returns the current stamp, for messages: not unique, not bounded by the
// ceiling, and not remembered, so that a clock that jumped ahead and was put
// right leaves no trace here.
func (c *Clock) Now() uint64 { return max(NewStamp(c.now()), c.last.Load()) }

// Last returns the highest stamp that was issued or observed.
func (c *Clock) Last() uint64 { return c.last.Load() }

// judge refuses stamps in a millisecond after now + maxOffset.
func (c *Clock) judge(stamp uint64, now time.Time) error {
	if stamp>>counterBits <= NewStamp(now.Add(c.maxOffset))>>counterBits {
		return nil
	}
	return &FutureError{Stamp: StampTime(stamp), Now: now, MaxOffset: c.maxOffset}
}
