package ring

import (
	"fmt"
	"math"
	"slices"
)

// A Report says what a Rebalance changed.
type Report struct {
	Moves []Move   // replicas that change place, by partition
	Unmet []string // wishes that the nodes cannot meet, one sentence each
}

// A Move is one replica of a partition that goes from one node to another. From is
// empty for an additional replica, To for one that is given up.
type Move struct {
	Partition int
	From, To  string
}

// Rebalance places the partitions of old on nodes, with the fewest possible moves:
// every node ends up with its share of the replicas, give or take one, and each
// partition is spread over zones and data centres as evenly as they allow. When a
// node joins, replicas move to it only, as long as that suffices: it does unless there are
// more zones than replicas, where a few may have to change places between old nodes.
//
// The share is in proportion to the weight, as far as the spread allows: a node never
// holds a partition twice, and a zone never more of a partition than its due, even if
// its nodes then hold less than their weight asks for. Report.Unmet names such nodes.
//
// The result is a function of old and the set of nodes. Its epoch is one higher.
func Rebalance(old *Ring, nodes []Node) (*Ring, Report, error) {
	nodes, err := sortNodes(nodes)
	if err != nil {
		return nil, Report{}, err
	}
	if old.epoch == math.MaxUint64 {
		return nil, Report{}, fmt.Errorf("ring: no epoch follows %d", old.epoch)
	}
	r := newRing(old.epoch+1, len(old.changed), old.n, nodes)
	l := newLayout(r, old)
	l.balance()
	r.owners = l.own
	l.keepOrder()
	r.evenFirsts()
	report := Report{Unmet: l.unmet(old.n)}
	for p := range r.changed {
		moves := diff(old, r, p)
		report.Moves = append(report.Moves, moves...)
		r.changed[p] = old.changed[p]
		if len(moves) > 0 {
			r.changed[p] = r.epoch
		}
	}
	return r, report, nil
}

// Renewed returns the ring of the next epoch with the same placement, in which the nodes
// with these ids are others than before: all that they own has changed. Unknown ids are
// ignored.
func (r *Ring) Renewed(ids ...string) (*Ring, error) {
	if r.epoch == math.MaxUint64 {
		return nil, fmt.Errorf("ring: no epoch follows %d", r.epoch)
	}
	next := *r
	next.epoch++
	next.changed = slices.Clone(r.changed)
	for p := range next.changed {
		if slices.ContainsFunc(r.Owners(p), func(x int32) bool { return slices.Contains(ids, r.nodes[x].ID) }) {
			next.changed[p] = next.epoch
		}
	}
	return &next, nil
}

// keepOrder puts the owners that stay where they were in their row, so that first
// owners change as little as balance permits.
func (l *layout) keepOrder() {
	for p := range l.q {
		row, old := l.row(p), l.old(p)
		for i := range min(len(row), len(old)) {
			if j := slices.Index(row, old[i]); j >= 0 {
				row[i], row[j] = row[j], row[i]
			}
		}
	}
}

// diff pairs the owners that p lost with those it gained.
func diff(old, r *Ring, p int) []Move {
	has := func(r *Ring, p int, id string) bool {
		return slices.ContainsFunc(r.Owners(p), func(x int32) bool { return r.nodes[x].ID == id })
	}
	var moves []Move
	for _, x := range old.Owners(p) {
		if id := old.nodes[x].ID; !has(r, p, id) {
			moves = append(moves, Move{Partition: p, From: id})
		}
	}
	gained := 0
	for _, x := range r.Owners(p) {
		id := r.nodes[x].ID
		if has(old, p, id) {
			continue
		}
		if gained == len(moves) {
			moves = append(moves, Move{Partition: p})
		}
		moves[gained].To = id
		gained++
	}
	return moves
}

// unmet lists what the nodes do not permit.
func (l *layout) unmet(n int) []string {
	var s []string
	if l.r < n {
		s = append(s, fmt.Sprintf("%d replicas are wanted, only %d nodes hold data", n, l.r))
	}
	for what, hi := range map[string][]int{"zones": l.domains.zoneHi, "data centres": l.domains.dcHi} {
		if len(hi) > 1 && slices.Max(hi) > 1 {
			s = append(s, fmt.Sprintf("%d replicas do not fit into distinct %s: some hold %d", l.r, what, slices.Max(hi)))
		}
	}
	slices.Sort(s)
	weights := 0.0
	for _, n := range l.nodes {
		weights += n.Weight
	}
	for i, n := range l.nodes {
		if asked := float64(n.Weight / weights * float64(l.q*l.r)); math.Abs(asked-l.share[i]) > 1 {
			s = append(s, fmt.Sprintf("node %s: its weight asks for %.0f replicas, the spread allows %.0f", n.ID, asked, l.share[i]))
		}
	}
	return s
}
