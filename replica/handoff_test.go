package replica_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/replica"
)

func everyone(uint64) bool { return true }

// TestHandoff follows one target through its life.
func TestHandoff(t *testing.T) {
	now := time.Unix(100, 0)
	h := replica.NewHandoff(1000)
	_, _, ok := h.Due(now, everyone)
	require.False(t, ok, "nothing is kept")

	require.True(t, h.Admit(1, 1000))
	require.False(t, h.Admit(1, 1001), "the bound")
	h.Kept(1, 3, 900)
	require.False(t, h.Admit(1, 101))
	require.True(t, h.Admit(2, 1000), "each target has its own bound")

	_, _, ok = h.Due(now, func(uint64) bool { return false })
	require.False(t, ok, "a target that is down")
	target, bytes, ok := h.Due(now, everyone)
	require.True(t, ok)
	require.Equal(t, uint64(1), target)
	require.NotZero(t, bytes)
	_, _, ok = h.Due(now, everyone)
	require.False(t, ok, "one batch at a time")
	_, ok = h.Next()
	require.False(t, ok)

	h.Kept(1, -1, -300)
	h.Answered(now, 1, replica.Credit{Bytes: 500, After: time.Second})
	_, _, ok = h.Due(now.Add(time.Second-1), everyone)
	require.False(t, ok, "the credit is not due")
	_, bytes, ok = h.Due(now.Add(time.Second), everyone)
	require.True(t, ok)
	require.Equal(t, 500, bytes)

	wait := time.Duration(0)
	for range 20 {
		h.Failed(now, 1)
		at, ok := h.Next()
		require.True(t, ok)
		require.GreaterOrEqual(t, at.Sub(now), wait, "failures wait longer")
		require.LessOrEqual(t, at.Sub(now), 5*time.Second)
		wait = at.Sub(now)
		_, _, ok = h.Due(at, everyone)
		require.True(t, ok)
	}
	h.Answered(now, 1, replica.Credit{})
	h.Kept(1, -2, -600)
	require.Empty(t, h.Targets())
	_, ok = h.Next()
	require.False(t, ok)
	h.Marked(1, 1)
	require.Equal(t, []uint64{1}, h.Targets())
}

// TestBucket: over any time a bucket gives no more than its rate and one burst, and
// does not keep anybody waiting longer than that needs.
func TestBucket(t *testing.T) {
	b := replica.NewBucket(1000, 100)
	start := time.Unix(100, 0)
	now := start
	require.Zero(t, b.Take(now, 100))
	taken := int64(100)
	for range 1000 {
		wait := b.Take(now, 70)
		taken += 70
		now = now.Add(wait)
		require.LessOrEqual(t, taken, int64(now.Sub(start)*1000/time.Second)+100+1)
	}
	require.InDelta(t, 70.0, now.Sub(start).Seconds(), 0.2)
	now = now.Add(time.Hour)
	require.Zero(t, b.Take(now, 100), "a long rest fills it")
	require.NotZero(t, b.Take(now, 1), "but not above the burst")
}

// TestThrottle: the rate falls while requests take long, not below a part of it, and is
// back soon after; the order of what happens in one instant makes no difference; what
// stays slow becomes the rule.
func TestThrottle(t *testing.T) {
	const full = 1 << 20
	now := time.Unix(1000, 0)
	a, b := replica.NewThrottle(full, full), replica.NewThrottle(full, full)
	run := func(d, took time.Duration) {
		for end := now.Add(d); now.Before(end); now = now.Add(10 * time.Millisecond) {
			if took > 0 {
				a.Served(now, took)
			}
			require.Equal(t, a.Take(now, 100), b.Take(now, 100))
			if took > 0 {
				b.Served(now, took)
			}
		}
	}
	require.False(t, a.Busy(now))
	run(time.Second, 2*time.Millisecond)
	require.EqualValues(t, full, a.Rate(now))
	require.True(t, a.Busy(now.Add(time.Second)))
	require.False(t, b.Busy(now.Add(3*time.Second)))
	run(time.Second, 4*time.Millisecond) // not twice as long and a millisecond more
	require.EqualValues(t, full, a.Rate(now))
	run(210*time.Millisecond, 20*time.Millisecond)
	require.LessOrEqual(t, a.Rate(now), int64(full/2))
	run(2*time.Second, 20*time.Millisecond)
	require.EqualValues(t, full/16, a.Rate(now))
	run(2*time.Second, 2*time.Millisecond)
	require.EqualValues(t, full, a.Rate(now))
	run(time.Second, 20*time.Millisecond)
	require.Less(t, a.Rate(now), int64(full/8))
	run(time.Second, 0)
	require.Less(t, a.Rate(now), int64(full/8), "perhaps they are just few")
	run(2*time.Second, 0)
	require.EqualValues(t, full, a.Rate(now), "nobody is disturbed")
	run(3*time.Minute, 10*time.Millisecond)
	require.EqualValues(t, full, a.Rate(now), "the disk is what it is")
}
