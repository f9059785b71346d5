package kvtest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/vclock"
)

// Get, Put and Delete are those of the node's DB, from a client nearby: a call
// takes a moment to reach the node, and its answer one to come back. Calls enter
// the trace and the history that Check judges.

// Get reads key.
func (n *Node) Get(ctx context.Context, key string, opts ...kvstore.GetOption) (kvstore.Item, error) {
	op := Op{Kind: check.Get, Strict: true}
	for _, o := range opts {
		if l, ok := o.(kvstore.Consistency); ok {
			op.Strict = intersects(l)
		}
	}
	var it kvstore.Item
	err := n.call(ctx, key, &op, func(ctx context.Context, db *kvstore.DB) (err error) {
		it, err = db.Get(ctx, key, opts...)
		op.Value, op.Found = it.Value, it.Found()
		if errors.Is(err, kvstore.ErrNotFound) {
			op.Version = dotOf(it.Version)
			return nil
		}
		op.Version = dotOf(it.Version)
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
	op := Op{Kind: check.Put, Strict: true, Value: append([]byte(nil), value...)}
	for _, o := range opts {
		if l, ok := o.(kvstore.Consistency); ok {
			op.Strict = intersects(l)
		}
	}
	var v kvstore.Version
	err := n.call(ctx, key, &op, func(ctx context.Context, db *kvstore.DB) (err error) {
		v, err = db.Put(ctx, key, value, opts...)
		op.Version = dotOf(v)
		return err
	})
	return v, err
}

// Delete deletes key.
func (n *Node) Delete(ctx context.Context, key string, opts ...kvstore.DeleteOption) error {
	op := Op{Kind: check.Delete, Strict: true}
	for _, o := range opts {
		if l, ok := o.(kvstore.Consistency); ok {
			op.Strict = intersects(l)
		}
	}
	return n.call(ctx, key, &op, func(ctx context.Context, db *kvstore.DB) error {
		return db.Delete(ctx, key, opts...)
	})
}

// intersects reports whether quorums of this level meet those of the same level.
// Default is taken for a quorum.
func intersects(l kvstore.Consistency) bool {
	return l == kvstore.Default || l == kvstore.Quorum || l == kvstore.All
}

// dotOf is the dot of a version that one plain write made, or zero.
func dotOf(v kvstore.Version) vclock.Dot {
	text, err := v.MarshalText()
	if err != nil {
		return vclock.Dot{}
	}
	var seen vclock.Version
	if seen.UnmarshalText(text) != nil {
		return vclock.Dot{}
	}
	return seen.Past.Floor
}

type clientKey struct{}

// WithClient tells the history who makes the calls with this context.
func WithClient(ctx context.Context, client int) context.Context {
	return context.WithValue(ctx, clientKey{}, client)
}

// call makes one call, and files what came of it.
func (n *Node) call(ctx context.Context, key string, op *Op, do func(context.Context, *kvstore.DB) error) error {
	c := n.c
	op.Client, _ = ctx.Value(clientKey{}).(int)
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
	switch kvstore.OutcomeOf(err) {
	case kvstore.NotApplied:
		op.Outcome = check.NotApplied
	case kvstore.Unknown:
		op.Outcome = check.Unknown
	}
	c.trace.add(op.End, "call %v", op)
	if err != nil {
		op.Err = err.Error()
	}
	c.history.Lock()
	c.history.ops = append(c.history.ops, *op)
	c.history.Unlock()
	return err
}

// hop is the way between client and node.
func (n *Node) hop(op *Op, way string) {
	h := hashString(n.c.Seed, n.name, op.Key, way, fmt.Sprint(op.Client, op.Kind, n.c.Now()))
	time.Sleep(between(h, time.Microsecond, 100*time.Microsecond))
}
