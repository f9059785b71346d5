package replica

import "time"

// A Bucket paces background work: rate bytes a second, of which up to burst may
// come at once. It is not safe for concurrent use.
type Bucket struct {
	rate, burst int64
	tokens      int64 // below zero: promised ahead
	at          time.Time
}

// NewBucket returns a full bucket. rate and burst are above zero.
func NewBucket(rate, burst int64) Bucket { return Bucket{rate: rate, burst: burst, tokens: burst} }

// Take takes n bytes and gives how long to wait before they may be used. What
// was taken is taken: callers that wait get their turns in the order in which
// they asked.
func (b *Bucket) Take(now time.Time, n int64) (wait time.Duration) {
	b.fill(now)
	b.tokens -= n
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(-b.tokens) * time.Second / time.Duration(b.rate)
}

// setRate changes the rate from now on.
func (b *Bucket) setRate(now time.Time, rate int64) {
	b.fill(now)
	b.rate = rate
}

// fill adds what has come since the last time.
func (b *Bucket) fill(now time.Time) {
	if elapsed := now.Sub(b.at); elapsed > 0 {
		if !b.at.IsZero() {
			full := time.Duration(b.burst-b.tokens) * time.Second / time.Duration(b.rate)
			b.tokens += int64(min(elapsed, full) * time.Duration(b.rate) / time.Second)
			b.tokens = min(b.tokens, b.burst)
		}
		b.at = now
	}
}
