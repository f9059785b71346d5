package kvstore

import (
	"context"
	"fmt"
	"strings"
	"time"

	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// An Explanation tells where a key lives and what each of its replicas holds.
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
	// Promised and Horizon are this node's, if it is an owner: it takes nothing new
	// stamped at or before Promised, and deletes at or before Horizon may be forgotten.
	// Zero: none yet.
	Promised, Horizon time.Time
}

// A ReplicaState is what one owner answered.
type ReplicaState struct {
	Node string
	// State is "value", "siblings", "tombstone", "expired", "absent", "damaged", or
	// "no answer".
	State string
	// Version is what the replica holds; zero where it holds nothing.
	Version Version
	// Hint says that the answering node keeps a write of the key for this owner.
	Hint bool
	// Err is why there is no answer.
	Err error
}

// Explain asks every owner of the key, one after the other, for its copy. It repairs
// nothing. Owners that do not answer are part of the answer.
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
	for n, i := range list {
		if n >= len(v.ring.Owners(p)) {
			e.Fallbacks = append(e.Fallbacks, v.nodes[i].id)
			continue
		}
		node := &v.nodes[i]
		t := target{id: node.id, uid: node.uid, peer: node.peer}
		state, err := db.explainReplica(ctx, v, key, t, deadline)
		if err != nil {
			return Explanation{}, err
		}
		e.Replicas = append(e.Replicas, state)
	}
	if v.owns(p) {
		h := db.horizons.of(v).at(p)
		e.Promised, e.Horizon = stampTime(h.Promised), stampTime(h.Recorded)
	}
	return e, nil
}

func stampTime(stamp uint64) time.Time {
	if stamp == 0 {
		return time.Time{}
	}
	return vclock.StampTime(stamp)
}

// explainReplica asks one owner.
func (db *DB) explainReplica(ctx context.Context, v *view, key string, t target, deadline time.Time) (ReplicaState, error) {
	s := ReplicaState{Node: t.id}
	hint := replica.Hint{Target: t.uid, KeyRecord: replica.KeyRecord{Key: bytesOf(key)}}
	stored := hint.StoreKey()
	rec, _, err := db.tree.ReadToken(spreadToken(stored), stored)
	if err != nil {
		return s, engineError(err)
	}
	s.Hint = rec.Kind == lsm.Value
	c := db.reads.get()
	if c == nil {
		return s, fmt.Errorf("%w: %d reads are in flight", ErrOverloaded, maxInFlight)
	}
	defer c.release()
	db.sweeper.wake()
	out := c.read(v, bytesOf(key), []target{t}, replica.Need{Count: 1}, false, deadline, ctx.Done())
	if out.Verdict != replica.Done {
		s.State = "no answer"
		if out.damaged {
			s.State = "damaged"
		}
		for _, r := range c.errors() {
			s.Err = r.Err
		}
		return s, nil
	}
	if !out.joined.Found() {
		s.State = "absent"
		return s, nil
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
	return s, nil
}

// String is a table.
func (e Explanation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q: token %016x, partition %d, epoch %d\n", e.Key, e.Token, e.Partition, e.Epoch)
	for _, r := range e.Replicas {
		fmt.Fprintf(&b, "  %-20s %-10s %v", r.Node, r.State, r.Version)
		if r.Hint {
			b.WriteString(", a hint waits for it")
		}
		if r.Err != nil {
			fmt.Fprintf(&b, ": %v", r.Err)
		}
		b.WriteByte('\n')
	}
	if !e.Horizon.IsZero() {
		fmt.Fprintf(&b, "  horizon %v, promised %v\n", e.Horizon.UTC().Format(time.RFC3339), e.Promised.UTC().Format(time.RFC3339))
	}
	if len(e.Fallbacks) > 0 {
		fmt.Fprintf(&b, "  hints go to %s\n", strings.Join(e.Fallbacks, ", "))
	}
	return b.String()
}
