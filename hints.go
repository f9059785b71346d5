package kvstore

import (
	"bytes"
	"cmp"
	"iter"
	"maps"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

const (
	// hintQueueBytes bounds the hints that wait to be stored; beyond it their
	// partitions are marked instead.
	hintQueueBytes = 8 << 20
	// hintPoll is how often a node that keeps hints looks whether a target is
	// back.
	hintPoll = 250 * time.Millisecond
	// hintGather is how long hints wait for company, to be stored with one sync, and
	// hintSoon how long if somebody waits for them. (It also takes the loop out of the
	// instant in which the log answered: which of the two runs first then is chance.)
	hintGather = 20 * time.Millisecond
	hintSoon   = 2 * time.Millisecond
	// hintStretch is how many hints are stored or deleted before others get their turn.
	hintStretch = 16
	// maxNeeds bounds the partitions named in one message.
	maxNeeds = 4096
)

// hints keeps acknowledged writes for owners that missed them, on disk, and
// replays them when the owner is back. One loop owns the state and is the only
// one to write their keys; others leave events in its inbox.
//
// A hint is deleted only when the owner has the record durably, or refused it for good.
//
// Hints count towards a level where the cluster was formed with Options.SloppyQuorum
// and the write is Sloppy. Such a hint is refused when there is no room, is taken only
// above the floor, and lies above the floor for as long as it is here. Invariant: no
// horizon is above any member's floor. So no owner forgets the tombstone of an older
// write, or refuses the newer one, while it is on its way.
type hints struct {
	db *DB
	// kick and soon, of capacity 1, wake the loop; soon where somebody waits.
	kick, soon chan struct{}
	mu         struct {
		sync.Mutex
		in    []hintEvent
		bytes int // of the records in in
		marks map[replica.Mark]bool
	}

	// Owned by loop.
	handoff *replica.Handoff
	marked  map[replica.Mark]bool // those on disk
	passes  map[uint64]*hintPass  // by target
	floor   uint64                // a stamp, durable
	// low is below or at the lowest stamp of the counted hints that are here; unsure says
	// that there may be fewer of them by now.
	low    uint64
	unsure bool

	// pending is a snapshot for Status, by target.
	pending atomic.Pointer[map[uint64]HintStatus]
}

// A HintStatus is what a node keeps for another one.
type HintStatus struct {
	// Hints are writes that it missed, of so many Bytes on disk.
	Hints int
	Bytes int64
	// Partitions are those that had no room for hints: the other node exchanges
	// them with their owners when it is back.
	Partitions int
}

// A hintEvent is something for the loop: a write that owners missed, or the answer
// to a batch.
type hintEvent struct {
	rec     replica.KeyRecord
	targets []uint64 // the owners
	epoch   uint64
	route   bool                 // to a fallback, if there is one
	counted bool                 // refused, where others are replaced by a mark
	refused replica.Status       // why, by then
	done    func(replica.Status) // told when the hints are durable; may be nil

	raise *floorRaise // instead

	batch *hintBatch // answered
	reply replica.BatchReply
	err   error
}

// A floorRaise asks for a higher floor.
type floorRaise struct {
	to    uint64
	again bool // the one there is may have been lost from the disk
	done  func(status replica.Status, floor uint64)
}

// A hintBatch is on its way to a target, hints or marks.
type hintBatch struct {
	h      *hints
	target uint64
	keys   [][]byte // in the system key space
	stamps []uint64 // of the hints there when they were read
	// counted says that they all are.
	counted bool
	marks   []replica.Mark
	worked  time.Duration // to read them
}

// A hintPass walks once over all hints for one target.
type hintPass struct {
	next func() (lsm.Record, error, bool)
	stop func()
	held *storedHint // read, and without room in the last batch
}

// A storedHint is a hint and the key and stamp under which it is stored.
type storedHint struct {
	replica.Hint
	key   []byte
	stamp uint64
}

func newHints(db *DB) *hints {
	h := &hints{db: db, kick: make(chan struct{}, 1), soon: make(chan struct{}, 1), handoff: replica.NewHandoff(db.opts.HintBytes),
		marked: map[replica.Mark]bool{}, passes: map[uint64]*hintPass{}, low: math.MaxUint64}
	h.mu.marks = map[replica.Mark]bool{}
	h.pending.Store(&map[uint64]HintStatus{})
	return h
}

// load counts what an earlier start left.
func (h *hints) load() error {
	var err error
	if h.floor, err = h.db.sys.uint64(sysHintFloor); err != nil {
		return err
	}
	if h.db.damage.salvaged { // it may be lost
		h.floor = max(h.floor, vclock.NewStamp(h.db.opts.Clock().Add(h.db.opts.MaxClockOffset)))
	}
	for rec, err := range h.db.tree.Scan(firstSystem, systemToken-1) {
		if err != nil {
			return err
		}
		if rec.Kind != lsm.Value || !defences.HintLoad {
			continue
		}
		if hint, err := replica.DecodeHint(rec.Key, rec.Value); err == nil {
			h.handoff.Kept(hint.Target, 1, int64(len(rec.Key)+len(rec.Value)))
			if hint.Counted {
				h.low = min(h.low, lowestStamp(&hint.KeyRecord))
				h.db.fence.data.Store(true)
			}
		} else if mark, err := replica.DecodeMark(rec.Key); err == nil {
			h.marked[mark] = true
			h.handoff.Marked(mark.Target, 1)
		}
	}
	h.publish()
	return nil
}

// missed has hints kept of an acknowledged write for the owners that did not say
// that they have it: at the first live fallback of the preference list, else here.
// It does not block. The request encodes the write and is not kept.
func (h *hints) missed(request []byte, owners []uint64) {
	if !defences.Hints {
		return
	}
	if q, err := replica.DecodeWrite(request); err == nil {
		h.take(q, owners, true, nil)
	}
}

// take hands hints to the loop, or marks the partition where too many wait.
func (h *hints) take(q replica.Request, owners []uint64, route bool, done func(replica.Status)) {
	h.put(q, hintEvent{route: route, targets: owners, done: done})
}

// count hands counted hints to the loop. done gets OK when they are durable.
func (h *hints) count(q replica.Request, owners []uint64, done func(replica.Status)) {
	if h.db.damage.barred.Load() != nil { // the floor is not what it was
		done(replica.NotReady)
		return
	}
	h.put(q, hintEvent{counted: true, targets: owners, done: done})
}

func (h *hints) put(q replica.Request, e hintEvent) {
	v := h.db.view.Load()
	if v == nil {
		e.finish(replica.NotReady)
		return
	}
	e.epoch = v.epoch.Number
	e.rec = replica.KeyRecord{Key: bytes.Clone(q.Key), Record: q.Record}
	e.rec.Value = bytes.Clone(q.Record.Value)
	h.mu.Lock()
	full := h.mu.bytes+e.rec.Size() > hintQueueBytes
	switch {
	case !full:
		h.mu.in = append(h.mu.in, e)
		h.mu.bytes += e.rec.Size()
	case !e.counted:
		for _, uid := range e.targets {
			h.mu.marks[h.db.markOf(uid, q.Key)] = true
		}
	}
	h.mu.Unlock()
	if full {
		e.finish(replica.Overloaded)
	}
	h.wake(e.done != nil)
}

// finish tells who waits.
func (e *hintEvent) finish(status replica.Status) {
	if e.done != nil {
		e.done(status)
	}
}

// raiseFloor raises the floor to a stamp, or as far as the counted hints that are here
// allow, durably, and gives it. It waits until then, at most.
func (h *hints) raiseFloor(to uint64, again bool, until time.Time) (status replica.Status, floor uint64) {
	type answer struct {
		status replica.Status
		floor  uint64
	}
	raised := make(chan answer, 1)
	h.mu.Lock()
	h.mu.in = append(h.mu.in, hintEvent{raise: &floorRaise{to, again, func(s replica.Status, floor uint64) { raised <- answer{s, floor} }}})
	h.mu.Unlock()
	h.wake(true)
	timeout := time.NewTimer(until.Sub(now()))
	defer timeout.Stop()
	select {
	case a := <-raised:
		return a.status, a.floor
	case <-timeout.C:
		return replica.Overloaded, 0
	case <-h.db.stop:
		return replica.NotReady, 0
	}
}

// lift raises the floor.
func (h *hints) lift(r *floorRaise) {
	if h.unsure {
		if err := h.findLow(); err != nil {
			r.done(errorStatus(err), 0)
			return
		}
	}
	most := uint64(math.MaxUint64)
	if h.low < most {
		most = h.low - 1
	}
	if to := min(r.to, most); to > h.floor || r.again {
		to = max(to, h.floor)
		if err := h.db.sys.set(number(sysHintFloor, to)); err != nil {
			r.done(errorStatus(err), 0)
			return
		}
		h.floor = to
	}
	r.done(replica.OK, min(h.floor, most))
}

// findLow looks for the lowest counted hint that is here.
func (h *hints) findLow() error {
	low := uint64(math.MaxUint64)
	for rec, err := range h.db.tree.Scan(firstSystem, systemToken-1) {
		if err != nil {
			return err
		}
		if rec.Kind != lsm.Value {
			continue
		}
		if hint, err := replica.DecodeHint(rec.Key, rec.Value); err == nil && hint.Counted {
			low = min(low, lowestStamp(&hint.KeyRecord))
		}
	}
	h.low, h.unsure = low, false
	return nil
}

// lowestStamp is that of the record's lowest dot, 0 if that cannot be told.
func lowestStamp(r *replica.KeyRecord) uint64 {
	rec, err := engineRecord(r.Key, r.Record)
	if err != nil {
		return 0
	}
	return rec.Min.Stamp
}

// markOf is the mark of a key's partition for a target. There is a view.
func (db *DB) markOf(target uint64, key []byte) replica.Mark {
	return replica.Mark{Target: target, Partition: uint32(db.view.Load().ring.Partition(lsm.Token(key)))}
}

// route sends a write to the first live fallback for it to keep, and reports
// whether there is one other than this node.
func (h *hints) route(e *hintEvent) bool {
	v := h.db.view.Load()
	p := v.ring.Partition(lsm.Token(e.rec.Key))
	for _, i := range v.ring.AppendPreference(nil, p)[len(v.ring.Owners(p)):] {
		n := &v.nodes[i]
		if n.peer == nil {
			return false
		}
		if n.dead || !n.peer.Up() {
			continue
		}
		q := replica.HintRequest{Targets: e.targets, Request: replica.Request{
			To: n.uid, Epoch: e.epoch, Stamp: h.db.clock.Now(), Key: e.rec.Key, Record: e.rec.Record}}
		ask := &hintQuestion{h: h, event: *e}
		if n.peer.Call(replica.OpHint, now().Add(h.db.opts.MaxRequest), q.AppendHead(nil), e.rec.Value, ask, 0) == nil {
			return true
		}
	}
	return false
}

// A hintQuestion waits for a fallback to keep hints.
type hintQuestion struct {
	h     *hints
	event hintEvent
}

// Complete has the hints kept here when the fallback did not keep them.
func (q *hintQuestion) Complete(_ uint64, body []byte, err error) {
	if err == nil {
		p, err := replica.DecodeReply(body)
		if err == nil && p.Status == replica.OK {
			return
		}
	}
	r := q.event.rec
	q.h.take(replica.Request{Key: r.Key, Record: r.Record}, q.event.targets, false, nil)
}

// wake wakes the loop.
func (h *hints) wake(soon bool) {
	kick := h.kick
	if soon {
		kick = h.soon
	}
	select {
	case kick <- struct{}{}:
	default:
	}
}

// Complete takes a target's answer to a batch.
func (b *hintBatch) Complete(_ uint64, body []byte, err error) {
	e := hintEvent{batch: b, err: err}
	if err == nil {
		e.reply, e.err = replica.DecodeBatchReply(body, len(b.keys))
	}
	if len(b.marks) > 0 && err == nil {
		e.reply.Reply, e.err = replica.DecodeReply(body)
	}
	if e.err == nil && e.reply.Status != replica.OK {
		e.err = statusError(e.reply.Status)
	}
	b.h.mu.Lock()
	b.h.mu.in = append(b.h.mu.in, e)
	b.h.mu.Unlock()
	b.h.wake(true)
}

// loop runs until db.stop closes. What is in the inbox then is kept.
func (h *hints) loop() {
	timer := time.NewTimer(hintPoll)
	defer timer.Stop()
	defer func() {
		for _, p := range h.passes {
			p.stop()
		}
	}()
	for {
		for _, woken := range []chan struct{}{h.kick, h.soon} { // for what step takes now
			select {
			case <-woken:
			default:
			}
		}
		h.step()
		if h.db.stopped() {
			return
		}
		wait := time.Hour
		if at, ok := h.handoff.Next(); ok {
			// A target that is down is due, and asked for now and then.
			wait = max(at.Sub(now()), hintPoll) + h.db.offset()
			if now().Before(at) {
				wait = at.Sub(now()) + h.db.offset()
			}
		}
		timer.Reset(wait)
		select {
		case <-h.kick:
			if h.gather(timer, hintGather, h.soon) {
				h.gather(timer, hintSoon, nil)
			}
		case <-h.soon:
			h.gather(timer, hintSoon, nil)
		case <-timer.C:
		case <-h.db.stop:
		}
	}
}

// gather waits for company, and reports whether hurry ended that.
func (h *hints) gather(timer *time.Timer, d time.Duration, hurry <-chan struct{}) bool {
	timer.Reset(d + h.db.offset())
	select {
	case <-hurry:
		return true
	case <-timer.C:
	case <-h.db.stop:
	}
	return false
}

// offset is a time of this node's own, below a millisecond, that keeps the timers
// of nodes that began together from firing together.
func (db *DB) offset() time.Duration { return time.Duration(mix(db.uid) % uint64(time.Millisecond)) }

// step does all that can be done now.
func (h *hints) step() {
	h.mu.Lock()
	in, marks := h.mu.in, h.mu.marks
	h.mu.in, h.mu.bytes = nil, 0
	h.mu.marks = map[replica.Mark]bool{}
	h.mu.Unlock()
	// What came in one instant came in any order.
	slices.SortStableFunc(in, func(a, b hintEvent) int {
		return cmp.Or(bytes.Compare(a.rec.Key, b.rec.Key), a.rec.Dot.Compare(b.rec.Dot))
	})
	var kept []*hintEvent
	var raises []*floorRaise
	for i := range in {
		switch e := &in[i]; {
		case e.raise != nil:
			raises = append(raises, e.raise)
		case e.batch != nil:
			h.answered(e)
		case !e.route || !h.route(e):
			kept = append(kept, e)
		}
	}
	h.keep(kept, marks)
	for _, r := range raises { // after what was taken above the floor so far
		h.lift(r)
	}
	for !h.db.stopped() {
		target, credit, ok := h.handoff.Due(now(), h.reachable)
		if !ok {
			break
		}
		if !h.send(target, credit) {
			h.handoff.Failed(now(), target)
			h.drop(target)
		}
	}
	h.dropIdle()
	h.publish()
}

// reachable reports whether the member with this UID can be sent to, or its heir.
func (h *hints) reachable(uid uint64) bool {
	v := h.db.view.Load()
	return v != nil && h.db.reach(v.heir(uid)) != nil
}

// reach gives the connection to the member with this UID, nil unless it is alive.
func (db *DB) reach(uid uint64) *peer {
	v := db.view.Load()
	if v == nil {
		return nil
	}
	for i := range v.nodes {
		if n := &v.nodes[i]; n.uid == uid && n.peer != nil && !n.dead && n.peer.Up() {
			return n.peer
		}
	}
	return nil
}

// A hintGroup collects hints that are stored with one sync.
type hintGroup struct {
	batch []lsm.Record
	at    map[string]int // in batch, by key
	kept  []struct {     // to be undone if the batch fails
		target uint64
		hints  int
		bytes  int64
	}
}

// keep stores hints, joined with those of the same key and target, and marks.
func (h *hints) keep(in []*hintEvent, marks map[replica.Mark]bool) {
	g := hintGroup{at: map[string]int{}}
	for i, e := range in {
		if i%hintStretch == 0 {
			runtime.Gosched()
		}
		for _, uid := range e.targets {
			if uid == h.db.uid {
				continue // what the own disk did not take it does not take as a hint
			}
			status := h.add(&g, &replica.Hint{Target: uid, Epoch: e.epoch, Counted: e.counted, KeyRecord: e.rec})
			switch {
			case status == replica.OK:
			case e.counted && defences.CountedRoom:
				e.refused = status
			default:
				marks[h.db.markOf(uid, e.rec.Key)] = true
			}
		}
	}
	for _, m := range sortedMarks(marks) {
		if !h.marked[m] {
			g.put(m.StoreKey(), h.stampOf(m.StoreKey())+1, lsm.Value, nil)
		}
	}
	status := replica.OK
	if len(g.batch) > 0 {
		if err := h.db.tree.ApplySync(g.batch); err != nil {
			h.db.metrics.hintsDropped.Add(uint64(len(g.batch)))
			h.db.opts.Logger.Warn("kvstore: hints could not be stored; exchanges will find what they were for", "hints", len(g.batch), "err", err)
			for _, k := range g.kept {
				h.handoff.Kept(k.target, -k.hints, -k.bytes)
			}
			status, marks, h.unsure = errorStatus(err), nil, true
		} else {
			h.db.metrics.hintsKept.Add(uint64(len(g.kept)))
		}
	}
	for m := range marks {
		if !h.marked[m] {
			h.marked[m] = true
			h.handoff.Marked(m.Target, 1)
		}
	}
	for _, e := range in {
		if e.counted && cmp.Or(e.refused, status) == replica.OK {
			h.db.metrics.hintsCounted.Add(1)
		}
		e.finish(cmp.Or(e.refused, status))
	}
}

func sortedMarks(marks map[replica.Mark]bool) []replica.Mark {
	var out []replica.Mark
	for m := range marks {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b replica.Mark) int { return bytes.Compare(a.StoreKey(), b.StoreKey()) })
	return out
}

// add puts a hint into the group. It says why when it cannot: there is no room for it, or
// it would be a counted one that is not above the floor.
func (h *hints) add(g *hintGroup, hint *replica.Hint) replica.Status {
	key := hint.StoreKey()
	if len(key) > lsm.MaxKeyBytes {
		return replica.Invalid
	}
	var old lsm.Record
	i, again := g.at[string(key)]
	if again {
		old = g.batch[i]
	} else {
		var err error
		if old, _, err = h.db.tree.ReadToken(spreadToken(key), key); err != nil {
			return errorStatus(err)
		}
	}
	count, before := 1, int64(0)
	if old.Kind == lsm.Value {
		count, before = 0, int64(len(old.Key)+len(old.Value))
		if kept, err := replica.DecodeHint(old.Key, old.Value); err == nil && defences.HintJoin {
			joined, err := replica.Join(kept.Record, hint.Record)
			if err != nil {
				return replica.Invalid
			}
			counted := kept.Counted || hint.Counted
			if joined.Same(kept.Record) && counted == kept.Counted {
				return replica.OK
			}
			hint.Record, hint.Counted = joined, counted
		}
	}
	low := uint64(math.MaxUint64)
	if hint.Counted {
		if low = lowestStamp(&hint.KeyRecord); low <= h.floor && defences.HintFloor {
			return replica.Behind
		}
	}
	value := hint.StoreValue()
	delta := int64(len(key)+len(value)) - before
	if !h.handoff.Admit(hint.Target, delta) {
		return replica.Overloaded
	}
	h.low = min(h.low, low)
	h.handoff.Kept(hint.Target, count, delta)
	g.kept = append(g.kept, struct {
		target uint64
		hints  int
		bytes  int64
	}{hint.Target, count, delta})
	if again {
		g.batch[i].Value = value
	} else {
		g.at[string(key)] = len(g.batch)
		g.put(key, old.Max.Stamp+1, lsm.Value, value)
	}
	return replica.OK
}

func (g *hintGroup) put(key []byte, stamp uint64, kind lsm.Kind, value []byte) {
	dot := vclock.Dot{Stamp: stamp}
	g.batch = append(g.batch, lsm.Record{Token: spreadToken(key), Key: key, Min: dot, Max: dot, Kind: kind, Value: value})
}

// stampOf is the stamp of a key in the system key space, 0 when there is none.
func (h *hints) stampOf(key []byte) uint64 {
	old, _, err := h.db.tree.ReadToken(spreadToken(key), key)
	if err != nil {
		return 0
	}
	return old.Max.Stamp
}

// stored reports whether there is a hint or a mark under a key in the system key space.
func (h *hints) stored(key []byte) bool {
	rec, ok, err := h.db.tree.ReadToken(spreadToken(key), key)
	return err == nil && ok && rec.Kind == lsm.Value
}

// send sends the next batch for a target, marks first.
func (h *hints) send(target uint64, credit int) bool {
	v := h.db.view.Load()
	to := v.heir(target)
	p := h.db.reach(to)
	if p == nil {
		return false
	}
	deadline := now().Add(h.db.opts.MaxRequest)
	b := &hintBatch{h: h, target: target}
	if _, marks, _ := h.handoff.Pending(target); marks > 0 {
		n := replica.Needs{To: to, Epoch: v.epoch.Number, Stamp: h.db.clock.Now()}
		for _, m := range sortedMarks(h.marked) {
			if m.Target == target && len(b.marks) < maxNeeds {
				b.marks = append(b.marks, m)
				n.Partitions = append(n.Partitions, m.Partition)
			}
		}
		return p.Call(replica.OpNeeds, deadline, n.Append(nil), nil, b, 0) == nil
	}
	q := replica.Batch{To: to, Epoch: v.epoch.Number, Stamp: h.db.clock.Now()}
	if !h.fill(b, &q, credit) {
		return false
	}
	return p.Call(replica.OpBatch, deadline, q.Append(nil), nil, b, 0) == nil
}

// fill reads hints for the batch's target, up to the credit and at least one. It
// reports whether there was any.
func (h *hints) fill(b *hintBatch, q *replica.Batch, credit int) bool {
	began, size := now(), 0
	defer func() { b.worked = now().Sub(began) }()
	for fresh := false; ; {
		pass := h.passes[b.target]
		if pass == nil {
			if fresh {
				h.recount(b.target) // a whole pass found none
				return false
			}
			pass, fresh = h.newPass(), true
			h.passes[b.target] = pass
		}
		for len(q.Records) < replica.BatchRecords {
			s, err := pass.read(b.target)
			if err != nil {
				return false
			}
			if s == nil {
				h.drop(b.target)
				break
			}
			if len(q.Records) > 0 && (size+s.Size() > credit || s.Counted != q.Counted) {
				pass.held = s
				return true
			}
			q.Counted, b.counted = s.Counted, s.Counted
			size += s.Size()
			q.Records = append(q.Records, s.KeyRecord)
			b.keys, b.stamps = append(b.keys, s.key), append(b.stamps, s.stamp)
		}
		if len(q.Records) > 0 {
			return true
		}
	}
}

func (h *hints) newPass() *hintPass {
	p := &hintPass{}
	p.next, p.stop = iter.Pull2(h.db.tree.Scan(firstSystem, systemToken-1))
	return p
}

// read gives the next hint for the target, nil at the end of the pass.
func (p *hintPass) read(target uint64) (*storedHint, error) {
	if s := p.held; s != nil {
		p.held = nil
		return s, nil
	}
	for {
		rec, err, ok := p.next()
		if err != nil || !ok {
			return nil, err
		}
		if rec.Kind != lsm.Value {
			continue
		}
		if hint, err := replica.DecodeHint(rec.Key, rec.Value); err == nil && hint.Target == target {
			s := &storedHint{key: bytes.Clone(rec.Key), stamp: rec.Max.Stamp}
			s.Hint, err = replica.DecodeHint(s.key, bytes.Clone(rec.Value))
			return s, err
		}
	}
}

// drop ends the pass over a target's hints.
func (h *hints) drop(target uint64) {
	if p := h.passes[target]; p != nil {
		p.stop()
		delete(h.passes, target)
	}
}

// dropIdle ends the passes of targets that are away, or have all their hints: a pass
// keeps tables on disk that were merged since it began.
func (h *hints) dropIdle() {
	for _, target := range slices.Sorted(maps.Keys(h.passes)) {
		if hints, _, _ := h.handoff.Pending(target); hints == 0 || !h.reachable(target) {
			h.drop(target)
		}
	}
}

// recount corrects the numbers of a target that has no hints.
func (h *hints) recount(target uint64) {
	hints, _, bytes := h.handoff.Pending(target)
	h.handoff.Kept(target, -hints, -bytes)
}

// answered deletes what a target has now, unless more came in meanwhile, and
// notes its credit.
func (h *hints) answered(e *hintEvent) {
	b := e.batch
	if e.err != nil && !defences.HintAck {
		e.err, e.reply.Statuses = nil, make([]replica.Status, len(b.keys)) // all OK
	}
	if e.err != nil {
		h.handoff.Failed(now(), b.target)
		h.drop(b.target)
		return
	}
	began := now()
	g := hintGroup{}
	var hints int
	var size int64
	refused := false
	for i, key := range b.keys {
		if i%hintStretch == 0 {
			runtime.Gosched()
		}
		switch status := e.reply.Statuses[i]; {
		case status == replica.OK:
			h.db.metrics.hintsDelivered.Add(1)
		case status == replica.Behind, !b.counted && (status == replica.Invalid || status == replica.NotOwner): // for good
			h.db.metrics.hintsRefused.Add(1)
		default:
			refused = true
			continue
		}
		old, _, err := h.db.tree.ReadToken(spreadToken(key), key)
		if err == nil && old.Kind == lsm.Value && (old.Max.Stamp == b.stamps[i] || !defences.HintStamps) {
			g.put(key, old.Max.Stamp+1, lsm.Tombstone, nil)
			hints++
			size += int64(len(old.Key) + len(old.Value))
			h.unsure = h.unsure || b.counted
		}
	}
	for _, m := range b.marks {
		g.put(m.StoreKey(), h.stampOf(m.StoreKey())+1, lsm.Tombstone, nil)
	}
	worked := now().Sub(began) + b.worked
	if len(g.batch) > 0 {
		if err := h.db.tree.ApplySync(g.batch); err != nil {
			h.handoff.Failed(now(), b.target) // they are delivered again
			return
		}
	}
	h.handoff.Kept(b.target, -hints, -size)
	for _, m := range b.marks {
		delete(h.marked, m)
	}
	h.handoff.Marked(b.target, -len(b.marks))
	if refused {
		h.handoff.Failed(now(), b.target)
		h.drop(b.target)
		return
	}
	t, credit := now(), e.reply.Credit
	credit.After = max(credit.After, h.db.intake.rest(t, worked))
	h.handoff.Answered(t, b.target, credit)
}

// publish shows Status and Metrics what is kept.
func (h *hints) publish() {
	all := map[uint64]HintStatus{}
	v := h.db.view.Load()
	for _, uid := range h.handoff.Targets() {
		hints, marks, bytes := h.handoff.Pending(uid)
		if v != nil {
			uid = v.heir(uid)
		}
		s := all[uid]
		all[uid] = HintStatus{Hints: s.Hints + hints, Bytes: s.Bytes + bytes, Partitions: s.Partitions + marks}
	}
	h.pending.Store(&all)
}
