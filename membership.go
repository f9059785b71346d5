package kvstore

import (
	"context"
	"fmt"
	"strings"
	"time"

	"example.com/kvstore/gossip"
	"example.com/kvstore/ring"
)

// A Status is the cluster as one node sees it.
type Status struct {
	// NodeID is the node that answers, a member of Cluster.
	NodeID, Cluster string
	// Ready reports whether the node coordinates requests.
	Ready bool
	// Epoch is the newest one the node knows; 0 before it joined.
	Epoch uint64
	// N is the wanted number of replicas of each key; fewer nodes hold fewer.
	N int
	// Members are sorted by ID.
	Members []MemberStatus
}

// A MemberStatus is one member as another node sees it.
type MemberStatus struct {
	ID, Addr, Zone, DataCenter string
	// State is "alive", "suspect", "dead", or "unknown" before any news. It is what gossip
	// says: of a member that was closed or lost just now it still is "alive", some 10 s
	// long, while calls go by the connection and do without it at once.
	State string
	// HeartbeatAge is how long ago news of its life came; 0 for the node itself, and
	// before any news.
	HeartbeatAge time.Duration
	// Incarnation counts the member's starts and refutations.
	Incarnation uint64
	// Partitions is the number of partitions of which it is an owner, of which
	// it is the first owner of Primary.
	Partitions, Primary int
	Weight              float64
	Self                bool
	// Kept is what the answering node keeps for this member until it is back.
	Kept HintStatus
}

// unknown is the state of a member of which there is no news yet.
const unknown = "unknown"

// Status gives the cluster as this node sees it.
func (db *DB) Status(ctx context.Context) (Status, error) {
	if ctx == nil {
		return Status{}, errNoContext
	}
	if err := ctx.Err(); err != nil {
		return Status{}, err
	}
	if db.closing.Load() {
		return Status{}, ErrClosed
	}
	s := Status{NodeID: db.id, Cluster: db.opts.Cluster, Ready: db.ready.Load()}
	v := db.view.Load()
	if v == nil {
		return s, nil
	}
	s.Epoch, s.N = v.epoch.Number, v.ring.N()
	states := map[string]gossip.Member{}
	if p := db.members.states.Load(); p != nil {
		for _, g := range *p {
			states[g.ID] = g
		}
	}
	partitions, primary := make([]int, len(v.nodes)), make([]int, len(v.nodes))
	for p := range v.ring.Partitions() {
		for i, o := range v.ring.Owners(p) {
			partitions[o]++
			if i == 0 {
				primary[o]++
			}
		}
	}
	kept := *db.hints.pending.Load()
	for i, n := range v.ring.Nodes() {
		m := MemberStatus{ID: n.ID, Addr: v.nodes[i].addr, Zone: n.Zone, DataCenter: n.DataCenter, Weight: n.Weight,
			State: unknown, Partitions: partitions[i], Primary: primary[i], Self: n.ID == db.id, Kept: kept[v.nodes[i].uid]}
		if g, ok := states[n.ID]; ok {
			m.State, m.Incarnation = g.State.String(), g.Incarnation
			m.HeartbeatAge = max(now().Sub(g.Seen), 0)
		}
		if m.Self {
			m.State, m.HeartbeatAge = gossip.Alive.String(), 0
		}
		s.Members = append(s.Members, m)
	}
	return s, nil
}

// String is a table.
func (s Status) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster %s, epoch %d, %d replicas, seen by %s\n", s.Cluster, s.Epoch, s.N, s.NodeID)
	fmt.Fprintf(&b, "%-20s %-22s %-8s %10s %10s %8s\n", "node", "address", "state", "heartbeat", "partitions", "hints")
	for _, m := range s.Members {
		age := m.HeartbeatAge.Round(time.Millisecond).String()
		if m.State == unknown {
			age = "never"
		}
		fmt.Fprintf(&b, "%-20s %-22s %-8s %10s %10d %8d\n", m.ID, m.Addr, m.State, age, m.Partitions, m.Kept.Hints)
	}
	return b.String()
}

// Ring returns the placement of the newest epoch known; nil before the node has
// joined.
func (db *DB) Ring() *ring.Ring {
	if v := db.view.Load(); v != nil {
		return v.ring
	}
	return nil
}
