package memtable

import (
	"bytes"
	"cmp"
	"math/bits"
	"sync/atomic"

	"example.com/kvstore/lsm/internal/base"
)

const (
	// maxHeight bounds the levels of the list: enough for 4^12 nodes.
	maxHeight = 12
	// nodeBytes is about what a node takes.
	nodeBytes = 80
)

// overflow is a skip list of refs in (token, key) order. One writer at a time;
// readers need no lock: a node is linked from the bottom up after it is
// complete, and never removed.
type overflow struct {
	head node
	n    uint64
}

type node struct {
	token uint64
	key   []byte // in a slab
	ref   atomic.Uint64
	next  []atomic.Pointer[node]
}

func newOverflow() *overflow {
	o := &overflow{}
	o.head.next = make([]atomic.Pointer[node], maxHeight)
	return o
}

func (n *node) compare(token uint64, key []byte) int {
	if n.token != token {
		return cmp.Compare(n.token, token)
	}
	return bytes.Compare(n.key, key)
}

// find gives the node of a key, or nil. With before not nil it fills in the
// last node before the key on each level.
func (o *overflow) find(token uint64, key []byte, before *[maxHeight]*node) *node {
	at := &o.head
	var found *node
	for level := maxHeight - 1; level >= 0; level-- {
		for {
			next := at.next[level].Load()
			if next == nil {
				break
			}
			c := next.compare(token, key)
			if c == 0 {
				found = next
			}
			if c >= 0 {
				break
			}
			at = next
		}
		if before != nil {
			before[level] = at
		} else if found != nil {
			break
		}
	}
	return found
}

// set points the key to p.
func (o *overflow) set(token uint64, key []byte, p ref) {
	var before [maxHeight]*node
	if n := o.find(token, key, &before); n != nil {
		n.ref.Store(uint64(p))
		return
	}
	o.n++
	// Every fourth node is one level higher, at a place that does not depend on
	// the keys.
	height := min(1+bits.TrailingZeros64(base.Mix(o.n))/2, maxHeight)
	n := &node{token: token, key: key, next: make([]atomic.Pointer[node], height)}
	n.ref.Store(uint64(p))
	for level := range height {
		n.next[level].Store(before[level].next[level].Load())
		before[level].next[level].Store(n)
	}
}

// all calls f for each ref in order.
func (o *overflow) all(f func(token uint64, key []byte, p ref)) {
	for n := o.head.next[0].Load(); n != nil; n = n.next[0].Load() {
		f(n.token, n.key, ref(n.ref.Load()))
	}
}
