package kvtest

import (
	"context"
	"maps"
	"math/rand/v2"
	"time"
)

// Clocks stay within this of the true time in a Storm, so within the default
// Options.MaxClockOffset of each other.
const stormSkew = 240 * time.Millisecond

// A storm is what Storm knows of the damage done.
type storm struct {
	*rand.Rand
	c *Cluster
	// apart are the nodes behind a partition or a cut.
	apart map[int]bool
	// flapping is the node whose links go down and come back, for so many flaps more.
	flapping, flaps int
}

// Storm lets faults happen for d: nodes crash, stop and come back, partitions
// and one-way cuts come and go, the links of a node flap, clocks are set and drift
// within what Options.MaxClockOffset allows, disks are slow, nodes freeze, and now and
// then the power fails everywhere at once. With Options.LoseDisks nodes come back without their
// disks, too, each not before the last one is whole again. Most of the time a majority of the nodes is
// unharmed. Afterwards all faults are healed and all nodes run, though they may
// not be Settled yet.
//
// The seed of the cluster, and how many storms there were, decide everything.
func (c *Cluster) Storm(d time.Duration) {
	c.T.Helper()
	s := &storm{Rand: rand.New(rand.NewPCG(c.Seed, 0x5702+c.storms)), c: c, apart: map[int]bool{}}
	c.storms++
	for end := c.Now() + d; ; {
		pause := time.Duration(s.ExpFloat64() * float64(400*time.Millisecond))
		if c.Now()+pause >= end {
			time.Sleep(end - c.Now())
			break
		}
		time.Sleep(pause)
		s.flap()
		if fault := s.strike(); fault != "" {
			c.faults[fault]++
		}
	}
	c.Heal()
	for i := range c.nodes {
		c.Skew(i, 0)
		c.SlowDisk(i, 0)
		if !c.nodes[i].Runs() {
			c.Restart(i)
		}
	}
}

// Faults counts the faults of all storms so far, by their names.
func (c *Cluster) Faults() map[string]uint64 { return maps.Clone(c.faults) }

// strike makes one fault and gives its name, or heals.
func (s *storm) strike() (fault string) {
	c, i := s.c, s.IntN(len(s.c.nodes))
	if c.o.LoseDisks && s.IntN(20) == 0 && s.whole() {
		c.Crash(i)
		c.LoseDisk(i)
		return "lost disk"
	}
	switch p := s.IntN(100); {
	case p < 15:
		if c.nodes[i].Runs() && s.spares(i) {
			c.Crash(i)
			return "crash"
		}
	case p < 17:
		if s.flaps == 0 && s.spares(i) {
			s.flapping, s.flaps = i, 2*(2+s.IntN(6))
			return "flapping"
		}
	case p < 22:
		if c.nodes[i].Runs() && s.spares(i) {
			c.Stop(i)
			return "stop"
		}
	case p < 45:
		for j := range c.nodes {
			if k := (i + j) % len(c.nodes); !c.nodes[k].Runs() {
				c.Restart(k)
				break
			}
		}
	case p < 55:
		if s.partition() {
			return "partition"
		}
	case p < 62:
		if j := s.IntN(len(c.nodes)); j != i && s.spares(i) {
			s.apart[i] = true
			c.Cut(i, j)
			return "one-way cut"
		}
	case p < 75:
		clear(s.apart)
		c.Heal()
	case p < 82:
		c.Skew(i, time.Duration(s.Int64N(int64(2*stormSkew)))-stormSkew)
		return "skew"
	case p < 86:
		c.Skew(i, 0)
		c.Drift(i, int64(s.IntN(2001)-1000)) // 240 s to reach the bound
		return "drift"
	case p < 92:
		c.SlowDisk(i, time.Duration(s.Int64N(int64(50*time.Millisecond))))
		return "slow disk"
	case p < 96:
		c.SlowDisk(i, 0)
	case p < 97:
		s.blackout()
		return "blackout"
	default:
		c.Freeze(i, time.Duration(s.Int64N(int64(3*time.Second))))
		return "freeze"
	}
	return ""
}

// flap takes the node that flaps away from the others, or back to them.
func (s *storm) flap() {
	if s.flaps == 0 {
		return
	}
	s.flaps--
	clear(s.apart)
	if s.flaps%2 == 0 {
		s.c.Heal()
		return
	}
	s.apart[s.flapping] = true
	s.c.Partition([]int{s.flapping})
}

// whole reports whether all nodes run and have all of their data.
func (s *storm) whole() bool {
	for _, n := range s.c.nodes {
		db := n.DB()
		if db == nil || db.Metrics().Incomplete > 0 {
			return false
		}
		if status, err := db.Status(context.Background()); err != nil || !status.Ready {
			return false
		}
	}
	return true
}

// blackout cuts the power of all nodes at once, for a moment.
func (s *storm) blackout() {
	for i, n := range s.c.nodes {
		if n.Runs() {
			s.c.Crash(i)
		}
	}
	time.Sleep(time.Duration(s.Int64N(int64(time.Second))))
	for i := range s.c.nodes {
		s.c.Restart(i)
	}
}

// partition separates some nodes from the others, if a majority stays.
func (s *storm) partition() bool {
	order := s.Perm(len(s.c.nodes))
	minority := order[:1+s.IntN((len(order)-1)/2)]
	for _, i := range minority {
		if !s.spares(i) {
			return false
		}
	}
	clear(s.apart)
	for _, i := range minority {
		s.apart[i] = true
	}
	s.c.Partition(minority)
	return true
}

// spares reports whether a majority stays unharmed when node i is not. Now and
// then it does not matter.
func (s *storm) spares(i int) bool {
	harmed := 1
	for j, n := range s.c.nodes {
		if j != i && (!n.Runs() || s.apart[j]) {
			harmed++
		}
	}
	return harmed <= (len(s.c.nodes)-1)/2 || s.IntN(20) == 0
}
