package main

import (
	"math/bits"
	"time"
)

// A tally counts operations by latency, in buckets that are at most 1/32 wide
// of their value: fixed memory, nothing to allocate while measuring.
type tally struct {
	buckets [40 * subBuckets]uint64
}

// subBuckets is the number of buckets for each doubling of the latency.
const subBuckets = 32

func (t *tally) add(d time.Duration) {
	t.buckets[bucket(uint64(max(d, 0)))]++
}

// bucket gives the place of a number of nanoseconds.
func bucket(ns uint64) int {
	if ns < subBuckets {
		return int(ns)
	}
	shift := bits.Len64(ns) - bits.Len64(subBuckets) // ns>>shift is in [32, 64)
	b := (shift+1)*subBuckets + int(ns>>shift) - subBuckets
	return min(b, 40*subBuckets-1)
}

// floor gives the smallest number of nanoseconds in a bucket.
func floor(b int) uint64 {
	if b < subBuckets {
		return uint64(b)
	}
	shift := b/subBuckets - 1
	return uint64(b%subBuckets+subBuckets) << shift
}

func (t *tally) merge(o *tally) {
	for i, n := range o.buckets {
		t.buckets[i] += n
	}
}

func (t *tally) count() uint64 {
	var n uint64
	for _, b := range t.buckets {
		n += b
	}
	return n
}

// quantile gives the latency that a share q of the operations did not exceed, in
// microseconds.
func (t *tally) quantile(q float64) float64 {
	rank := uint64(q * float64(t.count()))
	var n uint64
	for b, c := range t.buckets {
		n += c
		if n > rank {
			return float64(floor(b)) / 1e3
		}
	}
	return 0
}
