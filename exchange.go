package kvstore

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/kvstore/lsm"
	"example.com/kvstore/merkle"
	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

const (
	// maxCompared bounds the records that one side of one comparison holds in
	// memory, 24 bytes each and as much again for the tree; the range is cut
	// where there are more.
	maxCompared = 1 << 17
	// scanStretch is how many records a scan reads between rests, and scanPause the
	// rest while background work is to be slower, times how much slower.
	scanStretch = 256
	scanPause   = 5 * time.Millisecond
	// A patient comparison, while clients write, reads no more than patientRange of all
	// tokens, works for one message no longer than a patientPart-th of MaxRequest, and
	// reads settleStretch tokens between rests: what is overwritten between the scans of
	// both sides differs, so they had better be short.
	patientRange  = 1 << 60
	patientPart   = 40
	settleStretch = 32
	// maxAsked bounds the comparisons that one node asks for at a time.
	maxAsked = 8
	// maxOpens bounds the times that one is opened: horizons only rise, so the
	// second time both sides have the same floors.
	maxOpens = 3
	// cutMargin is how far behind now the cut of a comparison lies, beyond what
	// clocks may differ: what was written since is still on its way.
	cutMargin = time.Second
	// versionBytes bounds the versions sent in one message.
	versionBytes = 64 << 10
	// hintsStopped is the time without hints after which no more are expected.
	hintsStopped = time.Second
	// maxQuestions bounds the messages of one comparison.
	maxQuestions = 10_000
)

// A comparison is one range of tokens that two owners compare, as both sides see it.
type comparison struct {
	merkle.Range
	routine bool
	cut     uint64
	// floors are by partition: see replica.OpenExchange.
	floors []vclock.Dot
	// compared reports whether a partition takes part.
	compared func(p int) bool
	// rest takes what is left of partitions that this node lost data of; others leave
	// these out.
	rest bool
	lost []bool // those, by partition; nil for none
	// patient says that nobody waits for it, and that there will be others: it takes a
	// small part of a core while clients write, and leaves what they overwrite meanwhile
	// for the next time. Others keep their pace, or they might fall behind the clients.
	patient bool
}

// spare leaves out the partitions that this node lost data of, or with rest takes what
// is left of them. It reports false where neither may be: they have to be compared.
func (c *comparison) spare(lost []bool, rest, may bool) bool {
	c.lost, c.rest = lost, rest
	if lost == nil || rest {
		return true
	}
	whole := c.compared
	for p := range lost {
		if lost[p] && whole(p) && !may {
			return false
		}
	}
	c.compared = func(p int) bool { return !lost[p] && whole(p) }
	return true
}

// scan gives the own records of a comparison, from tables with dots above a floor.
func (db *DB) scan(c *comparison, above vclock.Dot) iter.Seq2[lsm.Record, error] {
	hi := min(c.Hi, lastToken)
	switch {
	case c.rest:
		return db.tree.Salvage(c.Lo, hi)
	case c.lost == nil:
		return db.tree.ScanAbove(c.Lo, hi, above)
	}
	r := db.view.Load().ring
	return func(yield func(lsm.Record, error) bool) {
		for p := r.Partition(c.Lo); p <= r.Partition(hi); p++ {
			lo, end := r.Range(p)
			if c.lost[p] {
				continue
			}
			for ; p+1 <= r.Partition(hi) && !c.lost[p+1]; p++ {
				_, end = r.Range(p + 1)
			}
			for rec, err := range db.tree.ScanAbove(max(lo, c.Lo), min(end, hi), above) {
				if !yield(rec, err) {
					return
				}
			}
		}
	}
}

// A shot is what one side holds at one instant: tokens and digests of the records,
// in order. It is what the tree is built of and what is listed of its leaves.
type shot struct {
	tokens  []uint64
	digests []merkle.Digest
}

// read is the shot's merkle.Reader.
func (s *shot) read(lo, hi uint64, each func(token uint64, d merkle.Digest)) error {
	i, _ := slices.BinarySearch(s.tokens, lo)
	for ; i < len(s.tokens) && s.tokens[i] <= hi; i++ {
		each(s.tokens[i], s.digests[i])
	}
	return nil
}

func (s *shot) tree(shape merkle.Shape) (*merkle.Tree, error) {
	b := merkle.NewBuilder(shape)
	for i, token := range s.tokens {
		if err := b.Add(token, s.digests[i]); err != nil {
			return nil, err
		}
	}
	return b.Tree(), nil
}

// upTo leaves out what is above a token.
func (s *shot) upTo(hi uint64) {
	n, found := slices.BinarySearch(s.tokens, hi)
	for ; found && n < len(s.tokens) && s.tokens[n] == hi; n++ {
	}
	s.tokens, s.digests = s.tokens[:n], s.digests[:n]
}

// soon is when the work for one message of an exchange ends at the latest, done or
// not: what is left comes with the next one, so that no request outlasts MaxRequest.
func (db *DB) soon(c *comparison) time.Time {
	t, part := now(), time.Duration(4)
	if c.patient && db.intake.busy(t) {
		part = patientPart
	}
	return t.Add(db.opts.MaxRequest / part)
}

// rest is how long to rest after work for a comparison that took so long.
func (db *DB) rest(c *comparison, worked time.Duration) time.Duration {
	if !c.patient {
		return 0
	}
	return db.intake.rest(now(), worked)
}

// leave leaves out the tokens that are not kept.
func (s *shot) leave(kept func(token uint64) bool) {
	n := 0
	for i, token := range s.tokens {
		if kept(token) {
			s.tokens[n], s.digests[n] = token, s.digests[i]
			n++
		}
	}
	s.tokens, s.digests = s.tokens[:n], s.digests[:n]
}

// take scans the own records of a comparison. Where there are more than maxCompared,
// or more than can be read in time, it lowers the end of the range. read is how many it
// looked at.
func (db *DB) take(c *comparison) (s *shot, read int, err error) {
	s = &shot{}
	v := db.view.Load()
	above := vclock.Dot{}
	if c.routine {
		above = lowest(c.floors, c.compared)
	}
	late, last, began, until := false, uint64(0), now(), db.soon(c)
	if c.patient && db.intake.busy(began) && c.Hi-c.Lo > patientRange {
		c.Hi = c.Lo + patientRange
	}
	for rec, err := range db.scan(c, above) {
		if err != nil {
			return nil, read, engineError(err)
		}
		if (late || len(s.tokens) >= maxCompared) && last < rec.Token {
			c.Hi = last
			break
		}
		if read++; read%scanStretch == 0 {
			rest := db.rest(c, now().Sub(began))
			if n := db.intake.slowdown(now()); n > 1 {
				rest = max(rest, time.Duration(n)*scanPause)
			}
			if !db.pause(rest) {
				return nil, read, ErrClosed
			}
			began = now()
			late = began.After(until)
		}
		last = rec.Token
		p := v.ring.Partition(rec.Token)
		if p >= len(c.floors) || !c.compared(p) || rec.Min.Stamp > c.cut || c.routine && !c.floors[p].Less(rec.Max) || gone(&rec, c.floors[p]) {
			continue
		}
		if rec.Kind == lsm.Causal && !above.IsZero() { // it may lack siblings in older tables
			whole, ok, err := db.tree.ReadToken(rec.Token, rec.Key)
			if err != nil {
				return nil, read, engineError(err)
			}
			if ok {
				rec = whole
			}
		}
		kr := replica.KeyRecord{Key: rec.Key, Record: fromEngine(rec)}
		s.tokens, s.digests = append(s.tokens, rec.Token), append(s.digests, kr.Digest())
	}
	return s, read, nil
}

// lowest is the lowest floor of the partitions compared.
func lowest(floors []vclock.Dot, compared func(p int) bool) vclock.Dot {
	low, any := vclock.Dot{}, false
	for p, f := range floors {
		if compared(p) && (!any || f.Less(low)) {
			low, any = f, true
		}
	}
	return low
}

// gone reports whether the record says "nothing" and lies behind the floor, where it
// may have been purged.
func gone(rec *lsm.Record, floor vclock.Dot) bool { return fromEngine(*rec).Gone(floor.Stamp) }

// shared reports, for this node and the member with that UID, which partitions both
// own in the epoch of v.
func (v *view) shared(uid uint64) func(p int) bool {
	return func(p int) bool {
		here, there := false, false
		for _, i := range v.ring.Owners(p) {
			here = here || v.nodes[i].peer == nil
			there = there || v.nodes[i].uid == uid
		}
		return here && there
	}
}

// An exchangeResult is what one comparison came to.
type exchangeResult struct {
	end, last      uint64       // of the range that was compared, and of what was asked for
	read           int          // own records looked at
	tokens         int          // that differed
	sent, received int          // records
	bytes          int          // of messages, both ways
	floors         []vclock.Dot // the other side's horizons, by partition
}

// A conversation is an exchange as its asker sees it.
type conversation struct {
	db      *DB
	v       *view
	uid     uint64
	peer    *peer
	session uint64
	own     []vclock.Dot // this node's horizons when it began
	heal    healing
	credit  int // bytes that the other side takes at once
	result  exchangeResult
	stop    <-chan struct{} // ends waits, besides db.stop
}

// An exchangePiece is what one exchange compares: records from a token on, as far as
// maxCompared reaches.
type exchangePiece struct {
	routine    bool // only what is above the horizon
	from       uint64
	partitions []uint32 // ascending; nil: all that both own
	cut        uint64   // the highest stamp; 0: a moment ago
	heal       healing
}

// A healing says that an exchange is for what this node lost: it takes and gives
// nothing.
type healing uint8

const (
	notHealing healing = iota
	// fromWhole: what the other side has forgotten goes here too.
	fromWhole
	// fromRest: the other side lost data itself.
	fromRest
)

// exchange compares a piece with the member of that UID, and brings each side what it
// lacks.
func (db *DB) exchange(stop <-chan struct{}, uid uint64, piece exchangePiece) (exchangeResult, error) {
	select {
	case db.exchanges.asking <- struct{}{}:
		defer func() { <-db.exchanges.asking }()
	case <-stop:
		return exchangeResult{}, context.Canceled
	case <-db.stop:
		return exchangeResult{}, ErrClosed
	}
	v := db.view.Load()
	routine, from, partitions := piece.routine, piece.from, piece.partitions
	x := &conversation{db: db, v: v, uid: uid, peer: db.reach(uid), credit: replica.BatchBytes, stop: stop, heal: piece.heal}
	if x.peer == nil {
		return x.result, errDown
	}
	c := &comparison{Range: merkle.Range{Lo: from, Hi: lastToken}, routine: routine, cut: piece.cut, floors: db.horizons.floors(v), compared: v.shared(uid)}
	x.own = slices.Clone(c.floors)
	if c.cut == 0 {
		c.patient = routine
		c.cut = vclock.NewStamp(db.opts.Clock().Add(-db.opts.MaxClockOffset - cutMargin))
	}
	var bits []byte
	if partitions != nil {
		bits = bitmap(partitions, v.ring.Partitions())
		c.compared = within(bits, c.compared)
		c.Lo, _ = v.ring.Range(int(partitions[0]))
		_, c.Hi = v.ring.Range(int(partitions[len(partitions)-1]))
		c.Lo, c.Hi = max(c.Lo, from), min(c.Hi, lastToken)
	}
	if !c.spare(db.damage.incomplete(v), piece.heal != notHealing, partitions == nil) {
		return x.result, errDamaged
	}
	if partitions == nil && c.lost != nil {
		bits = bitmap(v.partitionsWhere(c.compared), v.ring.Partitions())
	}
	x.result.last = c.Hi
	err := x.run(c, bits)
	x.result.end = c.Hi
	db.metrics.exchanged(&x.result, err)
	return x.result, err
}

// run carries the exchange through. It may lower the end of the range to what it came
// to. A failure after it brought something together is none: if it lasts, the next
// piece meets it.
func (x *conversation) run(c *comparison, bits []byte) error {
	own, opened, err := x.open(c, bits)
	if err != nil {
		return err
	}
	defer x.end()
	tree, err := own.tree(opened.Shape)
	if err != nil {
		return err
	}
	tokens, err := x.compare(tree, own, &opened)
	if err != nil {
		return err
	}
	x.result.tokens = len(tokens)
	if c.patient {
		cut := vclock.Dot{Stamp: c.cut, Actor: math.MaxUint64}
		tokens = slices.DeleteFunc(tokens, func(token uint64) bool { return x.db.tree.Overwritten(token, cut) })
		x.result.tokens = len(tokens)
	}
	settled, err := x.settle(c, tokens)
	if settled == len(tokens) || settled == 0 || isAny(err, context.Canceled, ErrClosed) {
		return err
	}
	x.result.tokens = settled
	c.Hi = tokens[settled-1]
	return nil
}

// ask sends one message and waits for the answer.
func (x *conversation) ask(op replica.Op, msg []byte) ([]byte, error) {
	a := &answerWait{ready: make(chan struct{})}
	if err := x.peer.Call(op, now().Add(x.db.opts.MaxRequest), msg, nil, a, 0); err != nil {
		return nil, sendError(err)
	}
	select {
	case <-a.ready:
	case <-x.stop:
		return nil, context.Canceled
	case <-x.db.stop:
		return nil, ErrClosed
	}
	x.result.bytes += len(msg) + len(a.body)
	if a.err != nil {
		return nil, callError(a.err)
	}
	return a.body, nil
}

// An answerWait waits for one answer.
type answerWait struct {
	ready chan struct{} // closed when there is one
	body  []byte
	err   error
}

// Complete takes the answer.
func (a *answerWait) Complete(_ uint64, body []byte, err error) {
	a.body, a.err = bytes.Clone(body), err
	close(a.ready)
}

// open takes this node's shot of a comparison and has the other side build its tree.
// Either may lower the end of the range, and either may have the lower floors.
func (x *conversation) open(c *comparison, bits []byte) (*shot, replica.ExchangeOpened, error) {
	asked := c.Range
	for range maxOpens {
		c.Range = asked
		own, read, err := x.db.take(c)
		x.result.read += read
		if err != nil {
			return nil, replica.ExchangeOpened{}, err
		}
		opened, err := x.openOnce(c, bits, len(own.tokens))
		if err != nil {
			return nil, opened, err
		}
		x.session = opened.Session
		x.result.floors = replica.Floors(opened.Floors, len(c.floors))
		if x.heal == notHealing && x.db.damage.outrun(x.v, x.result.floors, c.compared) {
			x.end()
			return nil, opened, errDamaged
		}
		if x.session == 0 {
			replica.LowerFloors(c.floors, opened.Floors)
			continue
		}
		if opened.Shape.Lo != c.Lo || opened.Shape.Hi > c.Hi {
			x.end()
			return nil, opened, replica.ErrMalformed
		}
		c.Range = opened.Shape.Range
		own.upTo(c.Hi)
		if len(opened.Lost) > 0 {
			lost, compared := within(opened.Lost, c.compared), c.compared
			c.compared = func(p int) bool { return compared(p) && !lost(p) }
			own.leave(func(token uint64) bool { return c.compared(x.v.ring.Partition(token)) })
		}
		return own, opened, nil
	}
	return nil, replica.ExchangeOpened{}, fmt.Errorf("kvstore: %d different horizons in one exchange", maxOpens)
}

// openOnce asks for a session with the floors of c.
func (x *conversation) openOnce(c *comparison, bits []byte, count int) (replica.ExchangeOpened, error) {
	o := replica.OpenExchange{To: x.uid, Epoch: x.v.epoch.Number, Stamp: x.db.clock.Now(), From: x.db.uid, Routine: c.routine, Rest: x.heal == fromRest, Patient: c.patient,
		Range: c.Range, Cut: c.cut, Count: uint64(count), Floors: replica.FloorRuns(c.floors), Partitions: bits}
	body, err := x.ask(replica.OpExchange, o.Append(nil))
	if err != nil {
		return replica.ExchangeOpened{}, err
	}
	opened, err := replica.DecodeExchangeOpened(body)
	if err == nil {
		x.db.heed(&opened.Reply, x.peer)
		if opened.Status != replica.OK {
			err = statusError(opened.Status)
		}
	}
	return opened, err
}

// end gives the session up, and does not wait for the answer.
func (x *conversation) end() {
	msg := replica.AppendAsk(nil, replica.ExchangeEnd, x.session)
	if x.peer.Call(replica.OpExchange, now().Add(x.db.opts.MaxRequest), msg, nil, &answerWait{ready: make(chan struct{})}, 0) == nil {
		x.result.bytes += len(msg)
	}
}

// compare finds the tokens at which the two sides differ.
func (x *conversation) compare(tree *merkle.Tree, own *shot, opened *replica.ExchangeOpened) ([]uint64, error) {
	var tokens []uint64
	diff := merkle.NewDiff(tree, opened.Root, x.db.salt(), own.read)
	for range maxQuestions {
		if diff.Done() {
			slices.Sort(tokens)
			return slices.Compact(tokens), nil
		}
		body, err := x.ask(replica.OpExchange, diff.Request(replica.AppendAsk(nil, replica.ExchangeAsk, x.session)))
		if err != nil {
			return nil, err
		}
		p, rest, err := replica.CutReply(body)
		if err == nil && p.Status != replica.OK {
			err = statusError(p.Status)
		}
		if err == nil {
			err = diff.Step(rest, func(d merkle.Difference) { tokens = append(tokens, d.Token) })
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("kvstore: a comparison of more than %d messages", maxQuestions)
}

// salt draws the salt of a comparison, after both trees were built.
func (db *DB) salt() (s merkle.Salt) {
	draw := db.opts.rand(mix(db.actor + db.salts.Add(1)))
	for i := range s {
		s[i] = byte(draw.Uint32())
	}
	return s
}

// settle has both sides hold the join at each token, one message after the other, for
// the time of one request. It gives how many of them it came to.
func (x *conversation) settle(c *comparison, tokens []uint64) (settled int, err error) {
	for over := now().Add(x.db.opts.MaxRequest); settled < len(tokens) && (settled == 0 || now().Before(over)); {
		n, err := x.settleSome(c, tokens[settled:])
		if err != nil {
			return settled, err
		}
		settled += n
	}
	return settled, nil
}

// settleSome settles the first of some tokens.
func (x *conversation) settleSome(c *comparison, tokens []uint64) (settled int, err error) {
	msg := replica.AppendAsk(nil, replica.ExchangeVersions, x.session)
	began, until, n, most := now(), x.db.soon(c), 0, versionBytes/x.db.intake.slowdown(now())
	for n < len(tokens) && len(msg) < most && (n == 0 || now().Before(until)) {
		own, err := x.db.atToken(c, tokens[n])
		if err != nil {
			return 0, err
		}
		if n%settleStretch == settleStretch-1 {
			if err := x.pause(x.db.rest(c, now().Sub(began))); err != nil {
				return 0, err
			}
			began = now()
		}
		t := replica.TokenVersions{Token: tokens[n]}
		for i := range own {
			t.Keys, t.Versions = append(t.Keys, own[i].Key), append(t.Versions, own[i].Version())
		}
		msg = replica.AppendTokenVersions(msg, &t)
		n++
	}
	body, err := x.ask(replica.OpExchange, msg)
	if err != nil {
		return 0, err
	}
	m, err := replica.DecodeExchangeMissing(body)
	if err == nil && m.Status != replica.OK {
		err = statusError(m.Status)
	}
	if err == nil && (m.Answered == 0 || int(m.Answered) > n) {
		err = replica.ErrMalformed
	}
	if err == nil {
		err = x.receive(m.Records)
	}
	switch {
	case err != nil:
	case x.heal == notHealing:
		err = x.send(c, m.Wanted)
	case x.heal == fromWhole:
		err = x.drop(c, m.Wanted)
	}
	if err != nil {
		return 0, err
	}
	return int(m.Answered), nil
}

// atToken reads what this node holds at a token now.
func (db *DB) atToken(c *comparison, token uint64) ([]replica.KeyRecord, error) {
	p := db.view.Load().ring.Partition(token)
	if token > lastToken || p >= len(c.floors) || !c.compared(p) {
		return nil, nil
	}
	var own []replica.KeyRecord
	scan := db.tree.Scan
	if c.rest {
		scan = db.tree.Salvage
	}
	for rec, err := range scan(token, token) {
		if err != nil {
			return nil, engineError(err)
		}
		if !gone(&rec, c.floors[p]) {
			r := replica.KeyRecord{Key: bytes.Clone(rec.Key), Record: fromEngine(rec)}
			r.Value = bytes.Clone(r.Value)
			own = append(own, r)
		}
	}
	return own, nil
}

// receive joins what the other side had and this one lacked.
func (x *conversation) receive(records []replica.KeyRecord) error {
	if len(records) == 0 {
		return nil
	}
	b := replica.Batch{To: x.db.uid, Epoch: x.v.epoch.Number, Exchanged: true, Records: records}
	if !x.db.acceptData(x.v) {
		return errStale
	}
	n, err := x.db.joinExchanged(x.v, &b, x.own)
	x.result.received += n
	if err != nil {
		return err
	}
	size := 0
	for i := range records {
		size += records[i].Size()
	}
	return x.pause(x.db.intake.take(now(), size))
}

// send sends the records of these keys, as they are now and as fast as the other
// side takes them.
func (x *conversation) send(c *comparison, keys [][]byte) error {
	for len(keys) > 0 {
		b := replica.Batch{To: x.uid, Epoch: x.v.epoch.Number, Stamp: x.db.clock.Now(), Exchanged: true, Session: x.session}
		size, until := 0, x.db.soon(c)
		for len(keys) > 0 && len(b.Records) < replica.BatchRecords && (len(b.Records) == 0 || now().Before(until)) {
			rec, ok, err := x.db.tree.Read(keys[0])
			if err != nil {
				return engineError(err)
			}
			r := replica.KeyRecord{Key: keys[0], Record: fromEngine(rec)}
			if ok {
				if size += r.Size(); size > x.credit && len(b.Records) > 0 {
					break
				}
				b.Records = append(b.Records, r)
			}
			keys = keys[1:]
		}
		if len(b.Records) == 0 {
			return nil
		}
		body, err := x.ask(replica.OpBatch, b.Append(nil))
		if err != nil {
			return err
		}
		p, err := replica.DecodeBatchReply(body, len(b.Records))
		if err == nil && p.Status != replica.OK {
			err = statusError(p.Status)
		}
		if err != nil {
			return err
		}
		x.result.sent += len(b.Records)
		x.credit = int(min(p.Credit.Bytes, replica.BatchBytes))
		if err := x.pause(p.Credit.After); err != nil {
			return err
		}
	}
	return nil
}

func (x *conversation) pause(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-x.stop:
		return context.Canceled
	case <-x.db.stop:
		return ErrClosed
	}
}

func bitmap(partitions []uint32, q int) []byte {
	b := make([]byte, (q+7)/8)
	for _, p := range partitions {
		b[p/8] |= 1 << (p % 8)
	}
	return b
}

// within narrows a set of partitions to those whose bit is set.
func within(bits []byte, compared func(p int) bool) func(p int) bool {
	return func(p int) bool { return p/8 < len(bits) && bits[p/8]>>(p%8)&1 == 1 && compared(p) }
}

// exchanges runs the exchanges that this node asks for. One loop owns the rota.
type exchanges struct {
	db *DB
	// writing is a lock that may be held across a sync, around the keys of needs:
	// capacity 1, full when held.
	writing chan struct{}
	// asking has an element for each comparison that this node asks for now:
	// capacity maxAsked. Who waits is served in turn.
	asking chan struct{}
	mu     struct {
		sync.Mutex
		needs map[uint32]uint64 // partitions in need, by how often that was noted
		fresh []uint32          // that the rota does not know of
	}
	rota *replica.Rota // owned by loop
}

func newExchanges(db *DB) *exchanges {
	x := &exchanges{db: db, writing: make(chan struct{}, 1), asking: make(chan struct{}, maxAsked)}
	x.mu.needs = map[uint32]uint64{}
	return x
}

// load reads the needs that an earlier start left.
func (x *exchanges) load() error {
	for rec, err := range x.db.tree.Scan(systemToken, systemToken) {
		if err != nil {
			return err
		}
		digits, ok := strings.CutPrefix(string(rec.Key), sysExchange)
		if p, err := strconv.ParseUint(digits, 10, 32); ok && err == nil && rec.Kind == lsm.Value {
			x.mu.needs[uint32(p)] = 1
			x.mu.fresh = append(x.mu.fresh, uint32(p))
		}
	}
	return nil
}

func exchangeKey(p uint32) string { return fmt.Sprintf("%s%05d", sysExchange, p) }

// need notes, durably, that this node has to compare these partitions with their
// other owners.
func (x *exchanges) need(partitions []uint32) error {
	x.writing <- struct{}{}
	defer func() { <-x.writing }()
	var settings []setting
	for _, p := range partitions {
		settings = append(settings, number(exchangeKey(p), x.db.view.Load().epoch.Number))
	}
	if err := x.db.sys.set(settings...); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range partitions {
		x.mu.needs[p]++
		x.mu.fresh = append(x.mu.fresh, p)
	}
	return nil
}

// settled forgets needs, unless they were noted anew since.
func (x *exchanges) settled(partitions []uint32) error {
	x.writing <- struct{}{}
	defer func() { <-x.writing }()
	x.mu.Lock()
	partitions = slices.DeleteFunc(partitions, func(p uint32) bool { return x.mu.needs[p] == 0 || slices.Contains(x.mu.fresh, p) })
	x.mu.Unlock()
	var keys []string
	for _, p := range partitions {
		keys = append(keys, exchangeKey(p))
	}
	if err := x.db.sys.remove(keys...); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range partitions {
		delete(x.mu.needs, p)
	}
	return nil
}

// waiting is the number of partitions in need.
func (x *exchanges) waiting() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.mu.needs)
}

// needed reports whether a partition is in need.
func (x *exchanges) needed(p uint32) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.mu.needs[p] > 0
}

// loop runs until db.stop closes.
func (x *exchanges) loop() {
	x.rota = replica.NewRota(now().Add(x.db.offset()), x.db.opts.rand(mix(x.db.actor)))
	timer := time.NewTimer(x.rota.Turn().Sub(now()))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-x.db.stop:
			return
		}
		x.step()
		timer.Reset(max(x.rota.Turn().Sub(now()), 10*time.Millisecond))
	}
}

// awaitsHints reports whether hints are on their way to a peer, or from anywhere to this
// node: they bring what a routine exchange would find.
func (x *exchanges) awaitsHints(uid uint64) bool {
	there := (*x.db.hints.pending.Load())[uid].Hints > 0
	here := now().Sub(time.Unix(0, x.db.intake.hinted.Load())) < hintsStopped
	return there || here
}

// step does the next piece of work, if there is any.
func (x *exchanges) step() {
	v := x.db.view.Load()
	if v == nil || v.self() < 0 || !x.db.trusted.Load() {
		return
	}
	x.mu.Lock()
	fresh := x.mu.fresh
	x.mu.fresh = nil
	x.mu.Unlock()
	for _, p := range fresh {
		x.rota.Need(p, v.others(int(p)))
	}
	mates := v.mates()
	var alive []uint64
	for uid := range mates {
		if x.db.reach(uid) != nil {
			alive = append(alive, uid)
		}
	}
	w, ok := x.rota.Next(now(), alive, func(uid uint64) []uint32 { return mates[uid] })
	if !ok || !defences.Exchange {
		return
	}
	if w.Routine && x.awaitsHints(w.Peer) && x.rota.PutOff(now(), w) {
		return
	}
	var partitions []uint32
	if !w.Routine {
		lost := x.db.damage.incomplete(v)
		w.Partitions = slices.DeleteFunc(w.Partitions, func(p uint32) bool { return lost != nil && lost[p] })
		if partitions = w.Partitions; len(partitions) == 0 { // when they are healed
			x.rota.Failed(now(), w)
			return
		}
	}
	r, err := x.db.exchange(x.db.stop, w.Peer, exchangePiece{routine: w.Routine, from: w.From, partitions: partitions})
	if err != nil {
		x.rota.Failed(now(), w)
		x.db.opts.Logger.Debug("kvstore: exchange", "peer", w.Peer, "err", err)
		return
	}
	var compared []uint32
	for _, p := range w.Partitions {
		if _, hi := v.ring.Range(int(p)); min(hi, lastToken) <= r.end {
			compared = append(compared, p)
		}
	}
	if done := x.rota.Done(now(), w, compared, r.end >= lastToken, r.end, r.read); len(done) > 0 {
		if err := x.settled(done); err != nil {
			x.db.opts.Logger.Warn("kvstore: partitions that were exchanged are exchanged again", "err", err)
		}
	}
}

// mates are the other owners of this node's partitions, by UID, and for each the
// partitions that both own.
func (v *view) mates() map[uint64][]uint32 {
	mates := map[uint64][]uint32{}
	for p := range v.ring.Partitions() {
		if v.owns(p) {
			for _, uid := range v.others(p) {
				mates[uid] = append(mates[uid], uint32(p))
			}
		}
	}
	return mates
}

// others are the UIDs of the owners of partition p but for this node.
func (v *view) others(p int) []uint64 { return v.uids(p, false) }

// uids are the UIDs of the owners of partition p, ascending, with this node's or
// without.
func (v *view) uids(p int, self bool) []uint64 {
	var out []uint64
	for _, i := range v.ring.Owners(p) {
		if n := &v.nodes[i]; self || n.peer != nil {
			out = append(out, n.uid)
		}
	}
	slices.Sort(out)
	return out
}
