package kvtest

import (
	"fmt"
	"time"

	"example.com/kvstore/lsm/vfs"
)

// LoseDisk gives node i, which must not run, an empty disk. When the others take it for
// dead it can have its place again.
func (c *Cluster) LoseDisk(i int) {
	c.T.Helper()
	c.nodes[i].lost = true
	c.PutDisk(i, vfs.NewMem(hashString(c.Seed, fmt.Sprint("disk", i, c.nodes[i].boots))))
}

// SlowDisk lets every sync of node i's disk take d longer, until the next call;
// zero is a healthy disk.
func (c *Cluster) SlowDisk(i int, d time.Duration) { c.nodes[i].slow.Store(int64(d)) }

// operate lets a disk operation take its time, or fail when the power is off.
func (n *Node) operate(op vfs.Op, b *boot) error {
	if op.Kind.Changes() {
		b.step()
	}
	if op.Kind.Changes() && !b.dead.Load() {
		n.c.trace.add(n.c.Now(), "disk %s %v %s %s %d %d", n.name, op.Kind, op.Name, op.To, op.Off, op.Len)
		if op.Kind.Syncs() {
			h := hashString(n.c.Seed, n.name, op.Name, fmt.Sprint(op.Kind, n.c.Now()))
			time.Sleep(between(h, n.c.o.MinSync, n.c.o.MaxSync) + time.Duration(n.slow.Load()) + n.thaw())
		}
	}
	if b.dead.Load() && op.Kind != vfs.OpClose {
		return errPowerOff
	}
	return nil
}

// Disk gives the node's disk, to be damaged. A crash and LoseDisk replace it.
func (n *Node) Disk() *vfs.Mem { return n.disk }

// PutDisk gives node i, which must not run, another disk: an older copy of its own, say.
func (c *Cluster) PutDisk(i int, disk *vfs.Mem) {
	c.T.Helper()
	n := c.nodes[i]
	if n.Runs() {
		c.T.Fatalf("node %d runs: stop or crash it before its disk is replaced", i)
	}
	<-n.last.Load().ended
	n.disk = disk
}
