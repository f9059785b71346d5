package kvtest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing/synctest"
	"time"

	"example.com/kvstore"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/transport"
)

var (
	// ErrDown is what calls on a node that does not run give. Nothing was done.
	ErrDown = fmt.Errorf("kvtest: the node is down: %w", kvstore.ErrClosed)
	// ErrCrashed is what calls give whose node crashed under them. The outcome
	// is unknown.
	ErrCrashed = fmt.Errorf("kvtest: the node crashed during the call: %w", context.Canceled)

	// errPowerOff is what the disk of a crashed node answers.
	errPowerOff = errors.New("kvtest: the power is off")
)

// A Node is one place in the cluster: a disk that outlives crashes, a clock, and
// while it runs a kvstore.DB.
type Node struct {
	Index int
	c     *Cluster
	name  string
	addr  string
	disk  *vfs.Mem
	boots int
	lost  bool // the disk that it began with
	clock clock

	slow   atomic.Int64 // nanoseconds that a sync takes longer
	frozen atomic.Int64 // until this virtual time

	conflicts atomic.Pointer[kvstore.Resolver] // of the latest boot

	boot atomic.Pointer[boot] // nil while it is down
	last atomic.Pointer[boot] // the latest one, never nil
}

// A boot is one start of a node.
type boot struct {
	db      *kvstore.DB
	dead    atomic.Bool // the power went off
	crashed context.Context
	crash   context.CancelFunc
	ended   chan struct{} // closed when nothing of it is left
	net     endpoint

	left atomic.Int64  // steps before CrashAt cuts the power, this one included; 0 is never
	off  chan struct{} // closed then
}

// step counts a message, or a change of the disk, that is about to happen.
func (b *boot) step() {
	if b.left.Load() > 0 && b.left.Add(-1) == 0 {
		b.dead.Store(true)
		close(b.off)
	}
}

// An endpoint is a transport that keeps hold of what it opened.
type endpoint struct {
	transport.Transport
	opened transport.Endpoint
}

func (e *endpoint) Open(c transport.Config) (transport.Endpoint, error) {
	var err error
	e.opened, err = e.Transport.Open(c)
	return e.opened, err
}

func newNode(c *Cluster, i int) *Node {
	none := &boot{ended: make(chan struct{})}
	close(none.ended)
	n := &Node{Index: i, c: c, name: fmt.Sprint("n", i), addr: fmt.Sprintf("n%d:1", i), disk: vfs.NewMem(hashString(c.Seed, fmt.Sprint("disk", i)))}
	n.last.Store(none)
	return n
}

// ID is the node's id in the cluster, Addr its address.
func (n *Node) ID() string   { return n.name }
func (n *Node) Addr() string { return n.addr }

// DB gives the running node, or nil.
func (n *Node) DB() *kvstore.DB {
	if b := n.boot.Load(); b != nil {
		return b.db
	}
	return nil
}

// Restart starts node i, which must not run, with the disk it has. Different
// nodes may be started at the same time.
func (c *Cluster) Restart(i int) {
	c.T.Helper()
	n := c.nodes[i]
	if n.boot.Load() != nil {
		c.T.Errorf("node %d runs already", i)
		return
	}
	<-n.last.Load().ended
	n.boots++
	b := &boot{ended: make(chan struct{}), net: endpoint{Transport: c.net.Transport(n.name)}}
	b.crashed, b.crash = context.WithCancel(context.Background())
	n.last.Store(b)
	o := &kvstore.Options{
		NodeID: n.name, Listen: n.addr, Transport: &b.net, Clock: n.now,
		FS:          vfs.Faulty(n.disk, func(op vfs.Op) error { return n.operate(op, b) }),
		MemoryBytes: 8 << 20, Partitions: 64, Seed: hashString(c.Seed, n.name),
	}
	switch {
	case i > 0:
		o.Seeds = []string{c.nodes[0].addr}
	case n.lost: // it must not form another cluster
		o.Seeds = []string{c.nodes[1].addr}
	}
	if c.o.Configure != nil {
		c.o.Configure(i, o)
	}
	n.conflicts.Store(&o.Conflicts)
	db, err := kvstore.Open("/node", o)
	if err != nil {
		close(b.ended)
		c.T.Errorf("node %d does not start: %v", i, err)
		return
	}
	b.db = db
	n.boot.Store(b)
}

// Stop closes node i, as a service that restarts does, and waits for it.
func (c *Cluster) Stop(i int) {
	c.T.Helper()
	b := c.running(i)
	c.nodes[i].boot.Store(nil)
	if err := b.db.Close(); err != nil {
		c.T.Errorf("node %d does not close cleanly: %v", i, err)
	}
	close(b.ended)
}

// Crash cuts the power of node i: what was not synced may be lost, partly or
// whole, and the node says nothing more. Calls that it coordinates fail with
// ErrCrashed.
func (c *Cluster) Crash(i int) {
	c.T.Helper()
	synctest.Wait()
	n, b := c.nodes[i], c.running(i)
	b.dead.Store(true)
	n.disk = n.disk.Crash(hashString(c.Seed, n.name, fmt.Sprint("crash", n.boots)))
	n.boot.Store(nil)
	b.crash()
	c.trace.add(c.Now(), "crash %s", n.name)
	go func() { // what is left of the process winds up, unheard
		defer close(b.ended)
		if b.net.opened != nil {
			_ = b.net.opened.Close() // nobody says goodbye
		}
		_ = b.db.Close()
	}()
}

// CrashAt cuts the power of node i in the place of its n-th step from now on, the first
// being 1, and closes off then. Each message that it sends is a step, and so is each
// change or sync of its disk. Call Crash next, which does the rest.
func (c *Cluster) CrashAt(i, n int) (off <-chan struct{}) {
	c.T.Helper()
	b := c.running(i)
	b.off = make(chan struct{})
	b.left.Store(int64(n))
	return b.off
}

// running gives node i's present boot.
func (c *Cluster) running(i int) *boot {
	c.T.Helper()
	b := c.nodes[i].boot.Load()
	if b == nil {
		c.T.Fatalf("node %d does not run", i)
	}
	return b
}

// Runs reports whether the node is up.
func (n *Node) Runs() bool { return n.boot.Load() != nil }

// Freeze stops node i for d, as a long pause of its process would: what it sends,
// what is sent to it, its disk and new calls wait. Its timers do not.
func (c *Cluster) Freeze(i int, d time.Duration) { c.nodes[i].frozen.Store(int64(c.Now() + d)) }

// thaw is how long the node is frozen still.
func (n *Node) thaw() time.Duration {
	return max(0, time.Duration(n.frozen.Load())-n.c.Now())
}
