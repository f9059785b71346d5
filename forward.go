package kvstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/kvstore/crdt"
	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// This file hands a causal write to an owner that coordinates it, and does so for
// others. It is one hop: an owner that may not coordinate says so.

// faults pairs what a coordinator's error is with its number in a reply.
var faults = []struct {
	fault replica.Fault
	err   error
}{
	{replica.FaultTooManySiblings, ErrTooManySiblings}, {replica.FaultUnavailable, ErrUnavailable}, {replica.FaultTimeout, ErrTimeout},
	{replica.FaultPartial, ErrPartial}, {replica.FaultOverloaded, ErrOverloaded}, {replica.FaultNotReady, ErrNotReady},
	{replica.FaultClockSkew, ErrClockSkew}, {replica.FaultNoSpace, ErrNoSpace}, {replica.FaultReadOnly, ErrReadOnly},
	{replica.FaultInvalid, ErrInvalid}, {replica.FaultDamaged, errDamaged}, {replica.FaultNotOwner, errNotOwner},
	{replica.FaultStale, errStale}, {replica.FaultBehind, errBehind}, {replica.FaultNotReady, ErrClosed},
	{replica.FaultWrongType, ErrWrongType}, {replica.FaultOverflow, ErrOverflow}, {replica.FaultValueTooLarge, ErrValueTooLarge},
}

// faultError is the error behind a fault.
func faultError(f replica.Fault) error {
	for _, x := range faults {
		if x.fault == f {
			return x.err
		}
	}
	return fmt.Errorf("fault %d, of a newer version", f)
}

// errorFault is the reverse.
func errorFault(err error) replica.Fault {
	for _, x := range faults {
		if errors.Is(err, x.err) {
			return x.fault
		}
	}
	return replica.FaultPartial
}

// A roundTrip is one call of a peer whose answer somebody waits for.
type roundTrip struct {
	body []byte
	err  error
	done chan struct{} // capacity 1; sent to once
}

func newRoundTrip() *roundTrip { return &roundTrip{done: make(chan struct{}, 1)} }

// Complete takes the answer. It runs on a connection's reader or on the
// transport's sweeper.
func (r *roundTrip) Complete(_ uint64, body []byte, err error) {
	r.body, r.err = bytes.Clone(body), err
	r.done <- struct{}{}
}

// fail takes the reason why nothing was sent.
func (r *roundTrip) fail(err error) {
	r.err = err
	r.done <- struct{}{}
}

// forward lets owner t coordinate w. It gives the newest epoch that was heard of,
// if that is above epoch.
func (db *DB) forward(ctx context.Context, v *view, t *target, w *causalWrite, deadline time.Time, epoch uint64) (causalResult, uint64, error) {
	qe := QuorumError{Op: w.op, Key: w.key, Level: w.level, outcome: NotApplied, sloppy: w.sloppy}
	q := replica.CausalRequest{
		Request: replica.Request{To: t.uid, Epoch: v.epoch.Number, Stamp: db.clock.Now(), Key: bytesOf(w.key)},
		Level:   uint8(w.level), Tombstone: w.value.Tombstone, Sole: w.sole, Sloppy: w.sloppy, Deadline: w.value.Deadline, Seen: w.seen, Value: w.value.Value,
	}
	if w.mutation != nil {
		q.Mutation, q.Base = w.mutation.Append(nil), w.base
	}
	head, err := q.AppendHead(nil)
	if err != nil {
		return causalResult{}, epoch, invalid("a version of more than %d bytes", replica.MaxVersionBytes)
	}
	db.metrics.forwards.Add(1)
	f := newRoundTrip()
	if err := t.peer.Call(replica.OpForward, deadline, head, q.Body(), f, 0); err != nil {
		return causalResult{}, epoch, refused(sendError(err))
	}
	qe.outcome = Unknown // from here on
	select {
	case <-f.done:
	case <-ctx.Done():
		return causalResult{}, epoch, qe.fail(contextError(ctx))
	}
	if f.err != nil {
		err := callError(f.err)
		if !outcomeUnknown(f.err) {
			return causalResult{}, epoch, refused(err)
		}
		qe.Replicas = []ReplicaError{{Node: t.id, Err: err}}
		return causalResult{}, epoch, qe.fail(err)
	}
	p, err := replica.DecodeCausalReply(f.body)
	if err != nil {
		return causalResult{}, epoch, qe.fail(err)
	}
	db.heed(&p.Reply, t.peer)
	epoch = max(epoch, p.Epoch)
	if p.Status != replica.OK {
		return causalResult{}, epoch, refused(statusError(p.Status))
	}
	if p.Fault != replica.NoFault && !p.Unknown {
		qe.outcome = NotApplied
	}
	out, err := db.forwarded(w, &p, &qe, t)
	return out, epoch, err
}

// forwarded is what an owner's reply means to the caller.
func (db *DB) forwarded(w *causalWrite, p *replica.CausalReply, qe *QuorumError, t *target) (causalResult, error) {
	if db.observe(&p.Held) != nil {
		return causalResult{}, qe.fail(ErrClockSkew)
	}
	switch p.Fault {
	case replica.NoFault:
		return causalResult{version: p.Version, held: p.Held}, nil
	case replica.FaultConflict:
		return causalResult{}, db.conflict(w.key, p.Held, qe.outcome)
	}
	qe.Required, qe.Received, qe.Alive = int(p.Required), int(p.Received), int(p.Alive)
	err := faultError(p.Fault)
	text := fmt.Errorf("%w, says %s: %s", err, t.id, p.Text)
	switch {
	case isAny(err, ErrUnavailable, ErrTimeout, ErrPartial):
		qe.Replicas = []ReplicaError{{Node: t.id, Err: errors.New(p.Text)}}
		return causalResult{}, qe.fail(err)
	case qe.outcome == NotApplied && !isAny(err, ErrTooManySiblings, ErrInvalid, ErrWrongType, ErrOverflow, ErrValueTooLarge):
		return causalResult{}, refused(text)
	}
	return causalResult{}, qe.fail(text)
}

// maxForwarded bounds the causal writes that this node coordinates for others at
// one time.
const maxForwarded = 256

// serveForward coordinates a causal write for another node, on a worker.
func (db *DB) serveForward(s served) {
	q, err := replica.DecodeCausal(s.body)
	if err != nil || len(q.Value) > hardValueBytes || len(q.Base.Value) > hardRecordBytes {
		db.refuse(s.to, replica.Invalid)
		return
	}
	w := &causalWrite{op: opPut, key: string(q.Key), level: Consistency(q.Level), seen: q.Seen, sole: q.Sole, sloppy: q.Sloppy, from: s.from,
		value: vclock.Sibling{Tombstone: q.Tombstone, Deadline: q.Deadline, Value: bytes.Clone(q.Value)}}
	if q.Mutation != nil {
		m, err := crdt.DecodeMutation(q.Mutation)
		if err != nil {
			db.refuse(s.to, replica.Invalid)
			return
		}
		w.mutation, w.base = &m, q.Base
		w.base.Value = bytes.Clone(w.base.Value)
	}
	v := db.admit(&q.Request, s)
	switch {
	case v == nil:
		return
	case !db.ready.Load():
		db.refuse(s.to, replica.NotReady)
		return
	case db.observe(&q.Base) != nil:
		db.refuse(s.to, replica.ClockSkew)
		return
	}
	if !db.coordinators.run(func() {
		if !db.gate.enter() {
			db.refuse(s.to, replica.NotReady)
			return
		}
		defer db.gate.leave()
		db.metrics.forwarded.Add(1)
		out, err := db.coordinate(db.background, v, w, s.deadline)
		db.answerForward(s, w, out, err)
	}) {
		db.refuse(s.to, replica.Overloaded)
	}
}

// answerForward tells the node that forwarded a write how it ended.
func (db *DB) answerForward(s served, w *causalWrite, out causalResult, err error) {
	p := replica.CausalReply{Reply: replica.Reply{Stamp: db.clock.Now(), Epoch: db.view.Load().epoch.Number}, Version: out.version, Held: out.held}
	var conflict *ConflictError
	var qe *QuorumError
	var no refusal
	switch {
	case err == nil:
	case errors.As(err, &conflict):
		p.Fault, p.Unknown, p.Held = replica.FaultConflict, conflict.outcome == Unknown, conflict.held
	default:
		p.Fault, p.Text = errorFault(err), err.Error()
		p.Unknown = !errors.As(err, &no) && OutcomeOf(err) == Unknown
		if errors.As(err, &qe) {
			p.Required, p.Received, p.Alive = uint8(qe.Required), uint8(qe.Received), uint8(qe.Alive)
		}
	}
	head, err := p.AppendHead(nil)
	if err != nil { // the version has grown too long
		p = replica.CausalReply{Reply: p.Reply, Fault: replica.FaultInvalid, Unknown: true, Text: err.Error()}
		head, _ = p.AppendHead(nil)
	}
	s.to.Reply(head, p.Held.Value)
}
