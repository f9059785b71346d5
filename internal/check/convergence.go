package check

import (
	"fmt"
	"slices"

	"example.com/kvstore/vclock"
)

// A Holding is what one node has of a key on its own disk.
type Holding struct {
	Dot       vclock.Dot // the highest in it
	Tombstone bool       // plain, so that it may be forgotten
	Bytes     string     // all of it: equal if, and only if, the records are
}

// Remains are what a node has when all faults are over and time has passed.
type Remains struct {
	Node string
	Held map[string]Holding // by key
	// Hints are kept for other nodes, and so are Marks of partitions that they
	// should compare.
	Hints, Marks int
}

// Settled says how much time has passed since the last fault.
type Settled uint8

const (
	// Exchanged: the owners have had the time to compare what they have.
	Exchanged Settled = iota
	// Purged: two rounds have been taken, and what may be purged was.
	Purged
)

// Convergence is K5: all owners of a key have the same of it (I3), nobody else has
// anything, no hint is left. A tombstone may be forgotten by one owner before
// another, and is gone once the nodes are Purged.
func Convergence(nodes []Remains, owners func(key string) []string, after Settled) []Violation {
	var violations []Violation
	broken := func(key, format string, args ...any) {
		violations = append(violations, Violation{"K5", Op{Key: key}, fmt.Sprintf(format, args...)})
	}
	var keys []string
	for _, n := range nodes {
		if n.Hints > 0 || n.Marks > 0 {
			broken("", "node %s keeps %d hints and %d marks", n.Node, n.Hints, n.Marks)
		}
		for key := range n.Held {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		own := owners(key)
		var first *Remains
		for i := range nodes {
			n := &nodes[i]
			h, holds := n.Held[key]
			switch {
			case !slices.Contains(own, n.Node):
				if holds {
					broken(key, "node %s has it and is no owner: %s", n.Node, h.Bytes)
				}
				continue
			case holds && h.Tombstone && after == Purged:
				broken(key, "node %s has a tombstone still, %v", n.Node, h.Dot)
			}
			if first == nil {
				first = n
			} else if a := first.Held[key]; a.visible() != h.visible() {
				broken(key, "node %s has %q, and node %s %q", first.Node, a.Bytes, n.Node, h.Bytes)
			}
		}
	}
	return violations
}

// visible is what all owners must have alike.
func (h Holding) visible() string {
	if h.Tombstone {
		return ""
	}
	return h.Bytes
}
