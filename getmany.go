package kvstore

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
)

// MaxBatch bounds the keys of one GetMany and the operations of one Batch: 4,096.
const MaxBatch = replica.ManyKeys

// oneByOne bounds the keys of a GetMany or an Apply that are read or written by
// themselves at the same time.
const oneByOne = 32

// GetMany reads several keys at the level in opts, else Options.Read, with one
// message to each owner that is asked. Items come in the order of keys; of a key
// without a value the item is not Found, which is no error.
//
// Keys that could not be read are named by a *BatchError; the items of the others
// are good all the same.
func (db *DB) GetMany(ctx context.Context, keys []string, opts ...GetOption) ([]Item, error) {
	level := db.opts.Read
	for _, o := range opts {
		if c, ok := o.(Consistency); ok && c != Default {
			level = c
		}
	}
	if len(keys) > MaxBatch {
		return nil, invalid("%d keys; read at most %d at a time", len(keys), MaxBatch)
	}
	if err := db.enter(ctx); err != nil {
		return nil, err
	}
	defer db.gate.leave()
	db.metrics.gets.Add(uint64(len(keys)))
	m := manyRead{db: db, keys: keys, level: level, items: make([]Item, len(keys)), failed: newFailures(keys)}
	m.failed.read = true
	var rest []int
	for i, key := range keys {
		m.items[i].Key = key
		if err := db.checkKey(key); err != nil {
			m.failed.add(i, err)
		} else {
			rest = append(rest, i)
		}
	}
	if sessionOf(ctx) == nil && len(rest) > 1 {
		rest = m.together(ctx, rest)
	}
	eachOf(rest, func(i int) {
		it, err := db.read(ctx, keys[i], level, nil)
		if err != nil && !errors.Is(err, ErrNotFound) {
			m.failed.add(i, err)
			return
		}
		m.items[i] = it
	})
	if n := m.failed.len(); n > 0 {
		db.metrics.failedGets.Add(uint64(n))
	}
	return m.items, m.failed.err()
}

// eachOf calls f for each of all, a bounded number at a time, and waits.
func eachOf[T any](all []T, f func(T)) {
	if len(all) == 1 {
		f(all[0])
		return
	}
	var wg sync.WaitGroup
	next := make(chan T)
	for range min(oneByOne, len(all)) {
		wg.Go(func() {
			for x := range next {
				f(x)
			}
		})
	}
	for _, x := range all {
		next <- x
	}
	close(next)
	wg.Wait()
}

// A manyRead is a GetMany under way.
type manyRead struct {
	db     *DB
	keys   []string
	level  Consistency
	items  []Item
	failed *failures
}

// A share is what one owner is asked of a GetMany or an Apply.
type share struct {
	target target
	index  []int // of keys
	place  []int // this owner's place among the targets of each
	bytes  int
}

// shares collects what each owner is asked, in the order in which they turn up.
type shares struct{ all []*share }

// of gives the share of an owner.
func (s *shares) of(t target) *share {
	for _, x := range s.all {
		if x.target.uid == t.uid {
			return x
		}
	}
	x := &share{target: t}
	s.all = append(s.all, x)
	return x
}

// A keyRead is one key among those that are read together.
type keyRead struct {
	targets []target
	asked   int // targets[:asked] were
	quorum  int // owners that have to hold what is found
	state   replica.Read
}

// pending reports whether answers are still needed.
func (k *keyRead) pending() bool { return k.targets != nil && k.state.Verdict() == replica.Pending }

// together reads the keys with one message to each owner. It gives those for which
// that was not enough: owners failed, or differ and need repair.
func (m *manyRead) together(ctx context.Context, indexes []int) (rest []int) {
	db := m.db
	deadline, err := db.deadline(ctx)
	v, err2 := db.serving()
	if err != nil || err2 != nil || db.fence.await(ctx, deadline) != nil {
		return indexes // which will tell why
	}
	reads := make([]keyRead, len(m.keys))
	var first shares
	for _, i := range indexes {
		k, qe := &reads[i], QuorumError{Op: opGet}
		targets, need, err := v.enough(m.keys[i], m.level, &qe, nil)
		if err != nil || len(need.Groups) > 0 {
			continue
		}
		k.targets, k.state, k.quorum = targets, replica.NewRead(need, len(targets)), len(targets)/2+1
		if need.Count < k.quorum {
			k.quorum = 0
		}
		for range need.Count {
			m.add(&first, i, k)
		}
	}
	m.ask(ctx, v, &first, indexes, reads, deadline)
	for _, i := range indexes {
		k := &reads[i]
		s := &k.state
		if k.targets == nil || s.Verdict() != replica.Done || !s.Agreed() || s.Joined().Found() && s.Holders() < k.quorum {
			rest = append(rest, i)
			continue
		}
		it, err := db.opts.Conflicts.newItem(m.keys[i], s.Joined(), db.opts.Clock())
		if err != nil && !errors.Is(err, ErrNotFound) {
			rest = append(rest, i)
			continue
		}
		m.items[i] = it
	}
	return rest
}

// add puts a key into the share of the next of its owners, if there is room.
func (m *manyRead) add(parts *shares, i int, k *keyRead) {
	place := k.asked
	k.asked++
	if s := parts.of(k.targets[place]); s.bytes+len(m.keys[i]) <= replica.ManyBytes {
		s.index, s.place, s.bytes = append(s.index, i), append(s.place, place), s.bytes+len(m.keys[i])
	}
}

// ask sends the owners their shares and files what comes back in time. Where the
// owners asked keep it waiting it asks one more for each key, and another one after
// that.
func (m *manyRead) ask(ctx context.Context, v *view, first *shares, indexes []int, reads []keyRead, deadline time.Time) {
	replies := make(chan manyAnswer, (1+replica.MaxOwners)*len(v.nodes)) // of all that may be asked
	outstanding := m.send(v, first, replies, deadline)
	spare, timeout := time.NewTimer(spareAfter), time.NewTimer(deadline.Sub(now()))
	defer spare.Stop()
	defer timeout.Stop()
	for outstanding > 0 && slices.ContainsFunc(indexes, func(i int) bool { return reads[i].pending() }) {
		select {
		case a := <-replies:
			outstanding--
			m.file(&a, reads)
		case <-spare.C:
			spare.Reset(spareAfter)
			var more shares
			for _, i := range indexes {
				if k := &reads[i]; k.pending() && k.asked < len(k.targets) {
					m.add(&more, i, k)
				}
			}
			m.db.metrics.spareReads.Add(uint64(len(more.all)))
			outstanding += m.send(v, &more, replies, deadline)
		case <-ctx.Done():
			return
		case <-timeout.C:
			return
		}
	}
}

// send asks for shares, and gives how many answers come.
func (m *manyRead) send(v *view, parts *shares, replies chan<- manyAnswer, deadline time.Time) int {
	for _, s := range parts.all {
		q := replica.ManyRequest{To: s.target.uid, Epoch: v.epoch.Number, Stamp: m.db.clock.Now()}
		for _, i := range s.index {
			q.Records = append(q.Records, replica.KeyRecord{Key: bytesOf(m.keys[i])})
		}
		var err error
		if s.target.peer != nil {
			if err = s.target.peer.Call(replica.OpReadMany, deadline, q.AppendRead(nil), nil, manyCompletion{s, replies}, 0); err != nil {
				err = sendError(err)
			}
		} else if !m.db.readers.run(func() { replies <- manyAnswer{share: s, reply: m.db.readMany(&q)} }) {
			err = ErrOverloaded
		}
		if err != nil {
			replies <- manyAnswer{share: s, err: err}
		}
	}
	return len(parts.all)
}

// readMany reads this node's own copies.
func (db *DB) readMany(q *replica.ManyRequest) replica.ManyReply {
	p := replica.ManyReply{Answers: make([]replica.ManyAnswer, len(q.Records))}
	for i := range q.Records {
		var own []byte
		rec, err := db.readLocal(q.Records[i].Key, &own)
		if p.Answers[i].Record = rec; err != nil {
			p.Answers[i].Status = rootStatus(err)
		}
	}
	return p
}

// file notes what one owner said. What it did not say is read again, by itself.
func (m *manyRead) file(a *manyAnswer, reads []keyRead) {
	if a.err == nil && a.share.target.peer != nil {
		m.db.heed(&a.reply.Reply, a.share.target.peer)
	}
	for n, i := range a.share.index {
		k, place := &reads[i], a.share.place[n]
		if a.err != nil || a.reply.Status != replica.OK || a.reply.Answers[n].Status != replica.OK || m.db.observe(&a.reply.Answers[n].Record) != nil {
			k.state.Fail(place)
			continue
		}
		k.state.Answer(place, a.reply.Answers[n].Record)
	}
}

// serveReadMany answers with this node's copies of several keys, as far as they
// fit into one message.
func (db *DB) serveReadMany(s served) {
	s.body, s.kept = append([]byte(nil), s.body...), true
	q, err := replica.DecodeReadMany(s.body)
	if err != nil {
		db.refuse(s.to, replica.Invalid)
		return
	}
	v := db.admitNode(&replica.Request{To: q.To, Epoch: q.Epoch, Stamp: q.Stamp}, s)
	if v == nil {
		return
	}
	if !db.trusted.Load() || db.fence.raised.Load() {
		db.refuse(s.to, replica.NotReady)
		return
	}
	if !db.workers.run(func() {
		p := replica.ManyReply{Answers: make([]replica.ManyAnswer, len(q.Records))}
		size := 0
		for i := range q.Records {
			key, a := q.Records[i].Key, &p.Answers[i]
			if a.Status = db.admitKey(v, q.Epoch, key); a.Status != replica.OK {
				continue
			}
			if size > replica.ManyBytes || now().After(s.deadline) {
				a.Status = replica.Overloaded
				continue
			}
			var own []byte
			rec, err := db.readLocal(key, &own)
			if err != nil {
				a.Status = rootStatus(err)
				continue
			}
			a.Record = rec
			size += len(rec.Value)
		}
		db.metrics.servedBatches.Add(1)
		db.metrics.servedReads.Add(uint64(len(q.Records)))
		p.Stamp, p.Epoch = db.clock.Now(), db.view.Load().epoch.Number
		s.to.Reply(p.Append(nil), nil)
	}) {
		db.refuse(s.to, replica.Overloaded)
	}
}

// admitKey judges one key of a request for many.
func (db *DB) admitKey(v *view, epoch uint64, key []byte) replica.Status {
	p := v.ring.Partition(lsm.Token(key))
	switch {
	case epoch < v.ring.Changed(p):
		return replica.Stale
	case !v.owns(p):
		return replica.NotOwner
	}
	return replica.OK
}

// rootStatus is the status behind an error of readLocal.
func rootStatus(err error) replica.Status {
	if errors.Is(err, errDamaged) {
		return replica.Damaged
	}
	return replica.NotReady
}
