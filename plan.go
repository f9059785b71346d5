package kvstore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"example.com/kvstore/ring"
)

// A Change is what becomes of a cluster's members. So far it can be planned only:
// members do not change after the first write.
type Change struct {
	// Add are new members.
	Add []ring.Node
	// Remove names members that go.
	Remove []string
	// Weights are new ones, by member.
	Weights map[string]float64
}

// A Plan tells what a Change would do.
type Plan struct {
	// Epoch is the one that the plan starts from.
	Epoch uint64
	// Moves are replicas that change place: an empty From is an additional one, an empty
	// To one that is given up.
	Moves []ring.Move
	// Bytes is what would be moved, as far as this node can tell: by the size of its own
	// partitions. It is 0 at a node that owns none.
	Bytes int64
	// Members are those before and after, by ID.
	Members []PlannedMember
	// AtRisk says in sentences what the change endangers, and which wishes the members
	// then cannot meet.
	AtRisk []string
}

// A PlannedMember is what one member owns before and after a change.
type PlannedMember struct {
	ID            string
	Before, After int // partitions
	Dead          bool
}

// Plan tells what a change of the members would move, and changes nothing. A change
// that makes no sense is ErrInvalid.
func (db *DB) Plan(ctx context.Context, change Change) (Plan, error) {
	if err := db.enter(ctx); err != nil {
		return Plan{}, err
	}
	defer db.gate.leave()
	if ctx.Err() != nil {
		return Plan{}, contextError(ctx)
	}
	v := db.view.Load()
	if v == nil {
		return Plan{}, db.notReady()
	}
	nodes, err := change.apply(v.ring.Nodes())
	if err != nil {
		return Plan{}, err
	}
	after, report, err := ring.Rebalance(v.ring, nodes)
	if err != nil {
		return Plan{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	p := Plan{Epoch: v.epoch.Number, Moves: report.Moves, Members: v.planned(after), AtRisk: report.Unmet}
	for _, m := range p.Moves {
		if m.To != "" {
			p.Bytes += db.partitionBytes(v)
		}
	}
	p.AtRisk = append(p.AtRisk, v.risks(after, change.Remove)...)
	return p, nil
}

// apply gives the nodes after the change.
func (c *Change) apply(before []ring.Node) ([]ring.Node, error) {
	nodes := slices.Clone(before)
	find := func(id string) int { return slices.IndexFunc(nodes, func(n ring.Node) bool { return n.ID == id }) }
	for _, id := range c.Remove {
		i := find(id)
		if i < 0 {
			return nil, invalid("Change.Remove names %q, which is no member, or twice", id)
		}
		nodes = slices.Delete(nodes, i, i+1)
	}
	for id, weight := range c.Weights {
		i := find(id)
		if i < 0 {
			return nil, invalid("Change.Weights names %q, which is no member that stays", id)
		}
		nodes[i].Weight = weight
	}
	for _, n := range c.Add {
		if slices.ContainsFunc(before, func(b ring.Node) bool { return b.ID == n.ID }) || find(n.ID) >= 0 {
			return nil, invalid("Change.Add names %q, which is a member, or twice", n.ID)
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// partitionBytes is the mean size of this node's partitions, compressed as they are.
func (db *DB) partitionBytes(v *view) int64 {
	owned := len(v.partitionsWhere(v.owns))
	if owned == 0 {
		return 0
	}
	m := db.tree.Metrics()
	return (int64(m.TableBytes) + m.MemtableBytes) / int64(owned)
}

// planned counts what each member owns before and after.
func (v *view) planned(after *ring.Ring) []PlannedMember {
	all := map[string]*PlannedMember{}
	count := func(r *ring.Ring, note func(*PlannedMember)) {
		for _, n := range r.Nodes() {
			if all[n.ID] == nil {
				all[n.ID] = &PlannedMember{ID: n.ID}
			}
		}
		for p := range r.Partitions() {
			for _, i := range r.Owners(p) {
				note(all[r.Nodes()[i].ID])
			}
		}
	}
	count(v.ring, func(m *PlannedMember) { m.Before++ })
	count(after, func(m *PlannedMember) { m.After++ })
	var members []PlannedMember
	for _, m := range all {
		m.Dead = slices.ContainsFunc(v.nodes, func(n viewNode) bool { return n.id == m.ID && n.dead })
		members = append(members, *m)
	}
	slices.SortFunc(members, func(a, b PlannedMember) int { return strings.Compare(a.ID, b.ID) })
	return members
}

// risks says of how many partitions too few owners are alive, or stay, for the change to
// lose nothing.
func (v *view) risks(after *ring.Ring, removed []string) (sentences []string) {
	lost, minority, fewer := 0, 0, 0
	for p := range v.ring.Partitions() {
		owners := v.ring.Owners(p)
		alive, stays := 0, 0
		for _, i := range owners {
			n := &v.nodes[i]
			if !n.dead {
				alive++
				if !slices.Contains(removed, n.id) {
					stays++
				}
			}
		}
		switch {
		case alive == 0:
			lost++
		case stays < len(owners)/2+1:
			minority++
		}
		if len(after.Owners(p)) < len(owners) {
			fewer++
		}
	}
	for _, r := range []struct {
		partitions int
		text       string
	}{
		{lost, "have no live owner: the change would lose them"},
		{minority, "keep less than a majority of their owners: remove one at a time, and let the others copy before the next"},
		{fewer, "would have fewer replicas than now"},
	} {
		if r.partitions > 0 {
			sentences = append(sentences, fmt.Sprintf("%d partitions %s", r.partitions, r.text))
		}
	}
	return sentences
}

// String is a table.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "from epoch %d: %d replicas move, about %d bytes\n", p.Epoch, len(p.Moves), p.Bytes)
	for _, m := range p.Members {
		fmt.Fprintf(&b, "  %-20s %6d partitions, then %6d", m.ID, m.Before, m.After)
		if m.Dead {
			b.WriteString(", dead")
		}
		b.WriteByte('\n')
	}
	for _, s := range p.AtRisk {
		fmt.Fprintf(&b, "  at risk: %s\n", s)
	}
	return b.String()
}
