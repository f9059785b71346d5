package kvstore

import (
	"bytes"
	"sync"
	"time"

	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
	"example.com/kvstore/transport"
	"example.com/kvstore/vclock"
)

// This file is the replica: it answers what coordinators ask.

// A served is one request of a peer. The body is the reader's unless the request
// was kept.
type served struct {
	op       replica.Op
	body     []byte
	deadline time.Time
	from     string // the coordinator's address
	to       transport.Responder
	kept     bool // no longer in the connection's reader: it may wait
}

// handle takes one request. It runs in the connection's reader, so it never
// blocks: what may wait or touch the disk goes to the workers.
func (db *DB) handle(r *transport.Request) {
	if !db.started.Load() {
		r.Fail(uint8(replica.NotReady), "starting")
		return
	}
	switch r.Op {
	case replica.OpWrite, replica.OpRead, replica.OpCausal, replica.OpForward, replica.OpReadMany, replica.OpWriteMany, replica.OpScan, replica.OpHint, replica.OpBatch, replica.OpNeeds, replica.OpExchange, replica.OpRound, replica.OpExplain:
		s := served{op: r.Op, body: r.Body, deadline: r.Deadline, from: r.From.Addr, to: r.Responder}
		if limit := now().Add(db.opts.MaxRequest); limit.Before(s.deadline) {
			s.deadline = limit
		}
		db.serve(s)
	case replica.OpClock:
		var b [16]byte
		r.Reply(db.clocks.answer(b[:0], r.Body), nil)
	case replica.OpGossip, replica.OpTopology:
		db.members.receive(r.Op, r.Body)
	default:
		r.Fail(uint8(replica.Invalid), "unknown operation; this node may be older than the sender")
	}
}

// serve does one request for data.
func (db *DB) serve(s served) {
	switch s.op {
	case replica.OpWrite, replica.OpCausal:
		db.serveWrite(s)
	case replica.OpHint:
		db.serveHint(s)
	case replica.OpBatch:
		db.serveBatch(s)
	case replica.OpNeeds:
		db.serveNeeds(s)
	case replica.OpForward:
		db.serveForward(s)
	case replica.OpReadMany:
		db.serveReadMany(s)
	case replica.OpWriteMany:
		db.serveWriteMany(s)
	case replica.OpScan:
		db.serveScan(s)
	case replica.OpExchange:
		db.serveExchange(s)
	case replica.OpRound:
		db.serveRound(s)
	case replica.OpExplain:
		db.serveExplain(s)
	default:
		db.serveRead(s)
	}
}

// refuse answers a request that is not carried out.
func (db *DB) refuse(r transport.Responder, s replica.Status) { db.answer(r, s) }

// answer answers a request with a status and nothing else.
func (db *DB) answer(r transport.Responder, s replica.Status) {
	p := replica.Reply{Status: s, Stamp: db.clock.Now()}
	if v := db.view.Load(); v != nil {
		p.Epoch = v.epoch.Number
	}
	var head [64]byte
	r.Reply(p.AppendHead(head[:0]), nil)
}

// admit checks what reads and writes have in common: that the epoch of the
// request is one in which this node answers for the key. It returns nil when it
// has answered already, or when the request is of a newer epoch: then it is done
// again once this node has that epoch.
func (db *DB) admit(q *replica.Request, s served) *view {
	v := db.admitNode(q, s)
	if v == nil {
		return nil
	}
	p := v.ring.Partition(lsm.Token(q.Key))
	switch {
	case q.Epoch < v.ring.Changed(p):
		db.refuse(s.to, replica.Stale)
	case !v.owns(p):
		db.refuse(s.to, replica.NotOwner)
	default:
		return v
	}
	return nil
}

// admitNode is the part of admit that does not depend on the key.
func (db *DB) admitNode(q *replica.Request, s served) *view {
	v := db.view.Load()
	if v == nil || db.closing.Load() {
		db.refuse(s.to, replica.NotReady)
		return nil
	}
	if db.expired(s.deadline) {
		db.refuse(s.to, replica.Overloaded)
		return nil
	}
	if db.heedStamp(q.Stamp) != nil {
		db.refuse(s.to, replica.ClockSkew)
		return nil
	}
	if q.To != db.uid { // our address was another member's
		db.refuse(s.to, replica.NotOwner)
		return nil
	}
	if q.Epoch > v.epoch.Number {
		db.catchUp(q.Epoch, s)
		return nil
	}
	return v
}

// expired reports whether nobody waits any more for a call whose turn has come.
func (db *DB) expired(deadline time.Time) bool {
	if !defences.Expiry || !now().After(deadline) {
		return false
	}
	db.metrics.expired.Add(1)
	return true
}

// catchUp does a request again once this node knows the epoch that it named.
func (db *DB) catchUp(epoch uint64, s served) {
	db.members.hear(s.from, epoch)
	db.park(s, func() error { return db.awaitEpoch(db.background, epoch, s.deadline) })
}

// park keeps a request, waits on a worker, and then does it again.
func (db *DB) park(s served, wait func() error) {
	s.body, s.kept = append([]byte(nil), s.body...), true
	if !db.workers.run(func() {
		if wait() != nil {
			db.refuse(s.to, replica.NotReady)
			return
		}
		db.serve(s)
	}) {
		db.refuse(s.to, replica.Overloaded)
	}
}

// holds reports whether this node is known to have a record, or a newer one, durably. A
// read asks too few owners to know, and so writes back to those that need no repair.
func (db *DB) holds(rec *lsm.Record) bool {
	buf := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	own, found, certain := db.tree.ReadMemory(rec.Token, rec.Key, (*buf)[:0])
	if !certain || !found {
		return false
	}
	plain := own.Kind != lsm.Causal && rec.Kind != lsm.Causal
	return plain && rec.Max.Less(own.Max) || fromEngine(own).Same(fromEngine(*rec))
}

// A servedWrite is one write of a peer on its way through the log.
type servedWrite struct {
	db     *DB
	record [1]lsm.Record
	to     transport.Responder
	begun  time.Time
	repair bool
	causal bool        // the answer is what this node holds afterwards
	done   func(error) // w.synced, made once
	head   []byte
}

var servedWrites sync.Pool

func (db *DB) newServedWrite() *servedWrite {
	w, _ := servedWrites.Get().(*servedWrite)
	if w == nil {
		w = &servedWrite{}
		w.done = w.synced
	}
	w.db = db
	return w
}

// serveWrite joins a record into the log and answers when it is synced.
func (db *DB) serveWrite(s served) {
	q, err := replica.DecodeWrite(s.body)
	causal := s.op == replica.OpCausal
	if err != nil || len(q.Record.Value) > hardRecordBytes || causal && (!q.Record.Causal || q.Repair) {
		db.refuse(s.to, replica.Invalid)
		return
	}
	v := db.admit(&q, s)
	if v == nil {
		return
	}
	if db.observe(&q.Record) != nil {
		db.refuse(s.to, replica.ClockSkew)
		return
	}
	if !db.acceptData(v) {
		db.park(s, func() error { return db.fence.await(db.background, s.deadline) })
		return
	}
	rec, err := engineRecord(q.Key, q.Record)
	if err != nil {
		db.refuse(s.to, replica.Invalid)
		return
	}
	if db.damage.bars(v, rec.Token) {
		db.refuse(s.to, replica.NotReady)
		return
	}
	db.metrics.servedWrites.Add(1)
	if q.Repair && db.damage.incomplete(v) == nil && db.holds(&rec) {
		db.answer(s.to, replica.OK)
		return
	}
	w := db.newServedWrite()
	if causal { // looked at again after the sync, when the reader has gone on
		rec.Key, rec.Value = bytes.Clone(rec.Key), bytes.Clone(rec.Value)
	}
	w.to, w.begun, w.repair, w.causal, w.record[0] = s.to, now(), q.Repair, causal, rec
	from := replica.Fresh
	if q.Repair {
		from = replica.WrittenBack
	}
	turn := db.horizons.passing.enter()
	judgement := db.horizons.judge(v, &rec, from)
	if judgement == replica.Take {
		db.tree.Submit(w.record[:], w.done)
	}
	db.horizons.passing.leave(turn)
	switch judgement {
	case replica.Refuse:
		w.free()
		db.refuse(s.to, replica.Behind)
	case replica.Ignore: // its horizon covers it
		w.free()
		db.answer(s.to, replica.OK)
	case replica.Reread:
		db.reread(v, s, w)
	}
}

// synced answers the coordinator. After a sync it runs on the log's goroutine,
// whose flusher sends all answers of one group in one write per connection;
// refusals come from anywhere.
func (w *servedWrite) synced(err error) {
	db := w.db
	if err == nil {
		db.intake.served(w.begun)
	}
	if err == nil && w.causal {
		db.answerCausal(w.to, w.record[0])
		w.free()
		return
	}
	p := replica.Reply{Stamp: db.clock.Now(), Epoch: db.view.Load().epoch.Number}
	if newer := w.record[0].Newer; err != nil {
		p.Status = errorStatus(err)
	} else if !newer.IsZero() && !w.repair {
		p.Status, p.Dot = replica.Superseded, newer
	}
	w.head = p.AppendHead(w.head[:0])
	if err != nil {
		w.to.Reply(w.head, nil)
	} else {
		db.replies.Reply(w.to, w.head, nil)
	}
	w.free()
}

func (w *servedWrite) free() {
	*w = servedWrite{done: w.done, head: w.head}
	servedWrites.Put(w)
}

// answerCausal tells what this node holds after it has synced the causal write
// sent. It runs on the log's goroutine, so what memory does not know is read by a
// worker.
func (db *DB) answerCausal(r transport.Responder, sent lsm.Record) {
	rec, found, certain := db.tree.ReadMemory(sent.Token, sent.Key, nil)
	if certain && found {
		db.answerBeside(r, sent, rec)
		return
	}
	if !db.workers.run(func() {
		rec, found, err := db.tree.ReadToken(sent.Token, sent.Key)
		if err != nil || !found {
			db.refuse(r, replica.Uncertain)
			return
		}
		db.answerBeside(r, sent, rec)
	}) {
		db.refuse(r, replica.Uncertain) // it is stored, but what else is there nobody knows
	}
}

// answerBeside answers with a record, unless that is the one that was sent.
func (db *DB) answerBeside(r transport.Responder, sent, rec lsm.Record) {
	if fromEngine(rec).Same(fromEngine(sent)) {
		rec = lsm.Record{}
	}
	db.answerRead(r, rec, !rec.Max.IsZero(), false, vclock.Dot{})
}

// scratch is memory for one read's key and value; larger ones are allocated.
var scratch = sync.Pool{New: func() any { b := make([]byte, 0, 8<<10); return &b }}

// serveRead answers with this node's copy: at once when memory knows it, else
// from a worker.
func (db *DB) serveRead(s served) {
	q, err := replica.DecodeRead(s.body)
	if err != nil {
		db.refuse(s.to, replica.Invalid)
		return
	}
	if db.admit(&q, s) == nil {
		return
	}
	if !db.trusted.Load() {
		db.refuse(s.to, replica.NotReady)
		return
	}
	if db.fence.raised.Load() {
		db.park(s, func() error { return db.fence.await(db.background, s.deadline) })
		return
	}
	db.metrics.servedReads.Add(1)
	token := lsm.Token(q.Key)
	buf := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	horizon := db.horizons.covers(token) // as it was before the read
	rec, found, certain := db.tree.ReadMemory(token, q.Key, (*buf)[:0])
	if certain {
		db.answerRead(s.to, rec, found, q.Digest, horizon)
		return
	}
	digest := q.Digest
	key := append([]byte(nil), q.Key...)
	read := func() {
		if db.expired(s.deadline) {
			db.refuse(s.to, replica.Overloaded)
			return
		}
		horizon := db.horizons.covers(token)
		rec, found, err := db.tree.ReadToken(token, key)
		if err != nil {
			db.refuse(s.to, errorStatus(err))
			return
		}
		db.answerRead(s.to, rec, found, digest, horizon)
	}
	if s.kept {
		read()
	} else if !db.workers.run(read) {
		db.refuse(s.to, replica.Overloaded)
	}
}

// digestAbove is the size of a value that is worth a digest.
const digestAbove = 512

// answerRead answers with what is here of a key, or, where there is nothing, with the
// horizon behind which that is as good as a delete. It is that of before the read.
func (db *DB) answerRead(r transport.Responder, rec lsm.Record, found, digest bool, horizon vclock.Dot) {
	p := replica.Reply{Stamp: db.clock.Now(), Epoch: db.view.Load().epoch.Number}
	if found {
		p.Record = fromEngine(rec)
	} else {
		p.Dot = horizon
	}
	if digest && len(p.Record.Value) > digestAbove {
		p.Record = p.Record.AsDigest()
		db.metrics.servedDigests.Add(1)
	}
	var head [128]byte
	r.Reply(p.AppendReadHead(head[:0]), p.Record.Value)
}
