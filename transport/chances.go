package transport

import "time"

// Chances draws the fates of a Network's messages. A fate is a hash of the seed,
// the link and the number of the message on that link, and of nothing else.
type Chances struct {
	Seed               uint64
	Drop, Duplicate    float64       // probabilities, 0 to 1
	MinDelay, MaxDelay time.Duration // evenly distributed
}

// Fate is a NetworkOptions.Fate.
func (c Chances) Fate(l Link, n uint64) Fate {
	h := hash(c.Seed, l.From, l.To, n)
	f := Fate{Drop: chance(mix(h^1), c.Drop), Delay: c.MinDelay}
	if chance(mix(h^2), c.Duplicate) {
		f.Copies = 1
	}
	if spread := c.MaxDelay - c.MinDelay; spread > 0 {
		f.Delay += time.Duration(mix(h^3) % uint64(spread))
	}
	return f
}

// chance is true for the given share of all h.
func chance(h uint64, p float64) bool { return float64(h>>11)/(1<<53) < p }
