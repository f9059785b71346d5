package kvstore

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"

	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// A writeCall is one write on its way to a set of owners under one dot and one
// epoch. The coordinator, each outstanding answer and the local log hold a
// reference; whoever drops the last one returns the call to the pool, which is
// after the coordinator left when a replica is slow.
type writeCall struct {
	db      *DB
	refs    atomic.Int32
	decided chan struct{} // capacity 1; sent to once per use, when settled
	local   func(error)   // c.localDone, made once
	record  [1]lsm.Record
	head    []byte
	targets []target
	self    int  // the index of this node among targets, or -1
	repair  bool // a write-back: a newer record at an owner is as good
	causal  bool // a causal write, synced here: owners tell what they then hold
	// value is a copy, for hints, once acknowledged is set: the record was
	// acknowledged before every owner had it.
	value        []byte
	acknowledged bool

	mu struct {
		sync.Mutex
		start    time.Time
		deadline time.Time
		state    replica.Write
		settled  bool
		unknown  bool   // an owner may hold the write without having said so
		epoch    uint64 // the newest epoch that an owner named
		pending  int
		owners   [replica.MaxOwners]answer
		// beside joins what owners hold that is not what a causal write sent.
		beside replica.Record
	}
}

// A target is an owner as one call sees it.
type target struct {
	id  string
	uid uint64
	// peer is nil for this node.
	peer *peer
	// near says that it is in this node's data centre, centre which one it is in.
	near   bool
	centre string
	// dead says that the failure detector or the connection has given it up.
	dead bool
	// standIn, if not nil, keeps a counted hint instead of a dead owner.
	standIn *viewNode
}

// An answer is one owner's part in the call.
type answer struct {
	done bool
	err  error
	took time.Duration
}

// verdict is what the coordinator learns when a call settles.
type verdict struct {
	replica.Verdict
	newer   vclock.Dot
	epoch   uint64
	acked   int
	outcome Outcome
	beside  replica.Record // see writeCall
}

// write sends rec to the targets and waits until need of them have it synced,
// or that has become impossible, or the deadline or done ends the wait.
// The record's slices may be re-used on return.
func (c *writeCall) write(v *view, key []byte, rec replica.Record, targets []target, need replica.Need, repair bool, deadline time.Time, done <-chan struct{}) verdict {
	c.begin(targets, need, deadline)
	q := replica.Request{Epoch: v.epoch.Number, Stamp: c.db.clock.Now(), Repair: repair, Key: key, Record: rec}
	c.head = q.AppendWriteHead(c.head[:0])
	c.self, c.repair, c.acknowledged, c.causal = -1, repair, false, rec.Causal && !repair
	op := replica.OpWrite
	if c.causal {
		op = replica.OpCausal
	}
	for i := range c.targets {
		t := &c.targets[i]
		switch {
		case t.standIn != nil:
			c.standIn(v, i, key, rec, deadline)
			continue
		case t.peer == nil:
			c.self = i
			continue
		}
		c.refs.Add(1)
		replica.Redirect(c.head, t.uid)
		if err := t.peer.Call(op, deadline, c.head, rec.Value, c, uint64(i)); err != nil {
			c.fail(i, sendError(err), false)
			c.release()
		}
	}
	switch {
	case c.self < 0:
	case c.causal:
		c.answer(c.self, replica.Reply{Status: replica.OK})
	default:
		c.writeSelf(v, key, rec, deadline)
	}
	decided := !need.None()
	if decided { // else nobody waits for it
		select {
		case <-c.decided:
		case <-done:
			decided = false
		}
	}
	out := c.end(decided)
	if out.Verdict == replica.Done && out.acked < len(c.targets) && !repair {
		c.value, c.acknowledged = append(c.value[:0], rec.Value...), true
	}
	return out
}

// standIn has a counted hint kept in the place of owner i.
func (c *writeCall) standIn(v *view, i int, key []byte, rec replica.Record, deadline time.Time) {
	n := c.targets[i].standIn
	q := replica.HintRequest{Targets: []uint64{c.targets[i].uid}, Counted: true,
		Request: replica.Request{To: n.uid, Epoch: v.epoch.Number, Stamp: c.db.clock.Now(), Key: key, Record: rec}}
	c.refs.Add(1)
	var err error
	switch {
	case n.peer != nil:
		if err = n.peer.Call(replica.OpHint, deadline, q.AppendHead(nil), rec.Value, c, uint64(i)); err != nil {
			err = sendError(err)
		}
	case c.db.acceptData(v):
		c.db.hints.count(q.Request, q.Targets, func(s replica.Status) {
			c.answer(i, replica.Reply{Status: s})
			c.release()
		})
	default:
		err = ErrNotReady
	}
	if err != nil {
		c.fail(i, err, false)
		c.release()
	}
}

// writeSelf hands the record to the own log.
func (c *writeCall) writeSelf(v *view, key []byte, rec replica.Record, deadline time.Time) {
	r, err := engineRecord(key, rec)
	if err != nil {
		c.fail(c.self, err, false)
		return
	}
	c.refs.Add(1)
	if c.db.acceptData(v) {
		c.submit(v, r, deadline)
		return
	}
	// An epoch is being agreed: the caller may be gone when that is over.
	r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	if !c.db.workers.run(func() {
		err := c.db.fence.await(c.db.background, deadline)
		switch {
		case err != nil:
			c.fail(c.self, ErrNotReady, false)
			c.release()
		case !c.db.acceptData(v):
			c.answer(c.self, replica.Reply{Status: replica.Stale, Epoch: c.db.view.Load().epoch.Number})
			c.release()
		default:
			c.submit(v, r, deadline)
		}
	}) {
		c.fail(c.self, ErrOverloaded, false)
		c.release()
	}
}

// submit gives a record to the own log, which drops the reference taken for it,
// unless it comes too late.
func (c *writeCall) submit(v *view, r lsm.Record, deadline time.Time) {
	if c.db.damage.bars(v, r.Token) {
		c.fail(c.self, ErrNotReady, false)
		c.release()
		return
	}
	c.record[0] = r
	from := replica.Fresh
	if c.repair {
		from = replica.WrittenBack
	}
	turn := c.db.horizons.passing.enter()
	judgement := c.db.horizons.judge(v, &r, from)
	if judgement == replica.Take {
		c.db.tree.SubmitHere(c.record[:], c.local)
	}
	c.db.horizons.passing.leave(turn)
	switch judgement {
	case replica.Refuse:
		c.fail(c.self, errBehind, false)
		c.release()
	case replica.Ignore: // the own horizon covers it
		c.answer(c.self, replica.Reply{Status: replica.OK})
		c.release()
	case replica.Reread:
		r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
		if !c.db.workers.run(func() {
			c.answer(c.self, replica.Reply{Status: c.db.takeLate(v, r, deadline)})
			c.release()
		}) {
			c.fail(c.self, ErrOverloaded, false)
			c.release()
		}
	}
}

// begin takes the call into use with one reference, the coordinator's.
func (c *writeCall) begin(targets []target, need replica.Need, deadline time.Time) {
	c.refs.Store(1)
	c.targets = append(c.targets[:0], targets...)
	c.mu.Lock()
	c.mu.start, c.mu.deadline = now(), deadline
	c.mu.state = replica.NewWrite(need, len(targets))
	c.mu.settled, c.mu.unknown, c.mu.epoch, c.mu.pending = false, false, 0, len(targets)
	c.mu.beside = replica.Record{}
	clear(c.mu.owners[:len(targets)])
	c.mu.Unlock()
}

// end settles the call for the coordinator, whatever is still outstanding.
func (c *writeCall) end(decided bool) verdict {
	c.mu.Lock()
	out := verdict{Verdict: c.mu.state.Verdict(), newer: c.mu.state.Newer(), epoch: c.mu.epoch, acked: c.mu.state.Acked(), beside: c.mu.beside}
	switch {
	case out.Verdict == replica.Done:
		out.outcome = Applied
	case defences.Outcomes && (out.acked > 0 || c.mu.unknown || c.mu.pending > 0):
		out.outcome = Unknown
	default:
		out.outcome = NotApplied
	}
	sent := c.mu.settled
	c.mu.settled = true
	c.mu.Unlock()
	if sent && !decided {
		<-c.decided // sent, or about to be: leave the channel empty
	}
	return out
}

// errors tells each owner's part so far.
func (c *writeCall) errors() []ReplicaError {
	c.mu.Lock()
	defer c.mu.Unlock()
	return replicaErrors(c.targets, c.mu.owners[:], c.mu.start)
}

func replicaErrors(targets []target, answers []answer, start time.Time) []ReplicaError {
	out := make([]ReplicaError, len(targets))
	for i, t := range targets {
		a := answers[i]
		if !a.done {
			a = answer{err: errNoAnswer, took: now().Sub(start)}
		}
		out[i] = ReplicaError{Node: t.id, Err: a.err, Took: a.took}
	}
	return out
}

// Complete takes a remote owner's answer. It runs on a connection's reader or
// on the transport's sweeper.
func (c *writeCall) Complete(tag uint64, body []byte, err error) {
	defer c.release()
	if err != nil {
		c.fail(int(tag), callError(err), outcomeUnknown(err))
		return
	}
	p, err := replica.DecodeReply(body)
	if err == nil && p.Record.Found() {
		err = c.meet(p.Record)
	}
	if err != nil {
		c.fail(int(tag), err, true)
		return
	}
	from := c.targets[tag].peer
	if n := c.targets[tag].standIn; n != nil {
		from = n.peer
	}
	c.db.heed(&p, from)
	c.answer(int(tag), p)
}

// meet takes in what an owner holds beside a causal write. A record stamped too
// far ahead is refused, as everywhere.
func (c *writeCall) meet(rec replica.Record) error {
	switch {
	case rec.Digest:
		return replica.ErrMalformed
	case c.db.observe(&rec) != nil:
		return ErrClockSkew
	}
	rec.Value = bytes.Clone(rec.Value)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.settled { // the coordinator may be using it
		return nil
	}
	joined, err := replica.Join(c.mu.beside, rec)
	if err == nil {
		c.mu.beside = joined
	}
	return err
}

// localDone takes the own log's answer, on the log's goroutine or that of the caller.
func (c *writeCall) localDone(err error) {
	defer c.release()
	if err == nil {
		c.mu.Lock()
		start := c.mu.start
		c.mu.Unlock()
		c.db.intake.served(start)
	}
	newer := c.record[0].Newer
	c.record[0] = lsm.Record{}
	switch {
	case err != nil:
		c.fail(c.self, engineError(err), errorStatus(err) == replica.Uncertain)
	case !newer.IsZero() && !c.repair:
		c.answer(c.self, replica.Reply{Status: replica.Superseded, Dot: newer})
	default:
		c.answer(c.self, replica.Reply{Status: replica.OK})
	}
}

// answer notes owner i's reply.
func (c *writeCall) answer(i int, p replica.Reply) {
	if p.Status == replica.Superseded {
		switch {
		case !defences.Restamp:
			p.Status = replica.OK
		case c.db.clock.Observe(p.Dot.Stamp) != nil:
			// The owner took a stamp that its peers refuse; it may have kept this
			// write too.
			c.fail(i, ErrClockSkew, true)
			return
		}
	}
	c.mu.Lock()
	switch p.Status {
	case replica.OK:
		c.mu.state.Ack(i)
		c.settleUnlock(i, nil)
	case replica.Superseded:
		c.mu.state.Superseded(i, p.Dot)
		c.settleUnlock(i, errSuperseded)
	default:
		c.mu.epoch = max(c.mu.epoch, p.Epoch)
		c.mu.unknown = c.mu.unknown || p.Status == replica.Uncertain
		c.mu.state.Fail(i)
		c.settleUnlock(i, statusError(p.Status))
	}
}

// fail notes that owner i will not answer; unknown says that it may hold the
// write all the same.
func (c *writeCall) fail(i int, err error, unknown bool) {
	c.mu.Lock()
	c.mu.unknown = c.mu.unknown || unknown
	c.mu.state.Fail(i)
	c.settleUnlock(i, err)
}

// settleUnlock files owner i's answer, unlocks c.mu, and wakes the coordinator
// if that decided the call.
func (c *writeCall) settleUnlock(i int, err error) {
	c.mu.owners[i] = answer{done: true, err: err, took: now().Sub(c.mu.start)}
	c.mu.pending--
	wake := !c.mu.settled && c.mu.state.Verdict() != replica.Pending
	if wake {
		c.mu.settled = true
	}
	c.mu.Unlock()
	if wake {
		c.decided <- struct{}{}
	}
}

// sweep ends the coordinator's wait once the deadline is over: the transport
// fails the remote calls by itself, but a log on a stuck disk says nothing.
func (c *writeCall) sweep(t time.Time) {
	c.mu.Lock()
	wake := !c.mu.settled && t.After(c.mu.deadline)
	if wake {
		c.mu.settled = true
	}
	c.mu.Unlock()
	if wake {
		c.decided <- struct{}{}
	}
}

// release drops one reference. With the last one it is known which owners have
// missed an acknowledged write.
func (c *writeCall) release() {
	if c.refs.Add(-1) != 0 {
		return
	}
	if c.acknowledged {
		c.hint()
	}
	if cap(c.value) > keepValueBytes {
		c.value = nil
	}
	c.db.writes.put(c)
}

// hint keeps the write for the owners that may lack it. Nobody else refers to c.
func (c *writeCall) hint() {
	var missed []uint64
	for i, t := range c.targets {
		switch err := c.mu.owners[i].err; {
		case err == nil, t.standIn == nil && (err == errSuperseded || err == errBehind):
		default:
			missed = append(missed, t.uid)
		}
	}
	if len(missed) > 0 {
		c.db.hints.missed(append(c.head[:len(c.head):len(c.head)], c.value...), missed)
	}
}
