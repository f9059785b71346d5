package kvstore

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

const (
	// healRetry is the wait after a heal that did not come to its end.
	healRetry = 5 * time.Second
	// healTries is how often one piece of a heal is tried again.
	healTries = 3
	// openTries bounds the damaged files that Open meets among the keys of the system, and
	// setAsideWithin is how long it waits for each to be set aside.
	openTries      = 64
	setAsideWithin = 10 * time.Second
	// scrubRate is the rate, in bytes a second, at which tables are read in the background
	// to find damage that nobody has met: a terabyte takes 3 days.
	scrubRate = 4 << 20
)

// damage makes this node whole again after it lost data: a table or a part of the log
// that was set aside, or all that an older copy of the directory lacks. What is lost is
// what the engine says is damaged, and outlives restarts. Of the partitions that it
// touches this node is an incomplete owner:
//
//	            OnDamage, Doubt
//	complete ──────────────────> incomplete: refuses reads, rounds and exchanges, forgets its horizon,
//	    ▲                            │       replaces the actor of its causal writes
//	    │                            │ the others promise up to what it may have acknowledged
//	    │        Healed              ▼
//	    └────────────────────── has exchanged with N−W+1 complete owners
//
// It goes on taking writes, which it then has; but for one that took the place of a
// directory that is gone. That may not be gone after all, and has not promised anything:
// its copy and this one must not both count. When this node has exchanged with enough
// owners, they all are in the epoch in which the old one does not count.
type damage struct {
	db   *DB
	kick chan struct{} // capacity 1
	// met is sent to, if there is room for it, when the engine sets something aside;
	// capacity 1.
	met chan struct{}
	// fresh is set by new damage, until the loop has taken it in.
	fresh atomic.Bool
	// doubting is a lock that may be held across a sync, around doubted: capacity 1, full
	// when held.
	doubting chan struct{}
	doubted  bool // all of the directory, since the start
	lazy     bool // sysLazy is set, and lapse has taken it in
	// salvaged says that keys of the system may be missing; set by open, then the loop's.
	salvaged bool
	// barred are the partitions of which a node that took another one's place does not
	// take writes yet; nil for none. inherited is set when it just did.
	barred    atomic.Pointer[[]bool]
	inherited atomic.Bool
	// Owned by loop: the damage that was taken in. No record that may be lost with it has
	// a stamp above asOf.
	taken []lsm.Range
	asOf  uint64
}

func newDamage(db *DB) *damage {
	return &damage{db: db, kick: make(chan struct{}, 1), met: make(chan struct{}, 1), doubting: make(chan struct{}, 1)}
}

// isolates reports whether this node goes on without what is damaged: if there may be
// others that have it, that is if its cluster keeps more than one replica. It is asked
// before the engine is open.
func (db *DB) isolates() bool {
	n := db.opts.N
	if k, err := db.readIdentity(); err == nil && len(k.chain) > 0 {
		n = k.chain[len(k.chain)-1].Ring.N()
	}
	return db.opts.Listen != "" && n > 1
}

// open makes the system's keys readable that are left when some were lost. It waits for
// the engine to set a table aside that is damaged there.
func (d *damage) open() error {
	d.note()
	for range openTries {
		err := d.db.sys.readable()
		if err == nil {
			mark, err := d.db.sys.get(sysSalvaged)
			d.salvaged = mark != nil
			return err
		}
		if !d.db.isolating || !errors.Is(err, lsm.ErrCorrupt) {
			return err
		}
		if parts := d.systemParts(); len(parts) > 0 {
			err = d.db.sys.set(setting{sysSalvaged, []byte{1}})
			if err == nil {
				err = d.db.tree.Healed(parts...)
			}
			if err != nil {
				return err
			}
			continue
		}
		timer := time.NewTimer(setAsideWithin)
		select {
		case <-d.met:
		case <-timer.C:
			return err
		}
		timer.Stop()
	}
	return fmt.Errorf("%w: the keys of the system cannot be read", lsm.ErrCorrupt)
}

// lapse makes this node an incomplete owner of all that it owns, durably, if it ended
// without Close while writes were acknowledged before they were synced; and notes
// whether they are from now on.
func (d *damage) lapse() error {
	db := d.db
	lazy := db.opts.Sync != SyncAlways
	mark, err := db.sys.get(sysLazy)
	if err != nil {
		return err
	}
	if (mark != nil || lazy && d.salvaged) && db.isolating && defences.Lapse {
		chain, err := db.sys.chain()
		// Without other members nobody has what it may lack.
		if n := len(chain); err == nil && n > 0 && len(chain[n-1].Members) > 1 {
			err = db.tree.Doubt(0, lastToken, true)
			d.note()
		}
		if err != nil {
			return err
		}
	}
	switch {
	case lazy && mark == nil:
		err = db.sys.set(setting{sysLazy, []byte{1}})
	case !lazy && mark != nil:
		err = db.sys.remove(sysLazy)
	}
	d.lazy = lazy && err == nil
	return err
}

// rest says, at a clean end, that all that was acknowledged is synced: this is the last
// of the log, and syncs it.
func (d *damage) rest() error {
	if !d.lazy {
		return nil
	}
	return engineError(d.db.sys.remove(sysLazy))
}

// systemParts are the damaged ranges, as far as they have keys of the system.
func (d *damage) systemParts() (parts []lsm.Range) {
	for _, r := range d.db.tree.Damaged() {
		if r.Hi >= firstSystem {
			r.Lo = max(r.Lo, firstSystem)
			parts = append(parts, r)
		}
	}
	return parts
}

// inherit makes this node, which takes the place of another directory in v, an incomplete
// owner of all that it will own. The settings are to be kept with the epoch; before that
// it is no member, and may be asked to inherit again.
func (d *damage) inherit(v *view) ([]setting, error) {
	if !defences.Inherit {
		return nil, nil
	}
	whole := func(r lsm.Range) bool { return r.Lo == 0 && r.Hi >= lastToken && r.File != 0 }
	if !slices.ContainsFunc(d.db.tree.Damaged(), whole) {
		if err := d.db.tree.Doubt(0, lastToken, false); err != nil {
			return nil, err
		}
	}
	d.db.fence.data.Store(true)
	d.inherited.Store(true)
	d.bar(v)
	d.note()
	return []setting{{sysHeir, []byte{1}}, {sysSalvaged, []byte{1}}}, nil
}

// restrain bars what this node has inherited, also at an earlier start, and has not got
// back; when there is no more of it that is noted. A mark that may be lost is taken to
// be there.
func (d *damage) restrain(v *view) error {
	mark, err := d.db.sys.get(sysHeir)
	if err != nil || mark == nil && !(d.salvaged && d.db.members.follows()) {
		return err
	}
	if d.bar(v); d.barred.Load() != nil {
		return nil
	}
	return d.db.sys.remove(sysHeir)
}

// bar has no writes taken of what this node has not got back.
func (d *damage) bar(v *view) {
	if lost := d.incomplete(v); lost != nil && defences.Bar {
		d.barred.Store(&lost)
	} else {
		d.barred.Store(nil)
	}
}

// bars reports whether a token's partition is barred. It is on the path of each write.
func (d *damage) bars(v *view, token uint64) bool {
	barred := d.barred.Load()
	return barred != nil && (*barred)[v.ring.Partition(token)]
}

// mend writes the keys of the system again, of which some were lost: what they say is
// in memory, but for hints, which exchanges make good, and what an earlier start lost.
// Of that a promise is the worst, so this node promises whatever it may have.
func (d *damage) mend(v *view) error {
	parts := d.systemParts()
	if len(parts) == 0 && !d.salvaged {
		return nil
	}
	db := d.db
	kept := make(chan error, 1)
	db.members.queue(inbound{kept: kept})
	timer := time.NewTimer(db.opts.MaxRequest)
	defer timer.Stop()
	var err error
	select {
	case err = <-kept:
	case <-timer.C:
		err = ErrTimeout
	case <-db.stop:
		err = ErrClosed
	}
	if err != nil {
		return err
	}
	own := []setting{{sysNode, []byte(db.id)}, {sysCluster, []byte(db.opts.Cluster)},
		number(sysUID, db.uid), number(sysBoots, db.boots), number(sysCausal, db.causal.Load())}
	if d.lazy {
		own = append(own, setting{sysLazy, []byte{1}})
	}
	if d.barred.Load() != nil {
		own = append(own, setting{sysHeir, []byte{1}})
	}
	if err := db.sys.set(own...); err != nil {
		return err
	}
	if err := db.clock.keepAgain(); err != nil {
		return err
	}
	all := v.partitionsWhere(func(int) bool { return true })
	t := db.horizons.of(v)
	db.horizons.writing <- struct{}{}
	if d.salvaged {
		raise(t.promised, all, d.asOf)
		db.horizons.passing.drain()
	}
	err = db.horizons.persist(t, all)
	<-db.horizons.writing
	if err != nil {
		return err
	}
	floor := uint64(0)
	if d.salvaged {
		floor = d.asOf
	}
	if status, _ := db.hints.raiseFloor(floor, true, now().Add(db.opts.MaxRequest)); status != replica.OK {
		return statusError(status)
	}
	if err := db.exchanges.need(v.partitionsWhere(v.owns)); err != nil {
		return err
	}
	if err := db.tree.Healed(parts...); err != nil {
		return err
	}
	if d.salvaged {
		err = db.sys.remove(sysSalvaged)
		d.salvaged = err != nil
	}
	return err
}

// found is the engine's Options.OnDamage.
func (d *damage) found(lsm.Range) {
	d.note()
	select {
	case d.met <- struct{}{}:
	default:
	}
}

// note has the loop take in that data was lost. It does not block.
func (d *damage) note() {
	d.db.horizons.damages.Add(1)
	d.fresh.Store(true)
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// incomplete are the partitions of which this node may lack data, nil for none.
func (d *damage) incomplete(v *view) []bool {
	return d.touched(v, func(lsm.Range) bool { return true })
}

// ruined are the partitions of which this node may lack more than what it had not synced
// when it ended, nil for none.
func (d *damage) ruined(v *view) []bool {
	return d.touched(v, func(r lsm.Range) bool { return r.File != 0 })
}

// lost is what a RoundReply says of this node.
func (d *damage) lost(v *view, m *replica.RoundStep) []byte {
	var lost []bool
	switch m.Step {
	case replica.RoundPromise:
		lost = d.incomplete(v)
	case replica.RoundHeal:
		lost = d.ruined(v)
	}
	if lost == nil {
		return nil
	}
	return bitmap(v.partitionsWhere(within(m.Partitions, func(p int) bool { return lost[p] })), v.ring.Partitions())
}

// touched are the partitions that some of the damage touches, nil for none.
func (d *damage) touched(v *view, by func(lsm.Range) bool) []bool {
	ranges := d.db.tree.Damaged()
	if !slices.ContainsFunc(ranges, by) {
		return nil
	}
	lost := make([]bool, v.ring.Partitions())
	for _, r := range ranges {
		if r.Lo >= firstSystem || !by(r) {
			continue
		}
		for p := v.ring.Partition(r.Lo); p <= v.ring.Partition(r.Hi); p++ {
			lost[p] = true
		}
	}
	return lost
}

// outrun reports whether another owner has a horizon, of a partition that is compared,
// which this node has not promised: then its directory is an older copy of itself.
func (d *damage) outrun(v *view, theirs []vclock.Dot, compared func(p int) bool) bool {
	if !defences.OldCopy {
		return false
	}
	t := d.db.horizons.of(v)
	for p := range theirs {
		if theirs[p].Stamp > t.promised[p].Load() && compared(p) {
			_ = d.doubtOnce("another owner's horizon is above what this node has promised")
			return true
		}
	}
	return false
}

// doubtOnce makes this node an incomplete owner of all that it owns, durably, unless
// that was done since it started.
func (d *damage) doubtOnce(why string) error {
	d.doubting <- struct{}{}
	defer func() { <-d.doubting }()
	if d.doubted {
		return nil
	}
	d.db.opts.Logger.Error("kvstore: this node's directory is an older copy of itself; what it may lack comes from the other owners", "why", why)
	if err := d.db.tree.Doubt(0, lastToken, false); err != nil {
		d.db.opts.Logger.Error("kvstore: the directory is not trusted, but that cannot be noted", "err", err)
		return err
	}
	d.doubted = true
	d.note()
	return nil
}

// loop runs until db.stop closes.
func (d *damage) loop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-d.kick:
		case <-timer.C:
		case <-d.db.stop:
			return
		}
		if wait := d.step(); wait > 0 {
			timer.Reset(wait + d.db.offset())
		}
	}
}

// step does what can be done now, and says when to try again; 0 when all is well.
func (d *damage) step() time.Duration {
	v := d.db.view.Load()
	if d.inherited.Swap(false) {
		d.salvaged = true
	}
	if len(d.db.tree.Damaged()) == 0 && !d.salvaged {
		return 0
	}
	if v == nil || v.self() < 0 {
		return healRetry
	}
	if d.db.clocks.wrong.Load() {
		return healRetry // or everybody would promise up to a time far ahead
	}
	if d.fresh.Swap(false) {
		if err := d.takeIn(v); err != nil {
			d.db.opts.Logger.Warn("kvstore: damage is not taken in yet", "err", err)
			d.fresh.Store(true)
			return healRetry
		}
	}
	if err := d.mend(v); err != nil {
		d.db.opts.Logger.Warn("kvstore: this node's own state is not written again yet", "err", err)
		return healRetry
	}
	if !defences.Incomplete {
		if err := d.db.tree.Healed(d.db.tree.Damaged()...); err != nil {
			return healRetry
		}
		return 0
	}
	if err := d.disown(v); err != nil {
		return healRetry
	}
	// The others must not promise what lies ahead of their clocks.
	if wait := vclock.StampTime(d.asOf).Add(d.db.opts.MaxClockOffset).Sub(d.db.opts.Clock()); wait > 0 {
		return wait + time.Millisecond
	}
	for _, set := range v.incompleteSets(d.incomplete(v)) {
		if err := d.heal(v, set); err != nil {
			d.db.opts.Logger.Warn("kvstore: lost data is not back yet", "partitions", len(set.partitions), "err", err)
		}
		if d.db.stopped() || d.fresh.Load() {
			break
		}
	}
	if len(d.db.tree.Damaged()) > 0 {
		return healRetry
	}
	if err := d.restrain(v); err != nil {
		d.db.opts.Logger.Warn("kvstore: after a restart new damage may keep this node from taking writes", "err", err)
	}
	return 0
}

// takeIn does, durably, what has to be done before anybody reads what is left.
func (d *damage) takeIn(v *view) error {
	db := d.db
	taken := db.tree.Damaged()
	lost := d.incomplete(v)
	partitions := v.partitionsWhere(func(p int) bool { return lost != nil && lost[p] && v.owns(p) })
	d.asOf = max(db.clock.Clock.Now(), vclock.NewStamp(db.opts.Clock().Add(db.opts.MaxClockOffset)))
	t := db.horizons.of(v)
	db.horizons.writing <- struct{}{}
	for _, p := range partitions {
		t.recorded[p].Store(0)
		t.purgeable[p].Store(0)
	}
	err := db.horizons.persist(t, partitions)
	<-db.horizons.writing
	if err == nil && defences.FreshActors {
		actor := max(mix(db.causal.Load()^uint64(db.opts.Clock().UnixNano())), 1)
		if err = db.sys.set(number(sysCausal, actor)); err == nil {
			db.causal.Store(actor)
		}
	}
	if err == nil {
		d.taken = taken
		db.metrics.damages.Add(1)
		db.opts.Events.damaged(DamageInfo{Partitions: len(partitions)})
	}
	return engineError(err)
}

// disown takes what was lost of other nodes' partitions for healed.
func (d *damage) disown(v *view) error {
	var parts []lsm.Range
	for _, r := range d.db.tree.Damaged() {
		if r.Lo >= firstSystem {
			continue
		}
		for p := v.ring.Partition(r.Lo); p <= v.ring.Partition(r.Hi); p++ {
			if !v.owns(p) {
				parts = append(parts, v.within(r, p))
			}
		}
	}
	return d.db.tree.Healed(parts...)
}

// within is the part of a damaged range that lies in partition p.
func (v *view) within(r lsm.Range, p int) lsm.Range {
	lo, hi := v.ring.Range(p)
	r.Lo, r.Hi = max(r.Lo, lo), min(r.Hi, hi, lastToken)
	return r
}

// incompleteSets groups the partitions of which this node may lack data by owners.
func (v *view) incompleteSets(lost []bool) (sets []ownerSet) {
	for p := range lost {
		if !lost[p] || !v.owns(p) {
			continue
		}
		owners := v.ownersOf(p)
		i := slices.IndexFunc(sets, func(s ownerSet) bool { return slices.Equal(s.owners, owners) })
		if i < 0 {
			i = len(sets)
			sets = append(sets, ownerSet{owners: owners})
		}
		sets[i].partitions = append(sets[i].partitions, uint32(p))
	}
	return sets
}

// heal brings back what was lost of partitions with the same owners, if enough of the
// others are there: N−W+1 that lost nothing, W being the majority, have together all
// that a majority acknowledged. If fewer are whole then all others have to be there,
// and one that is whole: what it has forgotten is dropped. Where none is, as after a
// power cut at all of them, what they have left together is all there is; that is taken
// for whole if nobody lost more than he had not synced.
func (d *damage) heal(v *view, set ownerSet) error {
	db := d.db
	damages := db.horizons.damages.Load()
	m := replica.RoundStep{Step: replica.RoundHeal, Epoch: v.epoch.Number, Owners: set.owners, Horizon: d.asOf, Partitions: bitmap(set.partitions, v.ring.Partitions())}
	var whole, partial []uint64
	var absent error
	ruined := map[uint32]bool{} // at this node or another
	for p, lost := range d.ruined(v) {
		ruined[uint32(p)] = lost
	}
	for _, uid := range set.owners {
		if uid == db.uid {
			continue
		}
		switch reply, err := db.horizons.ask(uid, m); {
		case err == nil:
			whole = append(whole, uid)
		case errors.Is(err, errDamaged):
			partial = append(partial, uid)
			maps.Copy(ruined, lostOf(set.partitions, reply.Lost))
		default:
			absent = fmt.Errorf("%016x: %w", uid, err)
		}
	}
	n := len(set.owners)
	switch {
	case replica.Heals(n, len(whole)) || len(whole) > 0 && !defences.HealQuorum:
		partial = nil
	case absent != nil:
		return absent
	case len(whole) == 0:
		set.partitions = slices.DeleteFunc(slices.Clone(set.partitions), func(p uint32) bool { return ruined[p] })
		if len(set.partitions) == 0 {
			return errors.New("no owner has all of them")
		}
	}
	recorded := make([]vclock.Dot, v.ring.Partitions())
	for p := range recorded {
		if len(whole) > 0 {
			recorded[p] = horizonDot(math.MaxUint64)
		}
	}
	for _, uid := range partial { // first, so that what the whole ones have forgotten goes
		if err := d.fetch(uid, set.partitions, fromRest, nil); err != nil {
			return err
		}
	}
	for _, uid := range whole {
		if err := d.fetch(uid, set.partitions, fromWhole, recorded); err != nil {
			return err
		}
	}
	i := DamageInfo{Partitions: len(set.partitions), Lost: len(whole) == 0 && n > 1}
	if i.Lost {
		db.opts.Logger.Error("kvstore: no owner was whole, after all had ended without closing; writes that none of them had synced are lost", "partitions", i.Partitions)
	}
	return d.finish(v, set.partitions, recorded, damages, i)
}

// fetch exchanges with one owner, and lowers recorded to its horizons.
func (d *damage) fetch(uid uint64, partitions []uint32, heal healing, recorded []vclock.Dot) error {
	for from, failed := uint64(0), 0; ; {
		x, err := d.db.exchange(d.db.stop, uid, exchangePiece{from: from, partitions: partitions, cut: math.MaxUint64, heal: heal})
		switch {
		case err == nil:
		case d.db.stopped(), errors.Is(err, errDamaged), failed == healTries:
			return err
		default:
			if failed++; !d.db.pause(stepPause) {
				return err
			}
			continue
		}
		failed = 0
		for p := range recorded {
			if x.floors[p].Less(recorded[p]) {
				recorded[p] = x.floors[p]
			}
		}
		if x.end >= x.last {
			return nil
		}
		from = x.end + 1
	}
}

// finish makes this node a complete owner again, unless more was lost or the epoch has
// changed meanwhile.
func (d *damage) finish(v *view, partitions []uint32, recorded []vclock.Dot, damages uint64, i DamageInfo) error {
	h := d.db.horizons
	t := h.of(v)
	h.writing <- struct{}{}
	defer func() { <-h.writing }()
	switch {
	case h.damages.Load() != damages:
		return errDamaged
	case h.db.view.Load().epoch.Number != v.epoch.Number:
		return errStale // another owner may have joined: see enter
	}
	// No horizon that this node has promised, and may have lost, is above asOf; one that
	// another directory had promised in this place may be.
	for _, p := range partitions {
		raise(t.promised, []uint32{p}, max(d.asOf, recorded[p].Stamp))
		t.recorded[p].Store(recorded[p].Stamp)
	}
	h.passing.drain()
	if err := h.persist(t, partitions); err != nil { // syncs the log under every policy
		return engineError(err)
	}
	var parts []lsm.Range
	for _, r := range d.taken {
		for _, p := range partitions {
			if part := v.within(r, int(p)); part.Lo <= part.Hi {
				parts = append(parts, part)
			}
		}
	}
	if err := d.db.tree.Healed(parts...); err != nil {
		return engineError(err)
	}
	for _, p := range partitions {
		t.purgeable[p].Store(recorded[p].Stamp)
	}
	if d.barred.Load() != nil {
		d.bar(v)
	}
	d.db.metrics.healed.Add(uint64(len(partitions)))
	d.db.opts.Events.healed(i)
	return nil
}

// drop deals with keys of which the other side, a complete owner, lacks something that
// is here: what lies behind its horizon it has forgotten, and so does this node.
func (x *conversation) drop(c *comparison, keys [][]byte) error {
	if !defences.HealDrop {
		return nil
	}
	var batch []lsm.Record
	for _, key := range keys {
		token := lsm.Token(key)
		floor := x.result.floors[x.v.ring.Partition(token)]
		own, err := x.db.atToken(c, token)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(own, func(r replica.KeyRecord) bool { return bytes.Equal(r.Key, key) })
		if i < 0 || floor.IsZero() {
			continue
		}
		there, err := x.read(key)
		if err != nil {
			return err
		}
		rec, ok, err := replica.Forgotten(own[i].Record, there, floor)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		r, err := engineRecord(bytes.Clone(key), rec)
		if err != nil {
			return err
		}
		batch = append(batch, r)
	}
	if len(batch) == 0 {
		return nil
	}
	return engineError(x.db.tree.ApplySync(batch))
}

// read reads a key of the other side.
func (x *conversation) read(key []byte) (replica.Record, error) {
	q := replica.Request{To: x.uid, Epoch: x.v.epoch.Number, Stamp: x.db.clock.Now(), Key: key}
	body, err := x.ask(replica.OpRead, q.AppendRead(nil))
	if err != nil {
		return replica.Record{}, err
	}
	p, err := replica.DecodeReadReply(body)
	if err == nil && p.Status != replica.OK {
		err = statusError(p.Status)
	}
	return p.Record, err
}
