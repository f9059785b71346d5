package kvtest

import (
	"time"

	"example.com/kvstore/transport"
)

// Partition separates groups of nodes; nodes in no group form one of their own.
// It replaces an earlier partition. What is on its way across is lost.
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
	from, to := c.named(l.From), c.named(l.To)
	b := from.last.Load()
	b.step()
	if b.dead.Load() { // nobody hears what is left of the process
		return transport.Fate{Drop: true}
	}
	f := transport.Chances{Seed: c.Seed, Drop: c.o.Loss, Duplicate: c.o.Duplicate, MinDelay: c.o.MinDelay, MaxDelay: c.o.MaxDelay}.Fate(l, n)
	f.Delay += max(from.thaw(), to.thaw())
	if c.o.Distance != nil {
		f.Delay += c.o.Distance(from.Index, to.Index)
	}
	f.Delay += c.align(from.Index*len(c.nodes)+to.Index, f.Delay)
	if to.last.Load().dead.Load() {
		f.Drop = true
	}
	c.trace.add(c.Now(), "message %s>%s #%d lost %v copies %d delay %d", l.From, l.To, n, f.Drop, f.Copies, f.Delay)
	return f
}

// align gives what to add to a delay so that the event falls on an instant that
// belongs to this link alone: the virtual nanoseconds modulo the number of
// links. Events that came at one instant would run at the same time, in any
// order.
func (c *Cluster) align(link int, delay time.Duration) time.Duration {
	links := time.Duration(len(c.nodes) * len(c.nodes))
	at := c.Now() + delay
	return (time.Duration(link) - at%links + links) % links
}

func (c *Cluster) named(name string) *Node {
	for _, n := range c.nodes {
		if n.name == name {
			return n
		}
	}
	panic("kvtest: no node " + name)
}

// schedule runs one delivery at its time.
func (c *Cluster) schedule(at time.Time, run func()) {
	time.AfterFunc(time.Until(at), run)
}
