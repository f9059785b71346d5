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
)

// errPowerOff is what the disk of a crashed node answers.
var errPowerOff = errors.New("kvtest: the power is off")

// ErrDown is what calls on a node that does not run give. Nothing was done.
var ErrDown = fmt.Errorf("kvtest: the node is down: %w", kvstore.ErrClosed)

// A Node is one place in the cluster: a disk that outlives crashes, a clock, and
// while it runs a kvstore.DB.
type Node struct {
	Index int
	c     *Cluster
	name  string
	addr  string
	disk  *vfs.Mem
	boots int
	clock clock

	db   *kvstore.DB
	dead *atomic.Bool  // of the running start: the power went off
	down chan struct{} // of the last start: closed when it has ended
}

// A clock is a node's wall clock: wrong by an offset, and fast by a share.
type clock struct {
	offset atomic.Int64 // nanoseconds
	drift  atomic.Int64 // parts per million
	since  atomic.Int64 // virtual nanoseconds when drift was set
}

func newNode(c *Cluster, i int) *Node {
	n := &Node{Index: i, c: c, name: fmt.Sprint("n", i), addr: fmt.Sprintf("n%d:1", i), disk: vfs.NewMem(c.Seed + uint64(i)),
		dead: new(atomic.Bool), down: make(chan struct{})}
	close(n.down)
	return n
}

// DB gives the running node, or nil.
func (n *Node) DB() *kvstore.DB { return n.db }

// Restart starts node i, which must not run, with the disk it has.
func (c *Cluster) Restart(i int) {
	c.T.Helper()
	n := c.nodes[i]
	<-n.down
	n.boots++
	dead := new(atomic.Bool)
	n.dead = dead
	o := &kvstore.Options{
		NodeID: n.name, Listen: n.addr, Transport: c.net.Transport(n.name), Clock: n.now,
		FS:          vfs.Faulty(n.disk, func(op vfs.Op) error { return n.operate(op, dead) }),
		MemoryBytes: 8 << 20, Partitions: 64, Seed: hashString(c.Seed, n.name),
	}
	if i > 0 {
		o.Seeds = []string{c.nodes[0].addr}
	}
	if c.o.Configure != nil {
		c.o.Configure(i, o)
	}
	db, err := kvstore.Open("/node", o)
	if err != nil {
		c.T.Fatalf("node %d does not start: %v", i, err)
	}
	n.db, n.down = db, make(chan struct{})
}

// Stop closes node i, as a service that restarts does, and waits for it.
func (c *Cluster) Stop(i int) {
	c.T.Helper()
	n := c.nodes[i]
	if err := n.shut(); err != nil {
		c.T.Errorf("node %d does not close cleanly: %v", i, err)
	}
}

// shut closes the running node.
func (n *Node) shut() error {
	db := n.db
	n.db = nil
	defer close(n.down)
	return db.Close()
}

// Crash cuts the power of node i: what was not synced may be lost, partly or
// whole, and the node says nothing more.
func (c *Cluster) Crash(i int) {
	synctest.Wait()
	n := c.nodes[i]
	n.dead.Store(true)
	n.disk = n.disk.Crash(hashString(c.Seed, n.name, fmt.Sprint(n.boots)))
	db, down := n.db, n.down
	n.db = nil
	go func() { // what is left of the process winds up, unheard
		defer close(down)
		_ = db.Close()
	}()
}

// Skew sets node i's clock wrong by d.
func (c *Cluster) Skew(i int, d time.Duration) { c.nodes[i].clock.offset.Store(int64(d)) }

// Drift lets node i's clock run fast by ppm parts in a million from now on.
func (c *Cluster) Drift(i int, ppm int64) {
	k := &c.nodes[i].clock
	k.offset.Add(int64(c.Now()-time.Duration(k.since.Load())) / 1e6 * k.drift.Load())
	k.since.Store(int64(c.Now()))
	k.drift.Store(ppm)
}

// now is the node's wall clock.
func (n *Node) now() time.Time {
	k := &n.clock
	drift := int64(n.c.Now()-time.Duration(k.since.Load())) / 1e6 * k.drift.Load()
	return time.Now().Add(time.Duration(k.offset.Load() + drift))
}

// operate lets a disk operation take its time, or fail when the power is off.
func (n *Node) operate(op vfs.Op, dead *atomic.Bool) error {
	if op.Kind.Syncs() && !dead.Load() {
		h := hashString(n.c.Seed, n.name, op.Kind.String(), op.Name, fmt.Sprint(n.c.Now()))
		time.Sleep(between(h, n.c.o.MinSync, n.c.o.MaxSync))
		n.c.trace.add(n.c.Now(), h)
	}
	if dead.Load() && op.Kind != vfs.OpClose {
		return errPowerOff
	}
	return nil
}

// Get, Put and Delete are those of the node's DB; their results enter the trace.

func (n *Node) Get(ctx context.Context, key string, opts ...kvstore.GetOption) (kvstore.Item, error) {
	if n.db == nil {
		return kvstore.Item{Key: key}, ErrDown
	}
	it, err := n.db.Get(ctx, key, opts...)
	n.note("get", key, it.Version, err)
	return it, err
}

func (n *Node) Put(ctx context.Context, key string, value []byte, opts ...kvstore.PutOption) (kvstore.Version, error) {
	if n.db == nil {
		return kvstore.Version{}, ErrDown
	}
	v, err := n.db.Put(ctx, key, value, opts...)
	n.note("put", key, v, err)
	return v, err
}

func (n *Node) Delete(ctx context.Context, key string, opts ...kvstore.DeleteOption) error {
	if n.db == nil {
		return ErrDown
	}
	err := n.db.Delete(ctx, key, opts...)
	n.note("delete", key, kvstore.Version{}, err)
	return err
}

func (n *Node) note(op, key string, v kvstore.Version, err error) {
	n.c.trace.add(n.c.Now(), hashString(n.c.Seed, n.name, op, key, v.String(), fmt.Sprint(err)))
}
