package kvstore

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// horizonChunk is the number of partitions whose horizons share one key.
const horizonChunk = 64

// horizons are this node's promises and horizons, by partition.
//
// Invariant: what is in memory may be ahead of the disk only where that refuses more:
// a promise is set here, then made durable, then told; so is a horizon, and only then
// compactions see it.
type horizons struct {
	db    *DB
	table atomic.Pointer[horizonTable] // nil before the first epoch is known
	// passing are records between the judgement about them and the log.
	passing crossing
	// writing is a lock that may be held across a sync, around the keys and drain:
	// capacity 1, full when held.
	writing chan struct{}
	// damages counts the times that data was found to be lost: what was going on then
	// is void.
	damages atomic.Uint64
	mu      struct {
		sync.Mutex
		rounds map[uint64]*round
	}
}

// A horizonTable has one number of each kind for each partition.
type horizonTable struct {
	shift     uint
	promised  []atomic.Uint64
	recorded  []atomic.Uint64
	purgeable []atomic.Uint64 // as compactions see it
}

func newHorizons(db *DB) *horizons {
	h := &horizons{db: db, writing: make(chan struct{}, 1)}
	h.mu.rounds = map[uint64]*round{}
	return h
}

// load reads the horizons of a node that knows the number of partitions.
func (h *horizons) load(partitions int) error {
	t := newHorizonTable(partitions)
	for chunk := 0; chunk*horizonChunk < partitions; chunk++ {
		b, err := h.db.sys.get(horizonKey(chunk))
		if err != nil {
			return err
		}
		first, n := chunk*horizonChunk, min(horizonChunk, partitions-chunk*horizonChunk)
		if b == nil {
			continue
		}
		if len(b) != 16*n {
			return fmt.Errorf("%w: system key %q has %d bytes, expected %d", ErrCorrupt, horizonKey(chunk), len(b), 16*n)
		}
		for i := range n {
			t.promised[first+i].Store(binary.LittleEndian.Uint64(b[16*i:]))
			recorded := binary.LittleEndian.Uint64(b[16*i+8:])
			t.recorded[first+i].Store(recorded)
			t.purgeable[first+i].Store(recorded)
		}
	}
	h.table.Store(t)
	return nil
}

func newHorizonTable(partitions int) *horizonTable {
	return &horizonTable{shift: uint(64 - bits.TrailingZeros(uint(partitions))), promised: make([]atomic.Uint64, partitions),
		recorded: make([]atomic.Uint64, partitions), purgeable: make([]atomic.Uint64, partitions)}
}

func horizonKey(chunk int) string { return fmt.Sprintf("%s%05d", sysHorizon, chunk) }

// of gives the table; its node is a member.
func (h *horizons) of(v *view) *horizonTable {
	t := h.table.Load()
	if t == nil {
		h.table.CompareAndSwap(nil, newHorizonTable(v.ring.Partitions()))
		t = h.table.Load()
	}
	return t
}

// at gives a partition's promise and horizon.
func (t *horizonTable) at(p int) replica.Horizon {
	recorded := t.recorded[p].Load()
	return replica.Horizon{Promised: t.promised[p].Load(), Recorded: recorded}
}

// purge is the engine's Options.Horizon.
func (h *horizons) purge(token uint64) vclock.Dot {
	if token > lastToken || !defences.Purge {
		return vclock.Dot{Stamp: math.MaxUint64, Actor: math.MaxUint64} // its keys have one writer each
	}
	t := h.table.Load()
	if t == nil {
		return vclock.Dot{}
	}
	return horizonDot(t.purgeable[token>>t.shift].Load())
}

// horizonDot is the highest dot that a horizon covers.
func horizonDot(stamp uint64) vclock.Dot {
	if stamp == 0 {
		return vclock.Dot{}
	}
	return vclock.Dot{Stamp: stamp, Actor: math.MaxUint64}
}

// floors are this node's horizons, by partition.
func (h *horizons) floors(v *view) []vclock.Dot {
	t := h.of(v)
	floors := make([]vclock.Dot, len(t.recorded))
	for p := range floors {
		floors[p] = horizonDot(t.recorded[p].Load())
	}
	return floors
}

// unmoved reports whether the partition's horizon still is what floors said. What
// another owner had when that was so cannot have been forgotten here since.
func (h *horizons) unmoved(floors []vclock.Dot, p int) bool {
	return horizonDot(h.table.Load().recorded[p].Load()) == floors[p]
}

// covers is the horizon of a token's partition, behind which a delete may be
// forgotten here.
func (h *horizons) covers(token uint64) vclock.Dot {
	t := h.table.Load()
	if t == nil {
		return vclock.Dot{}
	}
	return horizonDot(t.recorded[token>>t.shift].Load())
}

// judge decides about a record. The caller is in passing until the log has it.
func (h *horizons) judge(v *view, rec *lsm.Record, from replica.Source) replica.Judgement {
	if !defences.Promise {
		return replica.Take
	}
	horizon := h.of(v).at(v.ring.Partition(rec.Token))
	return horizon.Judge(from, rec.Min, rec.Max, gone(rec, horizonDot(horizon.Recorded)))
}

// A round is one that this node takes part in.
type round struct {
	epoch, horizon uint64
	partitions     []uint32
	damages        uint64 // when it promised
	expires        time.Time
	merging        *merging // nil before it was asked for
}

// A merging is the second step of a round.
type merging struct {
	done   chan struct{}  // closed at its end
	status replica.Status // set before
}

const (
	// roundEvery is the time between two rounds of the same partitions.
	roundEvery = 30 * time.Second
	// firstRound is when the first begins: not in the instant of an exchange, of which
	// there is one every 5 seconds, so that one seed gives one run.
	firstRound = 17 * time.Second
	// roundExpires is how long a promise waits for the rest of its round.
	roundExpires = 10 * time.Minute
	// stepTries is how often a step is asked for that is not answered in time: a
	// merge may take so many times MaxRequest.
	stepTries = 30
	// stepPause is the wait before a step, or an exchange of a merge, is tried again.
	stepPause = time.Second
	// mergeTries is how often one exchange of a merge is tried.
	mergeTries = 5
	// maxRounds bounds the rounds that one node takes part in at a time.
	maxRounds = 1024
)

// do does what a RoundStep asks for.
func (h *horizons) do(m *replica.RoundStep, until time.Time) (p replica.RoundReply) {
	v := h.db.view.Load()
	switch {
	case m.Step != replica.RoundFloor:
		p.Status = h.step(m, until)
		if p.Status == replica.Damaged {
			p.Lost = h.db.damage.lost(v, m)
		}
	case m.Epoch != v.epoch.Number:
		p.Status = replica.Stale
	case !v.epoch.Sloppy:
		p.Status = replica.Invalid
	default:
		p.Status, p.Dot.Stamp = h.db.hints.raiseFloor(m.Horizon, false, until)
	}
	return p
}

// step does one step of a round. It waits for the disk, and to merge for the others,
// but then not longer than until.
func (h *horizons) step(m *replica.RoundStep, until time.Time) replica.Status {
	v := h.db.view.Load()
	if m.Epoch != v.epoch.Number {
		return replica.Stale
	}
	switch m.Step {
	case replica.RoundPromise:
		return h.promise(v, m)
	case replica.RoundHeal:
		return h.yield(v, m)
	}
	h.mu.Lock()
	r := h.mu.rounds[m.Round]
	merged := r != nil && r.merging != nil && closed(r.merging.done) && r.merging.status == replica.OK
	h.mu.Unlock()
	switch {
	case r == nil && m.Step == replica.RoundRecord && h.recorded(v, m):
		return replica.OK // its answer to the first time was lost
	case r == nil || r.epoch != m.Epoch || r.horizon != m.Horizon || now().After(r.expires):
		return replica.Stale
	case r.damages != h.damages.Load() || h.damaged(v, r.partitions):
		return replica.Damaged
	case m.Step == replica.RoundMerge:
		return h.mergeOnce(m, r, until)
	case !merged:
		return replica.Invalid
	}
	return h.record(v, m.Round, r)
}

// promise refuses from now on what a new horizon will cover. When it returns, all
// that was let through before is durable and in every snapshot.
func (h *horizons) promise(v *view, m *replica.RoundStep) replica.Status {
	partitions := v.partitionsOf(m)
	if !sameOwners(v, partitions, m.Owners) {
		return replica.NotOwner
	}
	// A margin behind the clock: what is still on its way is stamped above.
	if m.Horizon > vclock.NewStamp(h.db.opts.Clock().Add(-h.db.opts.MaxRequest)) {
		return replica.ClockSkew
	}
	r := &round{epoch: m.Epoch, horizon: m.Horizon, partitions: partitions, damages: h.damages.Load(), expires: now().Add(roundExpires)}
	if h.damaged(v, partitions) {
		return replica.Damaged
	}
	t := h.of(v)
	h.writing <- struct{}{}
	defer func() { <-h.writing }()
	raise(t.promised, partitions, m.Horizon)
	h.passing.drain()
	if err := h.persist(t, partitions); err != nil {
		return errorStatus(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, old := range h.mu.rounds {
		if now().After(old.expires) || overlap(old.partitions, partitions) { // its driver has given it up
			delete(h.mu.rounds, id)
		}
	}
	if len(h.mu.rounds) >= maxRounds {
		return replica.Overloaded
	}
	h.mu.rounds[m.Round] = r
	return replica.OK
}

// yield promises, for an owner that lost data, to take nothing more that it may have
// acknowledged before: else a write could be acknowledged by it, as it was, and by this
// node, after they have exchanged.
func (h *horizons) yield(v *view, m *replica.RoundStep) replica.Status {
	partitions := v.partitionsOf(m)
	switch {
	case !sameOwners(v, partitions, m.Owners):
		return replica.NotOwner
	case m.Horizon > vclock.NewStamp(h.db.opts.Clock()):
		return replica.ClockSkew
	}
	if defences.HealPromise {
		t := h.of(v)
		h.writing <- struct{}{}
		defer func() { <-h.writing }()
		raise(t.promised, partitions, m.Horizon)
		h.passing.drain()
		if err := h.persist(t, partitions); err != nil {
			return errorStatus(err)
		}
	}
	if h.damaged(v, partitions) {
		return replica.Damaged
	}
	return replica.OK
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// mergeOnce starts the merge of a round, once, and waits for it until then.
func (h *horizons) mergeOnce(m *replica.RoundStep, r *round, until time.Time) replica.Status {
	h.mu.Lock()
	x, first := r.merging, r.merging == nil
	if first {
		x = &merging{done: make(chan struct{})}
		r.merging = x
	}
	h.mu.Unlock()
	if first && !h.db.workers.run(func() {
		x.status = h.merge(m, r)
		close(x.done)
	}) {
		h.mu.Lock()
		r.merging = nil
		h.mu.Unlock()
		return replica.Overloaded
	}
	timeout := time.NewTimer(until.Sub(now()))
	defer timeout.Stop()
	select {
	case <-x.done:
		return x.status
	case <-timeout.C:
		return replica.Overloaded // ask again
	case <-h.db.stop:
		return replica.NotReady
	}
}

// merge brings here what every other owner has at or below the horizon, durably, piece
// by piece. One that the round does not wait for any more ends; what it brought stays,
// so the next round has less to do.
func (h *horizons) merge(m *replica.RoundStep, r *round) replica.Status {
	for _, uid := range m.Owners {
		if uid == h.db.uid || !defences.Merge {
			continue
		}
		for from, failed := uint64(0), 0; ; {
			x, err := h.db.exchange(h.db.stop, uid, exchangePiece{routine: true, from: from, partitions: r.partitions, cut: r.horizon})
			if err == nil && x.end >= x.last || err != nil && !defences.AllOwners {
				break
			}
			if now().After(r.expires) {
				return replica.NotReady
			}
			if err == nil {
				from, failed = x.end+1, 0
			} else if failed++; failed == mergeTries || !h.db.pause(stepPause) {
				return replica.NotReady
			}
		}
	}
	h.writing <- struct{}{}
	defer func() { <-h.writing }()
	// Nothing has changed, but this syncs the log under every policy, and what was merged
	// with it.
	if err := h.persist(h.of(h.db.view.Load()), r.partitions); err != nil {
		return errorStatus(err)
	}
	return replica.OK
}

// pause waits, and reports false when the node is closed meanwhile.
func (db *DB) pause(d time.Duration) bool {
	if d <= 0 {
		return !db.stopped()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-db.stop:
		return false
	}
}

// record makes the horizon this node's own. Compactions see it when all that was
// judged by the old one is in memtables: what had passed when the drain was over lies
// in the log ahead of the horizon, which is synced after it.
func (h *horizons) record(v *view, id uint64, r *round) replica.Status {
	t := h.of(v)
	h.writing <- struct{}{}
	defer func() { <-h.writing }()
	switch {
	case r.damages != h.damages.Load():
		return replica.Damaged
	case h.db.view.Load().epoch.Number != v.epoch.Number:
		return replica.Stale // see enter
	}
	raise(t.recorded, r.partitions, r.horizon)
	h.passing.drain()
	if err := h.persist(t, r.partitions); err != nil {
		return errorStatus(err)
	}
	raise(t.purgeable, r.partitions, r.horizon)
	h.mu.Lock()
	delete(h.mu.rounds, id)
	h.mu.Unlock()
	h.db.metrics.rounds.Add(1)
	h.db.tree.HorizonMoved()
	return replica.OK
}

// recorded reports whether the round's horizon already is this node's own. That cannot
// be without the round, or a later one, having been carried through.
func (h *horizons) recorded(v *view, m *replica.RoundStep) bool {
	t, partitions := h.of(v), v.partitionsOf(m)
	return len(partitions) > 0 && sameOwners(v, partitions, m.Owners) &&
		!slices.ContainsFunc(partitions, func(p uint32) bool { return t.recorded[p].Load() < m.Horizon })
}

// overlap reports whether two ascending lists have a partition in common.
func overlap(a, b []uint32) bool {
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i] < b[j]:
			i++
		case a[i] > b[j]:
			j++
		default:
			return true
		}
	}
	return false
}

func raise(numbers []atomic.Uint64, partitions []uint32, to uint64) {
	for _, p := range partitions {
		if numbers[p].Load() < to {
			numbers[p].Store(to)
		}
	}
}

// persist makes the numbers of some partitions durable. writing is held.
func (h *horizons) persist(t *horizonTable, partitions []uint32) error {
	return h.db.sys.set(h.settings(t, partitions, func(p int) uint64 { return t.recorded[p].Load() })...)
}

// settings are the keys with the numbers of some partitions, ascending.
func (h *horizons) settings(t *horizonTable, partitions []uint32, recorded func(p int) uint64) (settings []setting) {
	for i, p := range partitions {
		chunk := int(p) / horizonChunk
		if i > 0 && int(partitions[i-1])/horizonChunk == chunk {
			continue
		}
		first := chunk * horizonChunk
		var b []byte
		for q := first; q < min(first+horizonChunk, len(t.promised)); q++ {
			b = binary.LittleEndian.AppendUint64(b, t.promised[q].Load())
			b = binary.LittleEndian.AppendUint64(b, recorded(q))
		}
		settings = append(settings, setting{horizonKey(chunk), b})
	}
	return settings
}

// enter makes v, which has another epoch than the view so far, the view. keep makes the
// epoch durable, with more settings in the same batch. Where the epoch has an owner that
// was none before, the horizon begins anew: that node promised nothing so far, and it
// joined without data, so there is nothing that it could bring back. One that took the
// place of another is incomplete: the horizon stays, as at other damage.
func (h *horizons) enter(v *view, keep func(more []setting) error) error {
	h.writing <- struct{}{}
	defer func() { <-h.writing }()
	var gained []uint32
	old, t := h.db.view.Load(), h.table.Load()
	if old != nil && t != nil {
		gained = v.partitionsWhere(func(p int) bool {
			before := old.ownersOf(p)
			for i, uid := range before {
				before[i] = v.heir(uid)
			}
			return slices.ContainsFunc(v.ownersOf(p), func(uid uint64) bool { return !slices.Contains(before, uid) })
		})
	}
	if err := keep(h.settings(t, gained, func(p int) uint64 {
		if _, anew := slices.BinarySearch(gained, uint32(p)); anew {
			return 0
		}
		return t.recorded[p].Load()
	})); err != nil {
		return err
	}
	for _, p := range gained {
		t.recorded[p].Store(0)
		t.purgeable[p].Store(0)
	}
	h.show(v)
	return nil
}

// show makes v the view.
func (h *horizons) show(v *view) {
	if old := h.db.view.Swap(v); old != nil {
		close(old.replaced)
	}
}

// damaged reports whether some of the partitions' data may be lost here.
func (h *horizons) damaged(v *view, partitions []uint32) bool {
	lost := h.db.damage.incomplete(v)
	return lost != nil && slices.ContainsFunc(partitions, func(p uint32) bool { return lost[p] })
}

// ownersOf are the UIDs of the owners of partition p, ascending.
func (v *view) ownersOf(p int) []uint64 { return v.uids(p, true) }

// partitionsOf are those of a round, ascending.
func (v *view) partitionsOf(m *replica.RoundStep) (partitions []uint32) {
	for p := range v.ring.Partitions() {
		if p/8 < len(m.Partitions) && m.Partitions[p/8]>>(p%8)&1 == 1 {
			partitions = append(partitions, uint32(p))
		}
	}
	return partitions
}

// sameOwners reports whether these are the owners of all of the partitions.
func sameOwners(v *view, partitions []uint32, owners []uint64) bool {
	return !slices.ContainsFunc(partitions, func(p uint32) bool { return !slices.Equal(v.ownersOf(int(p)), owners) })
}
