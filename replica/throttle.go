package replica

import "time"

const (
	// throttleWindow is how often a throttle looks how requests fared, and
	// throttleIdle the number of windows without any after which nobody is disturbed.
	throttleWindow = 100 * time.Millisecond
	throttleIdle   = 20
	// A window in which requests took throttleFactor times as long as in calm, and
	// throttleSlack more, halves the rate; each other one gives a throttleStep-th of
	// the full rate back. throttleLeast is the part of it that always stays.
	throttleFactor = 2
	throttleSlack  = time.Millisecond
	throttleStep   = 16
	throttleLeast  = 16
	// throttleDrift is the part by which what counts as calm grows in a window that
	// is slower, so that a slower disk becomes the rule within a minute.
	throttleDrift = 256
	// throttleCalm is what a request takes in calm, before it is known.
	throttleCalm = 2 * time.Millisecond
)

// A Throttle is a Bucket for background work whose rate follows how clients' requests
// fare: it falls while they take longer than in calm, and recovers when they do not, or
// there are none (additive increase, multiplicative decrease). It reads no clock, and
// what happens in one instant may come in any order. It is not safe for concurrent use.
type Throttle struct {
	bucket Bucket
	most   int64
	calm   time.Duration // the mean time of a request when nothing disturbs it
	window struct {
		index int64 // its beginning, in windows since 1970; 0: none yet
		sum   time.Duration
		n     int
		idle  int64 // windows without a request before it
	}
}

// NewThrottle returns a throttle at its full rate. rate is at least throttleLeast
// bytes a second, burst above zero.
func NewThrottle(rate, burst int64) Throttle {
	return Throttle{bucket: NewBucket(rate, burst), most: rate, calm: throttleCalm}
}

// Served notes that a client's request took so long.
func (t *Throttle) Served(now time.Time, took time.Duration) {
	t.advance(now)
	t.window.sum += took
	t.window.n++
}

// Take is that of the bucket.
func (t *Throttle) Take(now time.Time, n int64) (wait time.Duration) {
	t.advance(now)
	return t.bucket.Take(now, n)
}

// Rate is the bytes a second that background work may use now.
func (t *Throttle) Rate(now time.Time) int64 {
	t.advance(now)
	return t.bucket.rate
}

// Busy reports whether there were requests in the last seconds.
func (t *Throttle) Busy(now time.Time) bool {
	t.advance(now)
	return t.window.n > 0 || t.window.idle < throttleIdle && t.window.index != 0
}

// advance judges the window that is over, if one is.
func (t *Throttle) advance(now time.Time) {
	w := &t.window
	index := now.UnixNano() / int64(throttleWindow)
	if index <= w.index {
		return
	}
	rate := t.bucket.rate
	switch {
	case w.n == 0:
		w.idle += index - w.index
	case t.slow():
		rate /= 2
	default:
		rate += t.most / throttleStep
	}
	if w.n > 0 {
		w.idle = index - w.index - 1
	}
	if w.idle >= throttleIdle {
		rate = t.most
	}
	t.bucket.setRate(now, min(max(rate, t.most/throttleLeast), t.most))
	w.index, w.sum, w.n = index, 0, 0
}

// slow reports whether requests took long in the window, and learns what they take in
// calm. There was one.
func (t *Throttle) slow() bool {
	mean := t.window.sum / time.Duration(t.window.n)
	slow := mean > throttleFactor*t.calm+throttleSlack
	if mean < t.calm {
		t.calm = mean
	} else {
		t.calm = min(mean, t.calm+max(t.calm/throttleDrift, 1))
	}
	return slow
}
