package kvtest

import (
	"time"

	"example.com/kvstore"
)

// Options are the settings of a simulated cluster. The zero value of every
// field is its default.
type Options struct {
	// Nodes is the number of nodes; default 3. Node 0 is its own first member,
	// the others have it as their seed.
	Nodes int
	// Stopped leaves the nodes to be started by Restart. By default Run starts
	// them, one after the other.
	Stopped bool
	// Configure changes a node's options before each of its starts.
	Configure func(i int, o *kvstore.Options)
	// Loss and Duplicate are the shares of messages lost and doubled.
	Loss, Duplicate float64
	// MinDelay and MaxDelay bound the time of a message; default 200 µs to 2 ms.
	// Messages overtake each other.
	MinDelay, MaxDelay time.Duration
	// Distance is what a message between two nodes takes on top of that, the same
	// both ways, for data centres that are far apart. Nil is none.
	Distance func(from, to int) time.Duration
	// MinSync and MaxSync bound the time of a sync of a disk; default 100 µs to
	// 1 ms. Other operations take no time.
	MinSync, MaxSync time.Duration
	// LoseDisks has a Storm destroy disks.
	LoseDisks bool
	// Stall is the real time without an event after which the process ends, with all
	// stacks; default 20 s. A scenario over millions of keys computes longer than that.
	Stall time.Duration

	keepTrace bool // as text, for this package's own tests
}

func (o *Options) withDefaults() Options {
	var c Options
	if o != nil {
		c = *o
	}
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{{&c.MinDelay, 200 * time.Microsecond}, {&c.MaxDelay, 2 * time.Millisecond}, {&c.MinSync, 100 * time.Microsecond}, {&c.MaxSync, time.Millisecond}} {
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	c.MaxDelay, c.MaxSync = max(c.MaxDelay, c.MinDelay+1), max(c.MaxSync, c.MinSync+1)
	if c.Nodes == 0 {
		c.Nodes = 3
	}
	if c.Stall == 0 {
		c.Stall = 20 * time.Second
	}
	return c
}
