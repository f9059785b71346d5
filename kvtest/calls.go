package kvtest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/vclock"
)

// Get, Put, Delete and Update are those of the node's DB, from a client nearby: a
// call takes a moment to reach the node, and its answer one to come back. Calls
// enter the trace and the history that Check judges.

// Get reads key.
func (n *Node) Get(ctx context.Context, key string, opts ...kvstore.GetOption) (kvstore.Item, error) {
	op := recorded{Op: Op{Kind: check.Get, Strict: true}}
	for _, o := range opts {
		if l, ok := o.(kvstore.Consistency); ok {
			op.Strict = intersects(l)
		}
	}
	var it kvstore.Item
	err := n.call(ctx, key, &op, func(ctx context.Context, db *kvstore.DB) (err error) {
		it, err = db.Get(ctx, key, opts...)
		op.read(it)
		if errors.Is(err, kvstore.ErrNotFound) {
			return nil
		}
		return err
	})
	it.Key = key
	if err == nil && !it.Found() {
		err = kvstore.ErrNotFound
	}
	return it, err
}

// Put stores value. The values that are put under one key should differ: Check
// tells writes by their values.
func (n *Node) Put(ctx context.Context, key string, value []byte, opts ...kvstore.PutOption) (kvstore.Version, error) {
	op := recorded{Op: Op{Kind: check.Put, Strict: true, Value: append([]byte(nil), value...)}}
	if n.causal() {
		op.Replaces = &vclock.Version{}
	}
	for _, o := range opts {
		op.option(o)
	}
	var v kvstore.Version
	err := n.call(ctx, key, &op, func(ctx context.Context, db *kvstore.DB) (err error) {
		v, err = db.Put(ctx, key, value, opts...)
		op.saw(v)
		return err
	})
	return v, err
}

// Delete deletes key.
func (n *Node) Delete(ctx context.Context, key string, opts ...kvstore.DeleteOption) error {
	op := recorded{Op: Op{Kind: check.Delete, Strict: true}}
	for _, o := range opts {
		op.option(o)
	}
	if n.causal() && op.Replaces == nil { // it replaces what it reads, and does not tell what that was
		op.Strict, op.vague = false, true
	}
	return n.call(ctx, key, &op, func(ctx context.Context, db *kvstore.DB) error {
		return db.Delete(ctx, key, opts...)
	})
}

// Update lets fn make a new value of the present one. Each value that fn returns
// is taken for a write; only the last may have been acknowledged.
func (n *Node) Update(ctx context.Context, key string, fn func(kvstore.Item) ([]byte, error), opts ...kvstore.PutOption) (kvstore.Item, error) {
	op := recorded{Op: Op{Kind: check.Put, Strict: true, Outcome: check.NotApplied}}
	for _, o := range opts {
		op.option(o)
	}
	var it kvstore.Item
	var attempts []Op
	err := n.call(ctx, key, &op, func(ctx context.Context, db *kvstore.DB) (err error) {
		it, err = db.Update(ctx, key, func(it kvstore.Item) ([]byte, error) {
			value, err := fn(it)
			if err == nil {
				seen := seenBy(it.Version)
				op.Value, op.Replaces = append([]byte(nil), value...), &seen
				attempts = append(attempts, op.Op)
			}
			return value, err
		}, opts...)
		op.saw(it.Version)
		return err
	})
	for _, a := range attempts[:max(len(attempts)-1, 0)] {
		a.Client, a.Node, a.Key, a.Start, a.End = op.Client, op.Node, op.Key, op.Start, op.End
		a.Outcome = check.Unknown
		n.c.file(a)
	}
	return it, err
}

// GetMany reads several keys. Each enters the history as a Get of its own.
func (n *Node) GetMany(ctx context.Context, keys []string, opts ...kvstore.GetOption) ([]kvstore.Item, error) {
	start := n.c.Now()
	var items []kvstore.Item
	op := recorded{Op: Op{Kind: check.Get}}
	err := n.make(ctx, "many", &op, func(ctx context.Context, db *kvstore.DB) (err error) {
		items, err = db.GetMany(ctx, keys, opts...)
		return err
	})
	for i, key := range keys {
		one := op
		one.Key, one.Start, one.Strict, one.Outcome = key, start, true, check.Applied
		for _, o := range opts {
			if l, ok := o.(kvstore.Consistency); ok {
				one.Strict = intersects(l)
			}
		}
		if e := errorOf(err, i); e != nil {
			one.Outcome, one.Err = outcomeOf(e), e.Error()
		} else if items != nil {
			one.read(items[i])
		}
		n.c.file(one.Op)
	}
	return items, err
}

// Apply carries out the writes of b. They do not tell their versions, so Check takes
// one that was acknowledged for one that may have been applied.
func (n *Node) Apply(ctx context.Context, b *kvstore.Batch, opts ...kvstore.BatchOption) error {
	op := recorded{Op: Op{Kind: check.Put}}
	err := n.make(ctx, "many", &op, func(ctx context.Context, db *kvstore.DB) error { return db.Apply(ctx, b, opts...) })
	i := 0
	for key, value := range b.All() {
		one := op
		one.Key, one.Value, one.Outcome, one.Session = key, value, check.Unknown, false
		if value == nil {
			one.Kind = check.Delete
		}
		if e := errorOf(err, i); e != nil {
			one.Outcome, one.Err = outcomeOf(e), e.Error()
		}
		n.c.file(one.Op)
		i++
	}
	return err
}

// Scan reads all keys. It does not enter the history.
func (n *Node) Scan(ctx context.Context, opts ...kvstore.ScanOption) iter.Seq2[kvstore.Item, error] {
	if db := n.DB(); db != nil {
		return db.Scan(ctx, opts...)
	}
	return func(yield func(kvstore.Item, error) bool) { yield(kvstore.Item{}, ErrDown) }
}

var _ kvstore.KV = (*Node)(nil)

// errorOf is the error of the i-th key of a call for many.
func errorOf(err error, i int) error {
	var b *kvstore.BatchError
	if !errors.As(err, &b) {
		return err
	}
	for _, f := range b.Failed {
		if f.Index == i {
			return f.Err
		}
	}
	return nil
}

// outcomeOf is what the history says of an error.
func outcomeOf(err error) check.Outcome {
	return [...]check.Outcome{kvstore.Applied: check.Applied, kvstore.NotApplied: check.NotApplied, kvstore.Unknown: check.Unknown}[kvstore.OutcomeOf(err)]
}

// A recorded is a call on its way into the history.
type recorded struct {
	Op
	vague bool // it does not tell what it replaced
}

// saw notes the version that the call returned.
func (r *recorded) saw(v kvstore.Version) {
	r.Seen = seenBy(v)
	r.Version = r.Seen.Max()
}

// read notes what a Get gave.
func (r *recorded) read(it kvstore.Item) {
	r.Value, r.Found = it.Value, it.Found()
	r.saw(it.Version)
	for _, s := range it.Siblings() {
		r.Siblings = append(r.Siblings, check.Sibling{Dot: seenBy(s.Version).Max(), Value: s.Value})
	}
}

// option notes what an option of a write says.
func (r *recorded) option(o any) {
	if o == any(kvstore.Sloppy) { // reads may not see it
		r.Strict = false
		return
	}
	switch o := o.(type) {
	case kvstore.Consistency:
		r.Strict = intersects(o)
	case interface{ Replaced() kvstore.Version }:
		seen := seenBy(o.Replaced())
		r.Replaces = &seen
	}
}

// causal reports whether all writes through the node are causal.
func (n *Node) causal() bool {
	r := n.conflicts.Load()
	return r != nil && r.String() != kvstore.LastWriterWins.String()
}

// intersects reports whether quorums of this level meet those of the same level.
// Default is taken for a quorum.
func intersects(l kvstore.Consistency) bool {
	return l == kvstore.Default || l == kvstore.Quorum || l == kvstore.All || l == kvstore.EachQuorum
}

// seenBy is what a version has seen.
func seenBy(v kvstore.Version) vclock.Version {
	var seen vclock.Version
	if text, err := v.MarshalText(); err != nil || seen.UnmarshalText(text) != nil {
		return vclock.Version{}
	}
	return seen
}

type clientKey struct{}

// WithClient tells the history who makes the calls with this context.
func WithClient(ctx context.Context, client int) context.Context {
	return context.WithValue(ctx, clientKey{}, client)
}

type sessionKey struct{}

// WithSession is kvstore.WithSession, and lets Check judge that the client's calls
// with this context never go back. A client should have one session.
func WithSession(ctx context.Context) context.Context {
	return context.WithValue(kvstore.WithSession(ctx), sessionKey{}, true)
}

// call makes one call, and files what came of it.
func (n *Node) call(ctx context.Context, key string, op *recorded, do func(context.Context, *kvstore.DB) error) error {
	err := n.make(ctx, key, op, do)
	n.c.file(op.Op)
	return err
}

// make makes one call.
func (n *Node) make(ctx context.Context, key string, op *recorded, do func(context.Context, *kvstore.DB) error) error {
	c := n.c
	op.Client, _ = ctx.Value(clientKey{}).(int)
	op.Session, _ = ctx.Value(sessionKey{}).(bool)
	op.Session = op.Session && !op.vague
	op.Node, op.Key, op.Start = n.Index, key, c.Now()
	time.Sleep(n.thaw())
	n.hop(op, "there")
	err := ErrDown
	if b := n.boot.Load(); b != nil {
		ctx, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(b.crashed, cancel)
		err = do(ctx, b.db)
		if b.dead.Load() {
			err = ErrCrashed
		}
		stop()
		cancel()
	}
	n.hop(op, "back")
	op.End = c.Now()
	op.Outcome = outcomeOf(err)
	c.trace.add(op.End, "call %v", op.Op)
	if err != nil {
		op.Err = err.Error()
	}
	return err
}

// file adds a call to the history.
func (c *Cluster) file(op Op) {
	c.history.Lock()
	c.history.ops = append(c.history.ops, op)
	c.history.Unlock()
}

// hop is the way between client and node.
func (n *Node) hop(op *recorded, way string) {
	h := hashString(n.c.Seed, n.name, op.Key, way, fmt.Sprint(op.Client, op.Kind, n.c.Now()))
	time.Sleep(between(h, time.Microsecond, 100*time.Microsecond))
}
