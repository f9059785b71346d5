package kvstore

import (
	"cmp"
	"context"
	"slices"
	"time"

	"example.com/kvstore/replica"
	"example.com/kvstore/ring"
	"example.com/kvstore/topology"
	"example.com/kvstore/transport"
)

// peer is a node's connection, as the data path uses it.
type peer = transport.Peer

// A view is what the data path knows of the cluster: one epoch, and for each
// of its nodes how to reach it. Views are immutable; a newer one replaces the
// whole.
type view struct {
	epoch *topology.Epoch
	ring  *ring.Ring
	nodes []viewNode // by index in ring.Nodes
	// heirs are the members, by UID, that took the places of earlier ones.
	heirs map[uint64]uint64
	// replaced is closed when a newer view took this one's place.
	replaced chan struct{}
}

// A viewNode is one member of the epoch.
type viewNode struct {
	id   string
	uid  uint64
	addr string
	peer *peer // nil for this node
	dead bool  // the failure detector's word
	near bool  // in the same data centre as this node
	// centre is its data centre.
	centre string
}

// self is the index of this node in the ring, or -1.
func (v *view) self() int32 {
	for i := range v.nodes {
		if v.nodes[i].peer == nil {
			return int32(i)
		}
	}
	return -1
}

// heir is the UID of the member that has the place of the one with that UID: itself, or
// who followed it.
func (v *view) heir(uid uint64) uint64 {
	if heir, ok := v.heirs[uid]; ok {
		return heir
	}
	return uid
}

// members reports whether all these are UIDs of members.
func (v *view) members(uids []uint64) bool {
	return !slices.ContainsFunc(uids, func(uid uint64) bool {
		return !slices.ContainsFunc(v.nodes, func(n viewNode) bool { return n.uid == uid })
	})
}

// owns reports whether this node owns partition p.
func (v *view) owns(p int) bool {
	for _, i := range v.ring.Owners(p) {
		if v.nodes[i].peer == nil {
			return true
		}
	}
	return false
}

// targets appends the owners of partition p in the order in which a read should
// ask them: this node, then the live ones in preference order, those in the same
// data centre first, then the rest.
// It counts the live ones.
func (v *view) targets(dst []target, p int) ([]target, int) {
	start := len(dst)
	alive := 0
	for _, i := range v.ring.Owners(p) {
		n := &v.nodes[i]
		t := target{id: n.id, uid: n.uid, peer: n.peer, near: n.near, centre: n.centre, dead: n.peer != nil && (n.dead || !n.peer.Up())}
		dst = append(dst, t)
		// Insertion keeps the order within each class.
		for j := len(dst) - 1; j > start && dst[j].rank() < dst[j-1].rank(); j-- {
			dst[j], dst[j-1] = dst[j-1], dst[j]
		}
		if !t.dead {
			alive++
		}
	}
	return dst, alive
}

// enough appends the owners of a key that a call at the level asks, and says how
// many of them must answer. It fails when too few of them are alive. It fills in
// the numbers of qe. A read at a level of this data centre asks nobody else; a
// write goes to all owners.
func (v *view) enough(key string, level Consistency, qe *QuorumError, dst []target) ([]target, replica.Need, error) {
	return v.enoughAt(v.ring.Partition(ring.Token(key)), level, qe, dst)
}

// enoughAt is enough for the keys of partition p.
func (v *view) enoughAt(p int, level Consistency, qe *QuorumError, dst []target) ([]target, replica.Need, error) {
	targets, _ := v.targets(dst, p)
	need, err := level.need(targets)
	if qe.sloppy {
		v.standIn(p, level, targets)
	}
	if err == nil && level.local() && qe.reads() {
		targets = slices.DeleteFunc(targets, func(t target) bool { return !t.near })
		need = replica.Need{Count: need.Total()}
	}
	var dead uint64
	qe.Required, qe.Alive = need.Total(), 0
	for i := range targets {
		if targets[i].dead && targets[i].standIn == nil {
			dead |= 1 << i
		} else {
			qe.Alive++
		}
	}
	if err == nil && !need.Possible(dead, len(targets)) {
		qe.Replicas, err = deadTargets(targets), ErrUnavailable
	}
	if err != nil {
		return nil, need, qe.fail(err)
	}
	return targets, need, nil
}

// standIn finds, for each owner that is down, another live member to keep a counted hint
// for it: the next one of the preference list, this node after them, in the owner's data
// centre where the level counts by data centre. Each stands in for one owner, so that
// there are as many copies as the level counts.
func (v *view) standIn(p int, level Consistency, targets []target) {
	if !slices.ContainsFunc(targets, func(t target) bool { return t.dead }) {
		return
	}
	owners := v.ring.Owners(p)
	free := v.ring.AppendPreference(nil, p)[len(owners):]
	if self := v.self(); self >= 0 && !slices.Contains(owners, self) && !slices.Contains(free, self) {
		free = append(free, self)
	}
	grouped := level.local() || level == EachQuorum
	for i := range targets {
		t := &targets[i]
		if !t.dead {
			continue
		}
		n := slices.IndexFunc(free, func(i int32) bool {
			n := &v.nodes[i]
			return (n.peer == nil || !n.dead && n.peer.Up()) && (!grouped || n.centre == t.centre)
		})
		if n >= 0 {
			t.standIn = &v.nodes[free[n]]
			free = slices.Delete(free, n, n+1)
		}
	}
}

// checkSloppy refuses a sloppy write where no hint may count.
func (v *view) checkSloppy(sloppy bool) error {
	if sloppy && !v.epoch.Sloppy {
		return invalid("Sloppy, but the cluster was formed without Options.SloppyQuorum")
	}
	return nil
}

// firstOwnersFirst orders the targets of partition p as every node does: the live
// owners as the ring has them, then the others.
func (v *view) firstOwnersFirst(targets []target, p int) {
	place := func(t *target) int {
		if t.dead {
			return len(targets)
		}
		return slices.IndexFunc(v.ring.Owners(p), func(i int32) bool { return v.nodes[i].id == t.id })
	}
	slices.SortStableFunc(targets, func(a, b target) int { return cmp.Compare(place(&a), place(&b)) })
}

// rank orders targets: this node, live ones near and far, dead ones.
func (t *target) rank() int {
	switch {
	case t.peer == nil:
		return 0
	case t.dead:
		return 3
	case t.near:
		return 1
	}
	return 2
}

// serving returns the current view, or the reason why this node does not
// coordinate requests now.
func (db *DB) serving() (*view, error) {
	if v := db.view.Load(); v != nil && db.ready.Load() {
		return v, nil
	}
	return nil, db.notReady()
}

// awaitEpoch waits until this node knows epoch n.
func (db *DB) awaitEpoch(ctx context.Context, n uint64, deadline time.Time) error {
	timeout := time.NewTimer(deadline.Sub(now()))
	defer timeout.Stop()
	for {
		v := db.view.Load()
		if v != nil && v.epoch.Number >= n {
			return nil
		}
		var replaced <-chan struct{}
		if v != nil {
			replaced = v.replaced
		}
		select {
		case <-replaced:
		case <-ctx.Done():
			return contextError(ctx)
		case <-timeout.C:
			return ErrTimeout
		case <-db.stop:
			return ErrClosed
		}
	}
}

// partitionsWhere are the partitions for which a condition holds, ascending.
func (v *view) partitionsWhere(holds func(p int) bool) (partitions []uint32) {
	for p := range v.ring.Partitions() {
		if holds(p) {
			partitions = append(partitions, uint32(p))
		}
	}
	return partitions
}
