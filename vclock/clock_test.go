package vclock

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const maxOffset = 500 * time.Millisecond

func TestStamp(t *testing.T) {
	at := noon.Add(7 * time.Millisecond)
	require.Equal(t, uint64(at.UnixMilli())<<16, NewStamp(at.Add(999*time.Microsecond)))
	require.True(t, StampTime(NewStamp(at)).Equal(at))
	require.True(t, StampTime(NewStamp(at)|0xffff).Equal(at))
	require.Zero(t, NewStamp(time.Unix(-1, 0)))
	require.Equal(t, uint64(math.MaxUint64)&^0xffff, NewStamp(time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)))
}

func TestDotOrder(t *testing.T) {
	ascending := []Dot{{}, {0, 1}, {1, 0}, {1, 5}, {2, 0}, {math.MaxUint64, math.MaxUint64}}
	for i, d := range ascending {
		for j, e := range ascending {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			require.Equal(t, want, d.Compare(e))
			require.Equal(t, i < j, d.Less(e))
		}
		require.Equal(t, i == 0, d.IsZero())
	}
}

// TestClockNeverRunsBackwards moves the time at random, and observes stamps at
// random: each stamp is above all before it, or refused without a trace.
func TestClockNeverRunsBackwards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := noon
		floor := NewStamp(noon.Add(time.Duration(rapid.IntRange(-1000, 1000).Draw(t, "floor")) * time.Millisecond))
		c := NewClock(func() time.Time { return now }, maxOffset, floor)
		top, ceiling := floor, uint64(math.MaxUint64)
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			move := time.Duration(rapid.IntRange(-2000, 2000).Draw(t, "move")) * time.Millisecond
			stamp := NewStamp(now.Add(move)) + rapid.Uint64Range(0, 3).Draw(t, "counter")
			future := move > maxOffset
			switch rapid.SampledFrom([]string{"move", "next", "observe", "ceiling"}).Draw(t, "step") {
			case "move":
				now = now.Add(move)
			case "ceiling":
				ceiling = stamp
				c.SetCeiling(ceiling)
			case "observe":
				err := c.Observe(stamp)
				require.Equal(t, future && stamp > top, errors.Is(err, ErrFuture))
				if err == nil {
					top = max(top, stamp)
				}
			case "next":
				got, err := c.Next(stamp)
				want := max(top+1, stamp+1, NewStamp(now))
				switch {
				case future:
					require.ErrorIs(t, err, ErrFuture)
				case want > ceiling:
					require.ErrorIs(t, err, ErrCeiling)
				default:
					require.NoError(t, err)
					require.Equal(t, want, got)
					top = got
				}
			}
			require.Equal(t, max(top, NewStamp(now)), c.Now())
		}
	})
}

// TestCounterRollsIntoTheMillisecond uses up all stamps of a millisecond while
// the time stands still.
func TestCounterRollsIntoTheMillisecond(t *testing.T) {
	c := NewClock(func() time.Time { return noon }, maxOffset, 0)
	for i := range uint64(1 << 16) {
		got, err := c.Next(0)
		require.NoError(t, err)
		require.Equal(t, NewStamp(noon)+i, got)
	}
	got, err := c.Next(0)
	require.NoError(t, err)
	require.Equal(t, NewStamp(noon.Add(time.Millisecond)), got)
}

func TestFutureStampsAreRefused(t *testing.T) {
	c := NewClock(func() time.Time { return noon }, maxOffset, 0)
	edge := NewStamp(noon.Add(maxOffset)) | 0xffff
	for _, stamp := range []uint64{edge + 1, NewStamp(noon.Add(time.Hour)), math.MaxUint64} {
		_, err := c.Next(stamp)
		for _, err := range []error{err, c.Observe(stamp)} {
			var future *FutureError
			require.ErrorAs(t, err, &future)
			require.ErrorIs(t, err, ErrFuture)
			require.NotErrorIs(t, err, ErrCeiling)
			require.True(t, future.Stamp.Equal(StampTime(stamp)))
			require.True(t, future.Now.Equal(noon))
			require.Equal(t, maxOffset, future.MaxOffset)
		}
		require.Equal(t, NewStamp(noon), c.Now(), "nothing is adopted")
	}
	require.EqualError(t, c.Observe(NewStamp(noon.Add(time.Second))),
		"vclock: stamp of 2026-03-01T12:00:01Z is 1s ahead of the local clock 2026-03-01T12:00:00Z, allowed are 500ms: check the clocks of both nodes")

	require.NoError(t, c.Observe(edge))
	got, err := c.Next(0)
	require.NoError(t, err)
	require.Equal(t, edge+1, got)
}

// TestCeilingOutlivesARestart hands the last ceiling to the next clock as its
// floor, while the time runs backwards.
func TestCeilingOutlivesARestart(t *testing.T) {
	now := noon
	ceiling := NewStamp(noon.Add(2 * time.Second))
	c := NewClock(func() time.Time { return now }, maxOffset, 0)
	c.SetCeiling(ceiling)
	now = StampTime(ceiling)
	last, err := c.Next(0)
	require.NoError(t, err)
	require.Equal(t, ceiling, last)
	_, err = c.Next(0)
	require.ErrorIs(t, err, ErrCeiling)

	now = noon.Add(-time.Hour)
	c = NewClock(func() time.Time { return now }, maxOffset, ceiling)
	c.SetCeiling(c.Now() + 10)
	for range 10 {
		got, err := c.Next(0)
		require.NoError(t, err)
		require.Greater(t, got, last)
		last = got
	}
	_, err = c.Next(0)
	require.ErrorIs(t, err, ErrCeiling)
	c.SetCeiling(ceiling + 11)
	got, err := c.Next(0)
	require.NoError(t, err)
	require.Equal(t, ceiling+11, got)
}

func TestClockEndsAtTheLastStamp(t *testing.T) {
	end := StampTime(math.MaxUint64)
	c := NewClock(func() time.Time { return end }, maxOffset, math.MaxUint64-1)
	got, err := c.Next(0)
	require.NoError(t, err)
	require.Equal(t, uint64(math.MaxUint64), got)
	_, err = c.Next(0)
	require.ErrorIs(t, err, ErrCeiling)
	_, err = c.Next(math.MaxUint64)
	require.ErrorIs(t, err, ErrCeiling)
}

// TestAJumpLeavesNoTrace: Now shows a clock that jumped, but does not keep it.
func TestAJumpLeavesNoTrace(t *testing.T) {
	now := noon.Add(time.Hour)
	c := NewClock(func() time.Time { return now }, maxOffset, 0)
	require.Equal(t, NewStamp(now), c.Now())
	now = noon
	require.Equal(t, NewStamp(noon), c.Now())
}

// TestClockConcurrently draws stamps from many goroutines: all distinct, each
// goroutine's ascending and above what it passed or observed before.
func TestClockConcurrently(t *testing.T) {
	const goroutines, each = 8, 5000
	var millis atomic.Int64
	now := func() time.Time { return noon.Add(time.Duration(millis.Load()) * time.Millisecond) }
	c := NewClock(now, maxOffset, 0)
	c.SetCeiling(NewStamp(noon) + 100)
	stamps := make([][]uint64, goroutines)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			var last uint64
			for i := 0; len(stamps[g]) < each; i++ {
				if i%100 == 0 {
					millis.Add(int64(i/100%3) - 1) // to and fro
				}
				above := last
				if i%3 == 0 {
					above = c.Now() + uint64(i%5)
				}
				if i%7 == 0 && c.Observe(above) != nil {
					t.Error("refused a stamp of the present")
				}
				got, err := c.Next(above)
				if err == ErrCeiling {
					c.SetCeiling(c.Now() + 1000)
					continue
				}
				if err != nil || got <= last || got <= above {
					t.Error(got, last, above, err)
					return
				}
				last = got
				stamps[g] = append(stamps[g], got)
			}
		})
	}
	wg.Wait()
	seen := map[uint64]bool{}
	for _, some := range stamps {
		for _, s := range some {
			require.False(t, seen[s], "stamp %x twice", s)
			seen[s] = true
		}
	}
}
