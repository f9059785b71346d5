package kvtest

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"example.com/kvstore"
	"example.com/kvstore/transport"
)

// Options are the settings of a simulated cluster. The zero value of every
// field is its default.
type Options struct {
	// Nodes is the number of nodes started; default 3.
	Nodes int
	// Configure changes a node's options before each of its starts.
	Configure func(i int, o *kvstore.Options)
	// Loss and Duplicate are the shares of messages lost and doubled.
	Loss, Duplicate float64
	// MinDelay and MaxDelay bound the time of a message; default 200 µs to 2 ms.
	// Messages overtake each other.
	MinDelay, MaxDelay time.Duration
	// MinSync and MaxSync bound the time of a sync of a disk; default 100 µs to
	// 1 ms. Other operations take no time.
	MinSync, MaxSync time.Duration
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
	return c
}

// A Cluster is a set of nodes under one simulated world. Its methods belong to
// the scenario's goroutine.
type Cluster struct {
	T     testing.TB
	Seed  uint64
	o     Options
	start time.Time
	net   *transport.Network
	nodes []*Node
	trace trace
}

// Run runs scenario on a new cluster whose nodes have been started, and stops
// them afterwards. It fails the test when a goroutine of a node is left, and
// prints the seed of a scenario that fails.
func Run(t *testing.T, seed uint64, o *Options, scenario func(c *Cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &Cluster{T: t, Seed: seed, o: o.withDefaults(), start: time.Now()}
		c.net = transport.NewNetwork(&transport.NetworkOptions{Fate: c.fate, Schedule: c.schedule})
		defer c.stop()
		for i := range c.o.Nodes {
			c.nodes = append(c.nodes, newNode(c, i))
			c.Restart(i)
		}
		scenario(c)
	})
}

// stop ends all nodes and reports the seed of a failed run.
func (c *Cluster) stop() {
	for _, n := range c.nodes {
		if n.db != nil {
			n.shut()
		}
		<-n.down
	}
	if c.T.Failed() {
		c.T.Logf("seed %d; replay: go test ./kvtest -run '%s' -seed %d", c.Seed, c.T.Name(), c.Seed)
	}
}

// Node gives node i.
func (c *Cluster) Node(i int) *Node { return c.nodes[i] }

// Nodes gives all nodes, also those that are down.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Ready waits until all nodes that run are ready.
func (c *Cluster) Ready() {
	c.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, n := range c.nodes {
		if n.db == nil {
			continue
		}
		if err := n.db.Ready(ctx); err != nil {
			c.T.Fatalf("node %d: %v", n.Index, err)
		}
	}
}

// Now is the virtual time since the cluster began.
func (c *Cluster) Now() time.Duration { return time.Since(c.start) }

// Trace is a hash over all events so far: deliveries, syncs, and the results of
// the nodes' calls.
func (c *Cluster) Trace() uint64 { return c.trace.sum() }

// Partition separates groups of nodes; nodes in no group form one of their own.
func (c *Cluster) Partition(groups ...[]int) {
	names := make([][]string, len(groups))
	for i, g := range groups {
		for _, n := range g {
			names[i] = append(names[i], c.nodes[n].name)
		}
	}
	c.net.Partition(names...)
}

// Cut loses every message from one node to another, one way.
func (c *Cluster) Cut(from, to int) { c.net.Cut(c.nodes[from].name, c.nodes[to].name) }

// Heal ends the partition and all cuts.
func (c *Cluster) Heal() { c.net.Heal() }

// fate decides about the n-th message of a link.
func (c *Cluster) fate(l transport.Link, n uint64) transport.Fate {
	f := transport.Chances{Seed: c.Seed, Drop: c.o.Loss, Duplicate: c.o.Duplicate, MinDelay: c.o.MinDelay, MaxDelay: c.o.MaxDelay}.Fate(l, n)
	for _, node := range c.nodes {
		if node.dead.Load() && (node.name == l.From || node.name == l.To) {
			f.Drop = true
		}
	}
	c.trace.add(c.Now(), hashString(c.Seed, l.From, l.To, fmt.Sprint(n, f)))
	return f
}

// schedule runs one delivery at its time.
func (c *Cluster) schedule(at time.Time, run func()) {
	time.AfterFunc(at.Sub(time.Now()), func() {
		c.trace.add(c.Now(), 1)
		run()
	})
}
