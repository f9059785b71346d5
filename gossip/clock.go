package gossip

import "time"

// clock turns the caller's times into one that only moves forward, and only
// while this node runs. A backward jump counts as no time. An event that comes
// long after the moment Next asked for means that the process was starved,
// stopped, or that the clock jumped: answers may be lying unread, so the lost
// time must not count against the other members.
type clock struct {
	last    time.Time     // the caller's time of the last event
	elapsed time.Duration // time this node has been running
	started bool
}

// advance moves the clock to now, but not beyond limit, and reports whether
// time was lost.
func (c *clock) advance(now time.Time, limit time.Duration) (lost bool) {
	if !c.started {
		c.last, c.started = now, true
		return false
	}
	step := now.Sub(c.last)
	c.last = now
	if step <= 0 {
		return false
	}
	c.elapsed += step
	if c.elapsed > limit {
		c.elapsed = limit
		return true
	}
	return false
}

// maxHealth bounds the health score, so patience is at most 1 + maxHealth times
// what it is for a healthy node.
const maxHealth = 3

// health is Lifeguard's local health multiplier (Dadgar et al. 2017, section
// IV.A): a node that has reason to doubt itself gives the others more time. The
// score rises when time was lost, when neither a probed member nor any helper
// answers, and when this node finds itself suspected; it falls with every probe
// that is answered.
type health struct {
	score int
	late  bool // time was lost since the last round
	off   bool // for tests: shows what happens without it
}

func (h *health) worse()  { h.score = min(h.score+1, maxHealth) }
func (h *health) better() { h.score = max(h.score-1, 0) }

// patience stretches a time-out by the local health.
func (h *health) patience(d time.Duration) time.Duration {
	if h.off {
		return d
	}
	return d * time.Duration(1+h.score)
}
