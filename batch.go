package kvstore

import (
	"sync"
	"sync/atomic"
	"time"

	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// What background work this node takes, its own and that of the other nodes: so many
// bytes a second, and at once, while clients' requests do not suffer from it. They are
// not counted, and do not wait for it.
const (
	intakeRate  = 16 << 20
	intakeBurst = 1 << 20
	// While clients write, what nobody waits for takes at most one part in workShare of a
	// core's time.
	workShare = 16
	// A batch is as long as nothing else goes into the log: while clients write it is so
	// many times smaller.
	busyBatches = 8
)

// An intake paces hints and exchanges.
type intake struct {
	hinted atomic.Int64 // when hints came last, Unix nanoseconds
	mu     struct {
		sync.Mutex
		throttle replica.Throttle
	}
}

// credit takes in n bytes of a batch and gives what its sender may send next, after a
// rest at least: less at once, too, while clients' requests suffer.
func (i *intake) credit(t time.Time, n int, rest time.Duration) replica.Credit {
	bytes := replica.BatchBytes / i.slowdown(t)
	if i.busy(t) {
		bytes = min(bytes, replica.BatchBytes/busyBatches)
	}
	return replica.Credit{Bytes: uint32(bytes), After: max(i.take(t, n), rest.Round(time.Millisecond))}
}

// slowdown is by how much background work is to be slower than it might, 1 or more.
func (i *intake) slowdown(t time.Time) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return int(intakeRate / i.mu.throttle.Rate(t))
}

// busy reports whether clients have written in the last seconds.
func (i *intake) busy(t time.Time) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.mu.throttle.Busy(t)
}

// rest is how long to rest after work that nobody waits for and that took a core so
// long: most of the time while clients write.
func (i *intake) rest(t time.Time, worked time.Duration) time.Duration {
	if !i.busy(t) {
		return 0
	}
	return worked * (workShare - 1)
}

// take takes in n bytes and gives how long to wait before the next.
func (i *intake) take(t time.Time, n int) time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.mu.throttle.Take(t, int64(n)).Round(time.Millisecond)
}

// served notes that a client's write, begun then, is on the own disk.
func (i *intake) served(begun time.Time) {
	if !defences.Yield {
		return
	}
	t := now()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.mu.throttle.Served(t, t.Sub(begun))
}

// serveBatch joins a batch of hints or of exchanged records into the log, and
// answers when it is synced.
func (db *DB) serveBatch(s served) {
	began := now()
	b, err := replica.DecodeBatch(s.body)
	if err != nil {
		db.refuse(s.to, replica.Invalid)
		return
	}
	v := db.admitNode(&replica.Request{To: b.To, Epoch: b.Epoch, Stamp: b.Stamp}, s)
	if v == nil {
		return
	}
	if !db.acceptData(v) {
		db.refuse(s.to, replica.NotReady)
		return
	}
	p := replica.BatchReply{Statuses: make([]replica.Status, len(b.Records))}
	if !b.Exchanged {
		db.intake.hinted.Store(began.UnixNano())
	}
	var own []vclock.Dot // this node's horizons when it asked for the records
	if b.Exchanged {
		o := db.sessions.find(b.Session, db.idle())
		if o == nil {
			db.refuse(s.to, replica.Stale)
			return
		}
		own = o.own
	}
	batch := make([]lsm.Record, 0, len(b.Records))
	turn := db.horizons.passing.enter()
	defer db.horizons.passing.leave(turn)
	for i := range b.Records {
		rec, status := db.admitRecord(v, &b, &b.Records[i], own)
		if p.Statuses[i] = status; status == replica.OK && !rec.Max.IsZero() {
			batch = append(batch, rec)
		}
	}
	t, rest := now(), time.Duration(0)
	if !b.Exchanged {
		rest = db.intake.rest(t, t.Sub(began))
	}
	p.Credit = db.intake.credit(t, len(s.body), rest)
	done := func(err error) {
		p.Stamp, p.Epoch = db.clock.Now(), db.view.Load().epoch.Number
		if err != nil {
			p.Status = errorStatus(err)
		}
		s.to.Reply(p.Append(nil), nil)
	}
	if len(batch) == 0 {
		done(nil)
		return
	}
	db.metrics.servedRecords.Add(uint64(len(batch)))
	db.tree.Submit(batch, done)
}

// admitRecord judges one record of a batch; own are the horizons that this node had
// when it asked for exchanged ones. OK without a record means that there is nothing to
// do. The caller is in horizons.passing.
func (db *DB) admitRecord(v *view, b *replica.Batch, r *replica.KeyRecord, own []vclock.Dot) (lsm.Record, replica.Status) {
	p := v.ring.Partition(lsm.Token(r.Key))
	switch {
	case len(r.Value) > hardRecordBytes:
		return lsm.Record{}, replica.Invalid
	case b.Epoch < v.ring.Changed(p):
		return lsm.Record{}, replica.Stale
	case !v.owns(p):
		return lsm.Record{}, replica.NotOwner
	case db.observe(&r.Record) != nil:
		return lsm.Record{}, replica.ClockSkew
	case !b.Exchanged && db.damage.bars(v, lsm.Token(r.Key)):
		return lsm.Record{}, replica.NotReady
	}
	rec, err := engineRecord(r.Key, r.Record)
	if err != nil {
		return lsm.Record{}, replica.Invalid
	}
	from := replica.Fresh
	if b.Counted {
		from = replica.Counted
	}
	if b.Exchanged {
		from = replica.Exchanged
		if defences.Promise && !db.horizons.unmoved(own, p) {
			return lsm.Record{}, replica.Behind
		}
	}
	switch db.horizons.judge(v, &rec, from) {
	case replica.Take:
		return rec, replica.OK
	case replica.Ignore:
		return lsm.Record{}, replica.OK
	}
	// A hint of siblings of which one is old: whoever has them exchanges them.
	return lsm.Record{}, replica.Behind
}

// serveHint keeps hints for other nodes, and answers when they are durable.
func (db *DB) serveHint(s served) {
	q, err := replica.DecodeHintRequest(s.body)
	if err != nil || len(q.Record.Value) > hardRecordBytes {
		db.refuse(s.to, replica.Invalid)
		return
	}
	v := db.admitNode(&q.Request, s)
	if v == nil {
		return
	}
	if db.observe(&q.Record) != nil {
		db.refuse(s.to, replica.ClockSkew)
		return
	}
	if _, err := engineRecord(q.Key, q.Record); err != nil || !v.members(q.Targets) || q.Counted && !v.epoch.Sloppy {
		db.refuse(s.to, replica.Invalid)
		return
	}
	done := func(status replica.Status) { db.answer(s.to, status) }
	switch {
	case !q.Counted:
		db.hints.take(q.Request, q.Targets, false, done)
	case !db.acceptData(v):
		db.refuse(s.to, replica.NotReady)
	default:
		db.hints.count(q.Request, q.Targets, done)
	}
}

// serveNeeds notes partitions that this node has to exchange.
func (db *DB) serveNeeds(s served) {
	n, err := replica.DecodeNeeds(s.body)
	if err != nil {
		db.refuse(s.to, replica.Invalid)
		return
	}
	v := db.admitNode(&replica.Request{To: n.To, Epoch: n.Epoch, Stamp: n.Stamp}, s)
	if v == nil {
		return
	}
	if len(n.Partitions) > maxNeeds {
		db.refuse(s.to, replica.Invalid)
		return
	}
	for _, p := range n.Partitions {
		if int(p) >= v.ring.Partitions() {
			db.refuse(s.to, replica.Invalid)
			return
		}
	}
	note := func() {
		status := replica.OK
		if err := db.exchanges.need(n.Partitions); err != nil {
			status = errorStatus(err)
		}
		db.answer(s.to, status)
	}
	if s.kept {
		note()
	} else if !db.workers.run(note) {
		db.refuse(s.to, replica.Overloaded)
	}
}
