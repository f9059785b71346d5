package crdt

import (
	"cmp"
	"math"
	"math/bits"

	"example.com/kvstore/vclock"
)

// Limits of request ids.
const (
	// MaxRequests is how many request ids a counter remembers, the newest.
	MaxRequests = 256
	// MaxRequestBytes bounds one id.
	MaxRequestBytes = 64
)

// A counter is what each actor has counted, and the newest requests.
//
// An actor's count is one item, which its next one replaces: so a counter grows with
// the actors that count, not with what they count.
//
// A request is in the count of its actor, and remembered so that it is not counted
// again. Where two actors that did not hear of each other have both counted it, the one with
// the smallest dot counts, and value leaves out the others, until the actor of each takes it
// out of its count. To forget a request that was counted once changes nothing, so
// anybody may do it, at any time.
type counter struct {
	totals   []total
	requests []request
}

// A total is what one actor has counted.
type total struct {
	dot vclock.Dot
	n   int64
}

func (t total) at() vclock.Dot      { return t.dot }
func (t total) compare(u total) int { return cmp.Compare(t.n, u.n) }

// A request is one that was counted.
type request struct {
	dot   vclock.Dot
	id    string
	delta int64
}

func (r request) at() vclock.Dot { return r.dot }
func (r request) compare(s request) int {
	return cmp.Or(cmp.Compare(r.id, s.id), cmp.Compare(r.delta, s.delta))
}

// value is the count.
func (c *counter) value() int128 {
	var sum int128
	for _, t := range c.totals {
		sum.add(t.n)
	}
	for i, again := range c.repeated() {
		if again {
			sum.sub(c.requests[i].delta)
		}
	}
	return sum
}

// repeated says of each request whether an earlier one has its id.
func (c *counter) repeated() []bool {
	if len(c.requests) < 2 {
		return make([]bool, len(c.requests))
	}
	known := make(map[string]bool, len(c.requests))
	out := make([]bool, len(c.requests))
	for i, r := range c.requests {
		out[i] = known[r.id]
		known[r.id] = true
	}
	return out
}

// add counts delta under dot d, unless the request was counted before; "" is none.
// A count that is beyond an int64 already may be brought back.
func (c counter) add(d vclock.Dot, delta int64, id string) (counter, error) {
	var own int128
	var totals []total
	for _, t := range c.totals {
		if t.dot.Actor == d.Actor {
			own.add(t.n)
		} else {
			totals = append(totals, t)
		}
	}
	known := false
	var requests []request
	for i, again := range c.repeated() {
		r := c.requests[i]
		known = known || id != "" && r.id == id
		if again && r.dot.Actor == d.Actor {
			own.sub(r.delta) // this actor's, so nobody else does
			continue
		}
		requests = append(requests, r)
	}
	if !known {
		own.add(delta)
		if id != "" {
			requests = insert(requests, request{d, id, delta})
		}
	}
	n, err := own.int64()
	if err != nil {
		return counter{}, err
	}
	next := counter{insert(totals, total{d, n}), requests}
	sum := next.value()
	if _, err := sum.int64(); err != nil && !known && sum.negative() == (delta < 0) {
		return counter{}, err
	}
	return next.forget(), nil
}

// forget drops the oldest requests beyond MaxRequests that were counted once.
func (c counter) forget() counter {
	over := len(c.requests) - MaxRequests
	if over <= 0 {
		return c
	}
	times := map[string]int{}
	for _, r := range c.requests {
		times[r.id]++
	}
	var kept []request
	for _, r := range c.requests {
		if over > 0 && times[r.id] == 1 {
			over--
			continue
		}
		kept = append(kept, r)
	}
	c.requests = kept
	return c
}

// int128 is a sum that does not overflow: hi and lo in two's complement.
type int128 struct{ hi, lo uint64 }

func (x *int128) add(n int64) {
	var carry uint64
	x.lo, carry = bits.Add64(x.lo, uint64(n), 0)
	x.hi, _ = bits.Add64(x.hi, uint64(n>>63), carry)
}

func (x *int128) sub(n int64) {
	var borrow uint64
	x.lo, borrow = bits.Sub64(x.lo, uint64(n), 0)
	x.hi, _ = bits.Sub64(x.hi, uint64(n>>63), borrow)
}

func (x *int128) negative() bool { return int64(x.hi) < 0 }

func (x *int128) int64() (int64, error) {
	switch {
	case x.hi == 0 && x.lo <= math.MaxInt64, x.hi == math.MaxUint64 && x.lo > math.MaxInt64:
		return int64(x.lo), nil
	}
	return 0, ErrOverflow
}

// Count is the value of a counter; 0 for a state that was never changed. It fails
// with ErrOverflow when what was counted apart is together beyond an int64, until enough
// is counted down.
func (s State) Count() (int64, error) {
	sum := s.store.counter.value()
	return sum.int64()
}
