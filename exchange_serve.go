package kvstore

import (
	"slices"
	"sync"
	"time"

	"example.com/kvstore/lsm"
	"example.com/kvstore/merkle"
	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

const (
	// maxSessions bounds the exchanges that others may have open here: each holds
	// up to maxCompared records' digests.
	maxSessions = 4
	// sessionIdle is how long one is kept after its last message.
	sessionIdle = 15 * time.Second
	// maxAnswered is how many times maxCompared a range may hold here, where the
	// asker has less.
	maxAnswered = 4
)

// A session is an exchange that another node asked for, as the answerer keeps it.
type session struct {
	comparison
	own  []vclock.Dot // this node's horizons when it was opened
	shot *shot
	tree *merkle.Tree
	used time.Time
}

// sessions are those that are open.
type sessions struct {
	mu struct {
		sync.Mutex
		last uint64
		open map[uint64]*session
	}
}

// reserve makes room for one more session, or reports that there is none.
func (s *sessions) reserve(t time.Time) (id uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, o := range s.mu.open {
		if t.Sub(o.used) > sessionIdle {
			delete(s.mu.open, id)
		}
	}
	if len(s.mu.open) >= maxSessions {
		return 0, false
	}
	s.mu.last++
	s.mu.open[s.mu.last] = &session{used: t}
	return s.mu.last, true
}

// find gives a session that was opened.
func (s *sessions) find(id uint64, t time.Time) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.mu.open[id]
	if o == nil || o.tree == nil {
		return nil
	}
	o.used = t
	return o
}

func (s *sessions) end(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.open, id)
}

// fill puts what was built into a reserved session.
func (s *sessions) fill(id uint64, built *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.open[id] = built
}

// serveExchange answers one message of an exchange, on a worker.
func (db *DB) serveExchange(s served) {
	if !s.kept {
		s.body, s.kept = append([]byte(nil), s.body...), true
		if !db.workers.run(func() { db.serveExchange(s) }) {
			db.refuse(s.to, replica.Overloaded)
		}
		return
	}
	if len(s.body) > 0 && s.body[0] == replica.ExchangeOpen {
		db.serveOpen(s)
		return
	}
	kind, id, rest, err := replica.DecodeAsk(s.body)
	if err != nil {
		db.refuse(s.to, replica.Invalid)
		return
	}
	o := db.sessions.find(id, now())
	switch {
	case kind == replica.ExchangeEnd:
		db.sessions.end(id)
		db.answer(s.to, replica.OK)
	case o == nil:
		db.refuse(s.to, replica.Stale)
	case kind == replica.ExchangeAsk:
		db.answerAsk(s, o, rest)
	case kind == replica.ExchangeVersions:
		db.answerVersions(s, o, rest)
	default:
		db.refuse(s.to, replica.Invalid)
	}
}

// serveOpen builds this node's tree for an exchange.
func (db *DB) serveOpen(s served) {
	o, err := replica.DecodeOpenExchange(s.body)
	if err != nil {
		db.refuse(s.to, replica.Invalid)
		return
	}
	v := db.admitNode(&replica.Request{To: o.To, Epoch: o.Epoch, Stamp: o.Stamp}, s)
	if v == nil {
		return
	}
	if o.Epoch != v.epoch.Number {
		db.refuse(s.to, replica.Stale)
		return
	}
	id, ok := db.sessions.reserve(now())
	if !ok {
		db.refuse(s.to, replica.Overloaded)
		return
	}
	built := &session{comparison: comparison{Range: o.Range, routine: o.Routine, cut: o.Cut, floors: db.horizons.floors(v), compared: v.shared(o.From)}}
	built.own = slices.Clone(built.floors)
	if len(o.Partitions) > 0 {
		built.compared = within(o.Partitions, built.compared)
	}
	replica.LowerFloors(built.floors, o.Floors)
	p := replica.ExchangeOpened{Reply: replica.Reply{Stamp: db.clock.Now(), Epoch: v.epoch.Number}, Session: id, Floors: replica.FloorRuns(built.floors)}
	if p.Status = db.build(built, o.Count); p.Status != replica.OK {
		db.sessions.end(id)
		db.refuse(s.to, p.Status)
		return
	}
	p.Root, p.Shape = built.tree.Root(), built.tree.Shape()
	built.used = now()
	if p.Root == (merkle.Digest{}) && o.Count == 0 {
		db.sessions.end(id) // nothing on either side
	} else {
		db.sessions.fill(id, built)
	}
	s.to.Reply(p.Append(nil), nil)
}

// build scans the session's range. count is what the other side has of it.
func (db *DB) build(o *session, count uint64) replica.Status {
	hi := o.Hi
	var err error
	if o.shot, _, err = db.take(&o.comparison, maxAnswered*maxCompared); err != nil {
		return errorStatus(err)
	}
	if o.Hi != hi {
		return replica.Overloaded
	}
	records := max(count, uint64(len(o.shot.tokens)))
	if o.tree, err = o.shot.tree(merkle.NewShape(o.Lo, o.Hi, min(records, maxAnswered*maxCompared))); err != nil {
		return replica.Damaged
	}
	return replica.OK
}

// answerAsk answers a question about the tree.
func (db *DB) answerAsk(s served, o *session, question []byte) {
	p := replica.Reply{Stamp: db.clock.Now(), Epoch: db.view.Load().epoch.Number}
	body, err := o.tree.Answer(p.AppendHead(nil), question, o.shot.read)
	if err != nil {
		db.refuse(s.to, replica.Invalid)
		return
	}
	s.to.Reply(body, nil)
}

// answerVersions compares what the asker holds at some tokens with what is here now.
func (db *DB) answerVersions(s served, o *session, rest []byte) {
	items, err := replica.DecodeTokenVersions(rest)
	if err != nil || len(items) == 0 {
		db.refuse(s.to, replica.Invalid)
		return
	}
	m := replica.ExchangeMissing{Reply: replica.Reply{Stamp: db.clock.Now(), Epoch: db.view.Load().epoch.Number}}
	size := 0
	for i := range items {
		own, err := db.atToken(&o.comparison, items[i].Token)
		if err != nil {
			db.refuse(s.to, errorStatus(err))
			return
		}
		send, want := items[i].Compare(own)
		more := 0
		for _, j := range send {
			more += own[j].Size()
		}
		for _, key := range want {
			more += 2 + len(key)
		}
		if size+more > replica.BatchBytes && m.Answered > 0 {
			break
		}
		size += more
		for _, j := range send {
			m.Records = append(m.Records, own[j])
		}
		m.Wanted = append(m.Wanted, want...)
		m.Answered++
	}
	s.to.Reply(m.Append(nil), nil)
}

// joinExchanged joins records that another owner held when it was asked, at which time
// this node had the given horizons, and returns when they are synced. It gives how
// many. A record that may not be taken any more is an error.
func (db *DB) joinExchanged(v *view, b *replica.Batch, own []vclock.Dot) (int, error) {
	var batch []lsm.Record
	synced := make(chan error, 1)
	turn := db.horizons.passing.enter()
	var refused replica.Status
	for i := range b.Records {
		rec, status := db.admitRecord(v, b, &b.Records[i], own)
		switch {
		case status != replica.OK:
			refused = status
		case !rec.Max.IsZero():
			batch = append(batch, rec)
		}
	}
	if len(batch) > 0 {
		db.tree.Submit(batch, func(err error) { synced <- err })
	}
	db.horizons.passing.leave(turn)
	if len(batch) > 0 {
		if err := <-synced; err != nil {
			return 0, engineError(err)
		}
	}
	if refused != replica.OK {
		return len(batch), statusError(refused)
	}
	return len(batch), nil
}
