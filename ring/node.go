package ring

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Limits. New, Rebalance and Decode refuse what lies beyond them.
const (
	MaxPartitions = 1 << 16
	MaxReplicas   = 16
	MaxNodes      = 4096
	MaxNameBytes  = 255 // of an id, a zone, a data centre
	MinWeight     = 0.001
	MaxWeight     = 1000
)

// A Node is a member as placement sees it.
type Node struct {
	ID         string  // unique in a ring
	Zone       string  // replicas prefer distinct zones; a zone belongs to its data centre
	DataCenter string  // and then distinct data centres
	Weight     float64 // share of the data relative to the other nodes; 0 owns nothing
}

// sortNodes returns a sorted, checked copy of nodes.
func sortNodes(nodes []Node) ([]Node, error) {
	s := slices.Clone(nodes)
	slices.SortFunc(s, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	return s, checkNodes(s)
}

// checkNodes validates nodes sorted by id.
func checkNodes(nodes []Node) error {
	if len(nodes) > MaxNodes {
		return fmt.Errorf("ring: %d nodes, at most %d are supported", len(nodes), MaxNodes)
	}
	for i, n := range nodes {
		switch {
		case n.ID == "":
			return fmt.Errorf("ring: a node has no id, give each node one")
		case max(len(n.ID), len(n.Zone), len(n.DataCenter)) > MaxNameBytes:
			return fmt.Errorf("ring: node %.32q has a name longer than %d bytes, shorten it", n.ID, MaxNameBytes)
		case math.IsNaN(n.Weight) || n.Weight != 0 && (n.Weight < MinWeight || n.Weight > MaxWeight):
			return fmt.Errorf("ring: node %q has weight %v, use 0 or a value from %v to %v", n.ID, n.Weight, MinWeight, float64(MaxWeight))
		case i > 0 && nodes[i-1].ID >= n.ID:
			return fmt.Errorf("ring: node id %q is used twice, ids must be unique", n.ID)
		}
	}
	if holders(nodes) == 0 {
		return fmt.Errorf("ring: no node has a weight above 0, at least one must hold data")
	}
	return nil
}

// holders counts the nodes that can own partitions.
func holders(nodes []Node) int {
	h := 0
	for _, n := range nodes {
		if n.Weight > 0 {
			h++
		}
	}
	return h
}
