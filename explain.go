package kvstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
	"example.com/kvstore/transport"
	"example.com/kvstore/vclock"
)

// An Explanation tells where a key lives, what each of its replicas holds, and what
// other members keep for them.
type Explanation struct {
	Key       string
	Token     uint64
	Partition int
	// Epoch is the one in which these nodes own the key.
	Epoch uint64
	// Replicas are the owners, the first owner first.
	Replicas []ReplicaState
	// Fallbacks are the nodes that keep hints for owners that are away, in the order
	// in which they are asked.
	Fallbacks []string
	// Promised and Horizon are the highest of all owners that told theirs: some owner
	// takes nothing new stamped at or before Promised, and may have forgotten deletes at
	// or before Horizon. Zero: none yet.
	Promised, Horizon time.Time
	// Silent are the members that did not say what they keep, and why.
	Silent []ReplicaError
}

// A ReplicaState is what one owner answered, and what members keep for it.
type ReplicaState struct {
	Node string
	// State is "value", "siblings", "tombstone", "expired", "absent", "damaged", or
	// "no answer".
	State string
	// Version is what the replica holds; zero where it holds nothing.
	Version Version
	// Promised and Horizon are this owner's; zero: none yet, or it did not say.
	Promised, Horizon time.Time
	// Hints are the members that keep a write of the key for this owner.
	Hints []string
	// Marks are the members that had no room for hints of the key's partition, so that
	// this owner has to exchange it; the owner itself until it has done so.
	Marks []string
	// Err is why there is no answer.
	Err error
}

// Explain asks every owner of the key for its copy, and every member what it keeps for
// them, with one message each and all at once. It repairs nothing. Who does not answer
// is part of the answer.
func (db *DB) Explain(ctx context.Context, key string) (Explanation, error) {
	if err := db.checkKey(key); err != nil {
		return Explanation{}, err
	}
	if err := db.enter(ctx); err != nil {
		return Explanation{}, err
	}
	defer db.gate.leave()
	deadline, err := db.deadline(ctx)
	if err != nil {
		return Explanation{}, err
	}
	v, err := db.serving()
	if err != nil {
		return Explanation{}, err
	}
	token := lsm.Token(bytesOf(key))
	p := v.ring.Partition(token)
	e := Explanation{Key: key, Token: token, Partition: p, Epoch: v.epoch.Number}
	list := v.ring.AppendPreference(nil, p)
	owners := list[:len(v.ring.Owners(p))]
	for _, i := range list[len(owners):] {
		e.Fallbacks = append(e.Fallbacks, v.nodes[i].id)
	}
	trips, begun := db.askWhatIsKept(v, key, deadline), now()
	e.Replicas = make([]ReplicaState, len(owners))
	var asked sync.WaitGroup
	for n, i := range owners {
		asked.Go(func() { e.Replicas[n] = db.explainReplica(ctx, v, key, &v.nodes[i], deadline) })
	}
	asked.Wait()
	for i, trip := range trips {
		node := &v.nodes[i]
		kept, err := trip.whatIsKept(ctx)
		if err != nil {
			e.Silent = append(e.Silent, ReplicaError{Node: node.id, Err: err, Took: now().Sub(begun)})
			continue
		}
		e.take(v, owners, node, &kept)
	}
	return e, nil
}

// askWhatIsKept asks each member of v, in their order, and does not wait.
func (db *DB) askWhatIsKept(v *view, key string, deadline time.Time) []*roundTrip {
	trips := make([]*roundTrip, len(v.nodes))
	q := replica.Request{Epoch: v.epoch.Number, Stamp: db.clock.Now(), Key: bytesOf(key)}
	for i := range v.nodes {
		n, trip := &v.nodes[i], newRoundTrip()
		trips[i] = trip
		err := errDown
		switch q.To = n.uid; {
		case n.peer == nil:
			if err = nil; !db.workers.run(func() { trip.Complete(0, db.explainOwn(v, []byte(key)), nil) }) {
				err = ErrOverloaded
			}
		case !n.dead && n.peer.Up():
			if err = n.peer.Call(replica.OpExplain, deadline, q.AppendRead(nil), nil, trip, 0); err != nil {
				err = sendError(err)
			}
		}
		if err != nil {
			trip.fail(err)
		}
	}
	return trips
}

// whatIsKept waits for the answer.
func (r *roundTrip) whatIsKept(ctx context.Context) (replica.ExplainReply, error) {
	select {
	case <-r.done:
	case <-ctx.Done():
		return replica.ExplainReply{}, contextError(ctx)
	}
	var remote *transport.RemoteError
	if errors.As(r.err, &remote) && replica.Status(remote.Code) == replica.Invalid {
		return replica.ExplainReply{}, errOlder
	}
	if r.err != nil {
		return replica.ExplainReply{}, callError(r.err)
	}
	p, err := replica.DecodeExplainReply(r.body)
	if err == nil && p.Status != replica.OK {
		err = statusError(p.Status)
	}
	return p, err
}

// take takes in what a member told.
func (e *Explanation) take(v *view, owners []int32, from *viewNode, p *replica.ExplainReply) {
	for n, i := range owners {
		r := &e.Replicas[n]
		if p.Owner && v.nodes[i].uid == from.uid {
			r.Promised, r.Horizon = stampTime(p.Promised), stampTime(p.Recorded)
			e.Promised, e.Horizon = latest(e.Promised, r.Promised), latest(e.Horizon, r.Horizon)
		}
		for _, m := range p.Missed {
			if m.Owner != v.nodes[i].uid {
				continue
			}
			if m.Hint {
				r.Hints = append(r.Hints, from.id)
			}
			if m.Mark {
				r.Marks = append(r.Marks, from.id)
			}
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func stampTime(stamp uint64) time.Time {
	if stamp == 0 {
		return time.Time{}
	}
	return vclock.StampTime(stamp)
}

// serveExplain tells another node what this one knows about a key.
func (db *DB) serveExplain(s served) {
	q, err := replica.DecodeRead(s.body)
	if err != nil {
		db.refuse(s.to, replica.Invalid)
		return
	}
	v := db.admitNode(&q, s)
	if v == nil {
		return
	}
	key := bytes.Clone(q.Key)
	if !db.workers.run(func() { s.to.Reply(db.explainOwn(v, key), nil) }) {
		db.refuse(s.to, replica.Overloaded)
	}
}

// explainOwn is what this node knows about a key, as a message.
func (db *DB) explainOwn(v *view, key []byte) []byte {
	p := v.ring.Partition(lsm.Token(key))
	a := replica.ExplainReply{Reply: replica.Reply{Stamp: db.clock.Now(), Epoch: v.epoch.Number}, Owner: v.owns(p)}
	if a.Owner {
		a.Horizon = db.horizons.of(v).at(p)
	}
	for _, uid := range v.ownersOf(p) {
		m := replica.Missed{Owner: uid, Mark: uid == db.uid && db.exchanges.needed(uint32(p))}
		for _, target := range v.predecessors(uid) { // what is kept is theirs until it is delivered
			hint := replica.Hint{Target: target, KeyRecord: replica.KeyRecord{Key: key}}
			mark := replica.Mark{Target: target, Partition: uint32(p)}
			m.Hint = m.Hint || db.hints.stored(hint.StoreKey())
			m.Mark = m.Mark || db.hints.stored(mark.StoreKey())
		}
		if m.Hint || m.Mark {
			a.Missed = append(a.Missed, m)
		}
	}
	return a.Append(nil)
}

// predecessors are the UIDs of the members whose place the one with that UID has, itself
// included.
func (v *view) predecessors(uid uint64) []uint64 {
	all := []uint64{uid}
	for old, heir := range v.heirs {
		if heir == uid && old != uid {
			all = append(all, old)
		}
	}
	return all
}

// explainReplica asks one owner for its copy.
func (db *DB) explainReplica(ctx context.Context, v *view, key string, n *viewNode, deadline time.Time) ReplicaState {
	s := ReplicaState{Node: n.id, State: "no answer"}
	c := db.reads.get()
	if c == nil {
		s.Err = fmt.Errorf("%w: %d reads are in flight", ErrOverloaded, maxInFlight)
		return s
	}
	defer c.release()
	db.sweeper.wake()
	out := c.read(v, bytesOf(key), []target{{id: n.id, uid: n.uid, peer: n.peer}}, replica.Need{Count: 1}, false, deadline, ctx.Done())
	if out.Verdict != replica.Done {
		if out.damaged {
			s.State = "damaged"
		}
		for _, r := range c.errors() {
			s.Err = r.Err
		}
		return s
	}
	if !out.joined.Found() {
		s.State = "absent"
		return s
	}
	it, err := KeepSiblings.newItem(key, out.joined, db.opts.Clock())
	s.Version = it.Version
	switch {
	case it.Found() && len(it.Siblings()) > 1:
		s.State = "siblings"
	case it.Found():
		s.State = "value"
	case out.joined.Deleted():
		s.State = "tombstone"
	case isAny(err, ErrNotFound):
		s.State = "expired"
	default:
		s.State, s.Err = "damaged", err
	}
	return s
}

// String is a table.
func (e Explanation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q: token %016x, partition %d, epoch %d\n", e.Key, e.Token, e.Partition, e.Epoch)
	for _, r := range e.Replicas {
		fmt.Fprintf(&b, "  %-20s %-10s %v", r.Node, r.State, r.Version)
		if len(r.Hints) > 0 {
			fmt.Fprintf(&b, ", a hint waits for it at %s", strings.Join(r.Hints, ", "))
		}
		if len(r.Marks) > 0 {
			fmt.Fprintf(&b, ", it needs an exchange, say %s", strings.Join(r.Marks, ", "))
		}
		if r.Err != nil {
			fmt.Fprintf(&b, ": %v", r.Err)
		}
		b.WriteByte('\n')
	}
	for _, m := range e.Silent {
		fmt.Fprintf(&b, "  %s does not tell what it keeps: %v\n", m.Node, m.Err)
	}
	if !e.Horizon.IsZero() {
		fmt.Fprintf(&b, "  horizon %v, promised %v\n", e.Horizon.UTC().Format(time.RFC3339), e.Promised.UTC().Format(time.RFC3339))
	}
	if len(e.Fallbacks) > 0 {
		fmt.Fprintf(&b, "  hints go to %s\n", strings.Join(e.Fallbacks, ", "))
	}
	return b.String()
}
