package kvtest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/kvstore/transport"
)

// settleWithin bounds every wait of Ready, Settle and Check, in virtual time.
const settleWithin = 2 * time.Minute

// A Cluster is a set of nodes under one simulated world. Its methods belong to
// the scenario's goroutine, but for Node, Now and Restart.
type Cluster struct {
	T     testing.TB
	Seed  uint64
	o     Options
	start time.Time
	net   *transport.Network
	nodes []*Node
	trace trace

	storms uint64 // so far
	faults map[string]uint64

	history struct {
		sync.Mutex
		ops []Op
	}
}

// Run runs scenario on a new cluster and stops the nodes afterwards. It fails
// the test when a goroutine of a node is left, and tells how to replay a
// scenario that failed. When nothing happens for Options.Stall of real time it prints
// all stacks and ends the process.
//
// The scenario runs in a synctest bubble: it must not wait for anything outside,
// contexts that are cancelled outside and real connections included.
//
// Inside the scenario use c.T, not t: it belongs to the bubble.
func Run(t *testing.T, seed uint64, o *Options, scenario func(c *Cluster)) {
	t.Helper()
	c := &Cluster{Seed: seed, o: o.withDefaults(), faults: map[string]uint64{}}
	c.trace.keep = c.o.keepTrace
	defer oneThread()()
	defer c.watch(t.Name())()
	synctest.Test(t, func(t *testing.T) {
		c.T, c.start = t, time.Now()
		c.net = transport.NewNetwork(&transport.NetworkOptions{Fate: c.fate, Schedule: c.schedule})
		for i := range c.o.Nodes {
			c.nodes = append(c.nodes, newNode(c, i))
		}
		defer c.stop()
		for i := range c.o.Nodes {
			if !c.o.Stopped {
				c.Restart(i)
			}
		}
		scenario(c)
	})
}

// stop ends all nodes and tells how to replay a failed run.
func (c *Cluster) stop() {
	for _, n := range c.nodes {
		if b := n.boot.Swap(nil); b != nil {
			_ = b.db.Close()
			close(b.ended)
		}
		<-n.last.Load().ended
	}
	if c.T.Failed() {
		c.T.Logf("seed %d; replay: %s", c.Seed, replayCommand(c.T.Name(), c.Seed))
	}
}

// Node gives node i.
func (c *Cluster) Node(i int) *Node { return c.nodes[i] }

// Nodes gives all nodes, also those that are down.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Ready waits until all nodes that run are ready, and fails the test when that
// takes minutes.
func (c *Cluster) Ready() {
	c.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), settleWithin)
	defer cancel()
	for _, n := range c.nodes {
		if db := n.DB(); db != nil {
			if err := db.Ready(ctx); err != nil {
				c.T.Fatalf("node %d: %v", n.Index, err)
			}
		}
	}
}

// Settle is Ready, and waits until all nodes that run believe of each other that
// they are alive. Heal first.
func (c *Cluster) Settle() {
	c.T.Helper()
	c.Ready()
	for waited := time.Duration(0); ; waited += settleEvery {
		trouble := c.unsettled()
		if trouble == "" {
			return
		}
		if waited > settleWithin {
			c.T.Fatalf("after %v: %s", waited, trouble)
		}
		time.Sleep(settleEvery)
	}
}

const settleEvery = 100*time.Millisecond + 17*time.Nanosecond

// unsettled tells of a node that takes another one for dead.
func (c *Cluster) unsettled() string {
	runs := map[string]bool{}
	for _, n := range c.nodes {
		runs[n.name] = n.DB() != nil
	}
	for _, n := range c.nodes {
		db := n.DB()
		if db == nil {
			continue
		}
		s, err := db.Status(context.Background())
		if err != nil {
			return fmt.Sprintf("node %d: %v", n.Index, err)
		}
		for _, m := range s.Members {
			if runs[m.ID] && m.State != "alive" {
				return fmt.Sprintf("node %d takes %s for %s", n.Index, m.ID, m.State)
			}
		}
	}
	return ""
}

// Now is the virtual time since the cluster began.
func (c *Cluster) Now() time.Duration { return time.Since(c.start) }

// Trace is a hash over all events so far: the fates of messages, writes and
// syncs of disks, and the results of the nodes' calls.
func (c *Cluster) Trace() uint64 {
	synctest.Wait()
	return c.trace.sum()
}
