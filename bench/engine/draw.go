package main

import (
	"math"
	"math/rand/v2"
)

// theta is the skew of YCSB's zipfian distribution: of 1 M keys the most frequent
// one gets 6.5 % of the requests and the first tenth 84 %.
const theta = 0.99

// A zipf draws ranks below n by the method of Gray et al., "Quickly Generating
// Billion-Record Synthetic Databases" (1994), section 3.2, as YCSB does. It is
// read only and shared by all callers.
type zipf struct {
	n                 uint64
	zetan, alpha, eta float64
}

func newZipf(n uint64) *zipf {
	z := &zipf{n: n, alpha: 1 / (1 - theta)}
	for i := range n {
		z.zetan += math.Pow(float64(i+1), -theta)
	}
	zeta2 := 1 + math.Pow(2, -theta)
	z.eta = (1 - math.Pow(2/float64(n), 1-theta)) / (1 - zeta2/z.zetan)
	return z
}

func (z *zipf) rank(rng *rand.Rand) uint64 {
	u := rng.Float64()
	switch uz := u * z.zetan; {
	case uz < 1:
		return 0
	case uz < 1+math.Pow(2, -theta):
		return min(1, z.n-1)
	}
	return min(uint64(float64(z.n)*math.Pow(z.eta*u-z.eta+1, z.alpha)), z.n-1)
}

// A keyspace tells a caller which key is next. Every caller has its own.
type keyspace struct {
	draw     string // "uniform", "zipf", "latest", "absent"
	rng      *rand.Rand
	zipf     *zipf // for zipf and latest
	keys     uint64
	caller   uint64
	callers  uint64
	inserted uint64 // by this caller
}

// next gives the number of a key to read or to update. Ranks are scattered, so
// that frequent keys are of all ages.
func (s *keyspace) next() uint64 {
	switch s.draw {
	case "zipf":
		return mix(s.zipf.rank(s.rng)) % s.keys
	case "latest":
		// The latest as this caller knows it: its own inserts, then the keys that
		// were there before. So a key that is drawn is one that was written.
		rank := s.zipf.rank(s.rng)
		if rank < s.inserted {
			return s.insertion(s.inserted - 1 - rank)
		}
		return s.keys - 1 - min(rank-s.inserted, s.keys-1)
	case "absent":
		return absentKeys + s.rng.Uint64N(s.keys)
	}
	return s.rng.Uint64N(s.keys)
}

// insert gives the number of a new key.
func (s *keyspace) insert() uint64 {
	s.inserted++
	return s.insertion(s.inserted - 1)
}

func (s *keyspace) insertion(i uint64) uint64 { return s.keys + i*s.callers + s.caller }
