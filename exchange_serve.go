package kvstore

import (
	"math"
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
	// up to maxCompared records' digests. maxSessionQueue bounds those that wait.
	maxSessions     = 8
	maxSessionQueue = 64
	// sessionIdle is how much longer than MaxRequest one is kept after its last
	// message.
	sessionIdle = 5 * time.Second
)

// A session is an exchange that another node asked for, as the answerer keeps it.
type session struct {
	comparison
	own  []vclock.Dot // this node's horizons when it was opened
	shot *shot
	tree *merkle.Tree
}

// sessions are those that are open.
type sessions struct {
	// slots has an element for each: capacity maxSessions. Who waits for one is
	// served in turn, so that every other owner has its own.
	slots chan struct{}
	mu    struct {
		sync.Mutex
		last    uint64
		waiting int
		open    map[uint64]*openSession
	}
}

// An openSession is one that has a slot.
type openSession struct {
	*session             // nil while it is built
	expiry   *time.Timer // gives it up when the asker is gone
}

func newSessions() *sessions {
	s := &sessions{slots: make(chan struct{}, maxSessions)}
	s.mu.open = map[uint64]*openSession{}
	return s
}

// reserve waits for a slot, or reports that there is none until then.
func (s *sessions) reserve(until time.Time, idle time.Duration, stop <-chan struct{}) (id uint64, ok bool) {
	if !s.wait(until, stop) {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.last++
	id = s.mu.last
	s.mu.open[id] = &openSession{expiry: time.AfterFunc(idle, func() { s.end(id) })}
	return id, true
}

// wait takes a slot.
func (s *sessions) wait(until time.Time, stop <-chan struct{}) bool {
	s.mu.Lock()
	full := s.mu.waiting == maxSessionQueue
	if !full {
		s.mu.waiting++
	}
	s.mu.Unlock()
	if full {
		return false
	}
	defer func() {
		s.mu.Lock()
		s.mu.waiting--
		s.mu.Unlock()
	}()
	timeout := time.NewTimer(until.Sub(now()))
	defer timeout.Stop()
	select {
	case s.slots <- struct{}{}:
		return true
	case <-timeout.C:
	case <-stop:
	}
	return false
}

// find gives a session that was opened.
func (s *sessions) find(id uint64, idle time.Duration) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.mu.open[id]
	if o == nil || o.session == nil {
		return nil
	}
	o.expiry.Reset(idle)
	return o.session
}

// end frees a session's slot, if it has one still.
func (s *sessions) end(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.mu.open[id]; o != nil {
		o.expiry.Stop()
		delete(s.mu.open, id)
		<-s.slots
	}
}

// fill puts what was built into a reserved session, if it is still there.
func (s *sessions) fill(id uint64, built *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.mu.open[id]; o != nil {
		o.session = built
	}
}

// idle is how long a session is kept after its last message.
func (db *DB) idle() time.Duration { return db.opts.MaxRequest + sessionIdle }

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
	o := db.sessions.find(id, db.idle())
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
	if !db.trusted.Load() {
		db.refuse(s.to, replica.NotReady)
		return
	}
	if o.Epoch != v.epoch.Number {
		db.refuse(s.to, replica.Stale)
		return
	}
	id, ok := db.sessions.reserve(s.deadline.Add(-db.opts.MaxRequest/2), db.idle(), db.stop)
	if !ok {
		db.refuse(s.to, replica.Overloaded)
		return
	}
	built := &session{comparison: comparison{Range: o.Range, routine: o.Routine, patient: o.Patient, cut: o.Cut, floors: db.horizons.floors(v), compared: v.shared(o.From)}}
	built.own = slices.Clone(built.floors)
	if len(o.Partitions) > 0 {
		built.compared = within(o.Partitions, built.compared)
	}
	if !built.spare(db.damage.incomplete(v), o.Rest, len(o.Partitions) == 0) {
		db.sessions.end(id)
		db.refuse(s.to, replica.Damaged)
		return
	}
	if !o.Rest && db.damage.outrun(v, replica.Floors(o.Floors, len(built.floors)), built.compared) {
		db.sessions.end(id)
		db.refuse(s.to, replica.Damaged)
		return
	}
	replica.LowerFloors(built.floors, o.Floors)
	p := replica.ExchangeOpened{Reply: replica.Reply{Stamp: db.clock.Now(), Epoch: v.epoch.Number}, Session: id, Floors: replica.FloorRuns(built.own)}
	if !built.sameFloors(&o) {
		db.sessions.end(id)
		p.Session, p.Shape = 0, merkle.NewShape(o.Lo, o.Hi, 0)
		s.to.Reply(p.Append(nil), nil) // to be opened again, with these floors
		return
	}
	if p.Status = db.build(built, o.Count); p.Status != replica.OK {
		db.sessions.end(id)
		db.refuse(s.to, p.Status)
		return
	}
	if built.lost != nil && !built.rest {
		p.Lost = bitmap(v.partitionsWhere(func(p int) bool { return built.lost[p] }), v.ring.Partitions())
	}
	p.Root, p.Shape = built.tree.Root(), built.tree.Shape()
	db.sessions.fill(id, built)
	s.to.Reply(p.Append(nil), nil)
}

// sameFloors reports whether the asker's floors, where it compares, are as low as the
// session's.
func (o *session) sameFloors(asked *replica.OpenExchange) bool {
	theirs := make([]vclock.Dot, len(o.floors))
	for p := range theirs {
		theirs[p] = horizonDot(math.MaxUint64)
	}
	replica.LowerFloors(theirs, asked.Floors)
	for p := range theirs {
		if o.compared(p) && theirs[p] != o.floors[p] {
			return false
		}
	}
	return true
}

// build scans the session's range, or as much of it as goes into one piece. count is
// what the other side has of it.
func (db *DB) build(o *session, count uint64) replica.Status {
	var err error
	if o.shot, _, err = db.take(&o.comparison); err != nil {
		return errorStatus(err)
	}
	records := max(min(count, maxCompared), uint64(len(o.shot.tokens)))
	if o.tree, err = o.shot.tree(merkle.NewShape(o.Lo, o.Hi, records)); err != nil {
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
	size, began, until := 0, now(), db.soon(&o.comparison)
	for i := range items {
		if i%settleStretch == settleStretch-1 {
			if !db.pause(db.rest(&o.comparison, now().Sub(began))) {
				db.refuse(s.to, replica.NotReady)
				return
			}
			began = now()
		}
		if m.Answered > 0 && now().After(until) {
			break
		}
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
