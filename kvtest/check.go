package kvtest

import (
	"context"
	"slices"
	"time"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
)

// An Op is one call of a Node as its caller saw it; a Violation is one that
// contradicts the promises.
type (
	Op        = check.Op
	Violation = check.Violation
)

// maxReported bounds the violations that Check prints.
const maxReported = 10

// History gives the calls that have ended so far.
func (c *Cluster) History() []Op {
	c.history.Lock()
	defer c.history.Unlock()
	return slices.Clone(c.history.ops)
}

// Check reads every key that the calls so far named, at All and from one node
// after the other, and fails the test when the history contradicts what kvstore
// promises: an acknowledged write is lost, a read or write went back in time, a
// value was never written, a write that was not applied was seen.
//
// All calls must have ended, all nodes run, and the faults be healed.
func (c *Cluster) Check() {
	c.T.Helper()
	violations := c.Violations()
	for _, v := range violations[:min(len(violations), maxReported)] {
		c.T.Errorf("%v", v)
	}
	if more := len(violations) - maxReported; more > 0 {
		c.T.Errorf("and %d more violations", more)
	}
}

// Violations gives what Check would report.
func (c *Cluster) Violations() []Violation {
	c.T.Helper()
	c.Settle()
	history := c.History()
	var keys []string
	for _, o := range history {
		keys = append(keys, o.Key)
	}
	slices.Sort(keys)
	runs := slices.DeleteFunc(slices.Clone(c.nodes), func(n *Node) bool { return !n.Runs() })
	for i, key := range slices.Compact(keys) {
		c.readAtAll(runs[i%len(runs)], key)
	}
	return check.All(history, c.History()[len(history):])
}

// readAtAll reads until all owners have answered.
func (c *Cluster) readAtAll(n *Node, key string) {
	for deadline := c.Now() + settleWithin; c.Now() < deadline; {
		_, err := n.Get(context.Background(), key, kvstore.All)
		if err == nil || !kvstore.Retryable(err) {
			return
		}
		time.Sleep(settleEvery)
	}
}
