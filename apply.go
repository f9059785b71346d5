package kvstore

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// MaxBatchBytes bounds the keys and values of one Batch together: 8 MiB.
const MaxBatchBytes = replica.ManyBytes

// A Batch collects writes for Apply. The zero Batch is ready. It is not for
// concurrent use.
type Batch struct {
	ops   []batchOp
	bytes int
}

// A batchOp is one Put or Delete of a batch.
type batchOp struct {
	op, key string
	value   []byte
	put     []PutOption
	delete  []DeleteOption
}

// Put adds a Put. value is copied.
func (b *Batch) Put(key string, value []byte, opts ...PutOption) {
	b.ops = append(b.ops, batchOp{op: opPut, key: key, value: append([]byte{}, value...), put: opts})
	b.bytes += len(key) + len(value)
}

// Delete adds a Delete.
func (b *Batch) Delete(key string, opts ...DeleteOption) {
	b.ops = append(b.ops, batchOp{op: opDelete, key: key, delete: opts})
	b.bytes += len(key)
}

// Len is the number of operations.
func (b *Batch) Len() int { return len(b.ops) }

// All gives the key and value of each operation, a nil value for a Delete. Neither
// may be modified.
func (b *Batch) All() iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for i := range b.ops {
			if !yield(b.ops[i].key, b.ops[i].value) {
				return
			}
		}
	}
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	clear(b.ops)
	b.ops, b.bytes = b.ops[:0], 0
}

// Apply carries out the writes of b, at the level in opts, else Options.Write,
// unless one has its own. Plain ones go to each owner in one message, and into its
// log as one group; those to one key take effect in their order, so that of plain
// ones the last wins. It is not atomic: each write succeeds or fails by itself. A
// *BatchError names those that failed.
//
// A batch has at most MaxBatch operations and MaxBatchBytes bytes; a larger one is
// ErrInvalid, and nothing of it is done.
func (db *DB) Apply(ctx context.Context, b *Batch, opts ...BatchOption) error {
	level := db.opts.Write
	for _, o := range opts {
		if c, ok := o.(Consistency); ok && c != Default {
			level = c
		}
	}
	if b == nil {
		return invalid("nil batch")
	}
	if len(b.ops) > MaxBatch || b.bytes > MaxBatchBytes {
		return invalid("a batch of %d operations with %d bytes; at most %d with %d bytes", len(b.ops), b.bytes, MaxBatch, MaxBatchBytes)
	}
	if err := db.enter(ctx); err != nil {
		return err
	}
	defer db.gate.leave()
	keys := make([]string, len(b.ops))
	m := manyWrite{db: db, writes: make([]pendingWrite, len(b.ops))}
	for i := range b.ops {
		o := &b.ops[i]
		keys[i] = o.key
		w := &m.writes[i]
		*w = pendingWrite{op: o.op, key: o.key, level: level, causal: db.opts.Conflicts.causal(), rec: replica.Record{Value: o.value, Tombstone: o.op == opDelete}}
	}
	m.failed = newFailures(keys)
	together, turns := m.arrange(b, sessionOf(ctx) != nil || len(b.ops) == 1)
	last := map[string]int{} // by key: of plain writes only the last leaves anything
	for _, i := range together {
		last[keys[i]] = i
	}
	sent := slices.DeleteFunc(slices.Clone(together), func(i int) bool { return last[keys[i]] != i })
	if len(sent) > 0 {
		for _, i := range m.together(ctx, sent) {
			turns = append(turns, []int{i})
		}
	}
	eachOf(turns, func(turn []int) {
		for _, i := range turn {
			if _, err := db.perform(ctx, &m.writes[i]); err != nil {
				m.failed.add(i, err)
			}
		}
	})
	for _, i := range together {
		m.failed.copy(i, last[keys[i]])
	}
	return m.failed.err()
}

// arrange checks the writes and says how they go: together, or one by one, and in
// turns where they are to one key. Causal and sloppy ones go one by one, and so do all others to
// the same key, or all there are when alone says so.
func (m *manyWrite) arrange(b *Batch, alone bool) (together []int, turns [][]int) {
	var checked []int
	turn := map[string]int{} // by key
	for i := range b.ops {
		w := &m.writes[i]
		err := m.db.checkKey(w.key)
		if err == nil && w.op == opPut {
			err = m.db.checkPut(w, b.ops[i].put)
		}
		w.deleteOptions(b.ops[i].delete)
		if err != nil {
			m.failed.add(i, err)
			continue
		}
		checked = append(checked, i)
		if _, ok := turn[w.key]; !ok && (w.causal || w.sloppy || alone) {
			turn[w.key] = len(turns)
			turns = append(turns, nil)
		}
	}
	for _, i := range checked {
		if n, ok := turn[m.writes[i].key]; ok {
			turns[n] = append(turns[n], i)
		} else {
			together = append(together, i)
		}
	}
	return together, turns
}

// A manyWrite is an Apply under way.
type manyWrite struct {
	db     *DB
	writes []pendingWrite
	failed *failures
}

// A keyWrite is one write among those that go together.
type keyWrite struct {
	targets []target
	state   replica.Write
	answers []answer
	unknown bool
	pending int
	qe      QuorumError
}

// together sends the writes with one message to each owner. It gives those that
// must be sent again by themselves: superseded ones, and those that met a newer
// epoch and were stored nowhere.
func (m *manyWrite) together(ctx context.Context, indexes []int) (rest []int) {
	db := m.db
	deadline, err := db.deadline(ctx)
	v, err2 := db.serving()
	if err = errors.Join(err, err2); err != nil || !db.acceptData(v) {
		return indexes // each finds out why
	}
	states := make([]keyWrite, len(m.writes))
	var parts shares
	for _, i := range indexes {
		w, k := &m.writes[i], &states[i]
		k.qe = QuorumError{Op: w.op, Key: w.key, Level: w.level, outcome: NotApplied}
		targets, need, err := v.enough(w.key, w.level, &k.qe, nil)
		if err != nil {
			m.failed.add(i, err)
			continue
		}
		stamp, err := db.stamp(ctx, v, 0, deadline)
		if err != nil {
			m.failed.add(i, k.qe.fail(err))
			continue
		}
		db.countWrite(w.op)
		w.rec.Dot = vclock.Dot{Stamp: stamp, Actor: db.actor}
		k.targets, k.state = targets, replica.NewWrite(need, len(targets))
		k.answers, k.pending = make([]answer, len(targets)), len(targets)
		for j := range targets {
			s := parts.of(targets[j])
			s.index, s.place = append(s.index, i), append(s.place, j)
		}
	}
	start := now()
	replies := m.send(v, parts.all, deadline)
	m.collect(ctx, v, replies, len(parts.all), states, start, deadline)
	for _, i := range indexes {
		k, w := &states[i], &m.writes[i]
		if k.targets == nil {
			continue
		}
		acked := k.state.Acked()
		switch k.state.Verdict() {
		case replica.Done:
			continue
		case replica.Restamp:
			db.metrics.restamps.Add(1)
			w.above, w.tried = k.state.Newer(), true
			rest = append(rest, i)
			continue
		}
		if acked > 0 || k.unknown || k.pending > 0 {
			k.qe.outcome = Unknown
		} else if db.view.Load().epoch.Number > v.epoch.Number {
			rest = append(rest, i)
			continue
		}
		k.qe.Received, k.qe.Replicas = acked, replicaErrors(k.targets, k.answers, start)
		m.failed.add(i, k.qe.fail(waitError(ctx, k.state.Verdict())))
		db.metrics.failedWrites.Add(1)
	}
	return rest
}

// A manyAnswer is what one owner said of its share.
type manyAnswer struct {
	share   *share
	reply   replica.ManyReply
	err     error // instead; refused says that nothing was stored then
	refused bool
}

// A manyCompletion hands a peer's answer to whoever collects them.
type manyCompletion struct {
	share *share
	to    chan<- manyAnswer
}

// Complete takes the answer. It runs on a connection's reader or on the
// transport's sweeper; the channel has room.
func (c manyCompletion) Complete(_ uint64, body []byte, err error) {
	a := manyAnswer{share: c.share}
	if err != nil {
		a.err, a.refused = callError(err), !outcomeUnknown(err)
	} else {
		a.reply, a.err = replica.DecodeManyReply(bytes.Clone(body), len(c.share.index))
	}
	c.to <- a
}

// send gives each owner its share. One answer comes for each.
func (m *manyWrite) send(v *view, parts []*share, deadline time.Time) <-chan manyAnswer {
	db := m.db
	replies := make(chan manyAnswer, len(parts))
	for _, s := range parts {
		q := replica.ManyRequest{To: s.target.uid, Epoch: v.epoch.Number, Stamp: db.clock.Now()}
		for _, i := range s.index {
			q.Records = append(q.Records, replica.KeyRecord{Key: bytesOf(m.writes[i].key), Record: m.writes[i].rec})
		}
		if s.target.peer == nil {
			db.submitMany(v, &q, func(p replica.ManyReply) { replies <- manyAnswer{share: s, reply: p} })
			continue
		}
		if err := s.target.peer.Call(replica.OpWriteMany, deadline, q.AppendWrite(nil), nil, manyCompletion{s, replies}, 0); err != nil {
			replies <- manyAnswer{share: s, err: sendError(err), refused: true}
		}
	}
	return replies
}

// collect files answers until all writes are decided. What comes later it leaves to
// a worker, which has hints kept for owners that missed an acknowledged write.
func (m *manyWrite) collect(ctx context.Context, v *view, replies <-chan manyAnswer, shares int, states []keyWrite, start, deadline time.Time) {
	timeout := time.NewTimer(deadline.Sub(now()))
	defer timeout.Stop()
	came := 0
	for came < shares && undecided(states) {
		select {
		case a := <-replies:
			came++
			m.file(&a, states, start)
			continue
		case <-ctx.Done():
		case <-timeout.C:
		}
		break
	}
	m.finish(v, replies, came, states, deadline)
}

// undecided reports whether the outcome of some write is open.
func undecided(states []keyWrite) bool {
	for i := range states {
		if states[i].targets != nil && states[i].state.Verdict() == replica.Pending {
			return true
		}
	}
	return false
}

// file notes what one owner said.
func (m *manyWrite) file(a *manyAnswer, states []keyWrite, start time.Time) {
	if a.err == nil && a.share.target.peer != nil {
		m.db.heed(&a.reply.Reply, a.share.target.peer)
	}
	for n, i := range a.share.index {
		k, place := &states[i], a.share.place[n]
		status, dot, err := a.reply.Status, vclock.Dot{}, a.err
		if err == nil && status == replica.OK && defences.BatchStatus {
			status, dot = a.reply.Answers[n].Status, a.reply.Answers[n].Dot
		}
		k.pending--
		switch {
		case err != nil:
			k.unknown = k.unknown || !a.refused
			k.state.Fail(place)
		case status == replica.OK, status == replica.Superseded && !defences.Restamp:
			k.state.Ack(place)
		case status == replica.Superseded && m.db.clock.Observe(dot.Stamp) == nil:
			k.state.Superseded(place, dot)
			err = errSuperseded
		case status == replica.Superseded:
			k.unknown, err = true, ErrClockSkew
			k.state.Fail(place)
		default:
			k.unknown = k.unknown || status == replica.Uncertain
			k.state.Fail(place)
			err = statusError(status)
		}
		k.answers[place] = answer{done: true, err: err, took: now().Sub(start)}
	}
}

// finish has hints kept, once the owners have answered, for those that missed what
// was acknowledged.
func (m *manyWrite) finish(v *view, replies <-chan manyAnswer, came int, states []keyWrite, deadline time.Time) {
	type miss struct {
		q      replica.Request
		states *keyWrite
		lacks  map[int]bool // places
	}
	misses := map[int]*miss{}
	for i := range states {
		k := &states[i]
		if k.targets == nil || k.state.Verdict() != replica.Done || k.state.Acked() == len(k.targets) {
			continue
		}
		x := &miss{lacks: map[int]bool{}, states: k}
		x.q = replica.Request{Epoch: v.epoch.Number, Key: bytes.Clone(bytesOf(m.writes[i].key)), Record: m.writes[i].rec}
		for j := range k.targets {
			if err := k.answers[j].err; !k.answers[j].done || err != nil && err != errSuperseded {
				x.lacks[j] = true
			}
		}
		if len(x.lacks) > 0 {
			misses[i] = x
		}
	}
	if len(misses) == 0 {
		return
	}
	hint := func() {
		for i := range states { // in order
			x := misses[i]
			if x == nil {
				continue
			}
			var owners []uint64
			for j := range x.states.targets {
				if x.lacks[j] {
					owners = append(owners, x.states.targets[j].uid)
				}
			}
			if len(owners) > 0 && defences.Hints {
				m.db.hints.take(x.q, owners, true, nil)
			}
		}
	}
	outstanding := cap(replies) - came
	if outstanding == 0 || !m.db.workers.run(func() {
		timeout := time.NewTimer(deadline.Sub(now()) + time.Second)
		defer timeout.Stop()
		for range outstanding {
			var a manyAnswer
			select {
			case a = <-replies: // the transport ends every call at the deadline
			case <-timeout.C: // but a stuck disk does not
				hint()
				return
			}
			for n, i := range a.share.index {
				ok := a.err == nil && a.reply.Status == replica.OK
				if s := replica.NotReady; ok {
					s = a.reply.Answers[n].Status
					ok = s == replica.OK || s == replica.Superseded
				}
				if x := misses[i]; ok && x != nil {
					delete(x.lacks, a.share.place[n])
				}
			}
		}
		hint()
	}) {
		hint()
	}
}

// submitMany joins records into the own log and answers when they are synced, or
// refused. The records may be re-used on return; done must not block.
func (db *DB) submitMany(v *view, q *replica.ManyRequest, done func(replica.ManyReply)) {
	p := replica.ManyReply{Answers: make([]replica.ManyAnswer, len(q.Records))}
	var batch []lsm.Record
	var index []int
	turn := db.horizons.passing.enter()
	defer db.horizons.passing.leave(turn)
	for i := range q.Records {
		r := &q.Records[i]
		a := &p.Answers[i]
		a.Status = db.admitKey(v, q.Epoch, r.Key)
		switch {
		case a.Status != replica.OK:
			continue
		case r.Causal || len(r.Value) > hardValueBytes:
			a.Status = replica.Invalid
			continue
		case db.heedStamp(r.Dot.Stamp) != nil:
			a.Status = replica.ClockSkew
			continue
		}
		rec, err := engineRecord(r.Key, r.Record)
		if err != nil {
			a.Status = replica.Invalid
			continue
		}
		if db.damage.bars(v, rec.Token) {
			a.Status = replica.NotReady
			continue
		}
		if db.horizons.judge(v, &rec, replica.Fresh) != replica.Take {
			a.Status = replica.Behind
			continue
		}
		batch, index = append(batch, rec), append(index, i)
	}
	synced := func(err error) {
		p.Stamp, p.Epoch = db.clock.Now(), db.view.Load().epoch.Number
		for n, i := range index {
			a := &p.Answers[i]
			if err != nil {
				a.Status = errorStatus(err)
			} else if newer := batch[n].Newer; !newer.IsZero() {
				a.Status, a.Dot = replica.Superseded, newer
			}
		}
		done(p)
	}
	if len(batch) == 0 {
		synced(nil)
		return
	}
	db.tree.Submit(batch, synced)
}

// serveWriteMany joins several writes of a coordinator into the log, as one group.
func (db *DB) serveWriteMany(s served) {
	q, err := replica.DecodeWriteMany(s.body)
	if err != nil {
		db.refuse(s.to, replica.Invalid)
		return
	}
	v := db.admitNode(&replica.Request{To: q.To, Epoch: q.Epoch, Stamp: q.Stamp}, s)
	if v == nil {
		return
	}
	if !db.acceptData(v) {
		db.park(s, func() error { return db.fence.await(db.background, s.deadline) })
		return
	}
	db.metrics.servedBatches.Add(1)
	db.metrics.servedWrites.Add(uint64(len(q.Records)))
	to := s.to
	db.submitMany(v, &q, func(p replica.ManyReply) { to.Reply(p.Append(nil), nil) })
}
