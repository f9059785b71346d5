package kvstore

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// An ownerSet is partitions that have the same owners, for which one round is enough.
type ownerSet struct {
	owners     []uint64 // UIDs, ascending
	partitions []uint32
}

// driven are the owner sets whose rounds this node drives: it has the lowest UID.
func (v *view) driven(uid uint64) []ownerSet {
	sets := map[string]*ownerSet{}
	for p := range v.ring.Partitions() {
		owners := v.ownersOf(p)
		if len(owners) == 0 || owners[0] != uid {
			continue
		}
		name := fmt.Sprint(owners)
		if sets[name] == nil {
			sets[name] = &ownerSet{owners: owners}
		}
		sets[name].partitions = append(sets[name].partitions, uint32(p))
	}
	var out []ownerSet
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		out = append(out, *sets[name])
	}
	return out
}

// loop drives rounds until db.stop closes.
func (h *horizons) loop() {
	timer := time.NewTimer(firstRound + h.db.offset())
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-h.db.stop:
			return
		}
		if v := h.db.view.Load(); v != nil && v.self() >= 0 && h.db.ready.Load() && defences.Rounds {
			for _, set := range v.driven(h.db.uid) {
				if err := h.drive(v, set); err != nil {
					h.db.metrics.failedRounds.Add(1)
					h.db.opts.Logger.Debug("kvstore: round", "partitions", len(set.partitions), "err", err)
				}
				if h.db.stopped() {
					return
				}
			}
		}
		timer.Reset(roundEvery)
	}
}

// drive carries a round through all owners. Partitions of which one of them lost data
// are left out, so that it does not hold up the others.
func (h *horizons) drive(v *view, set ownerSet) error {
	for {
		lost, err := h.driveOnce(v, set)
		left := slices.DeleteFunc(slices.Clone(set.partitions), func(p uint32) bool { return lost[p] })
		if err == nil || len(left) == len(set.partitions) || len(left) == 0 {
			return err
		}
		set.partitions = left
	}
}

// driveOnce carries one round through all owners, this node last: no promise follows its
// clock alone. Whatever fails ends the round; promises stay. An owner that does not
// promise says what it has lost.
func (h *horizons) driveOnce(v *view, set ownerSet) (lost map[uint32]bool, err error) {
	if h.db.clocks.wrong.Load() {
		return nil, ErrClockSkew
	}
	margin := h.db.opts.MaxClockOffset + h.db.opts.MaxRequest
	m := replica.RoundStep{Epoch: v.epoch.Number, Round: mix(h.db.actor + h.db.salts.Add(1)), Owners: set.owners,
		Horizon: vclock.NewStamp(h.db.opts.Clock().Add(-margin)), Partitions: bitmap(set.partitions, v.ring.Partitions())}
	if len(set.owners) == 1 { // there is no other clock: nothing that will be written is refused
		m.Horizon = min(m.Horizon, h.db.clock.Last())
	}
	others := slices.DeleteFunc(slices.Clone(set.owners), func(uid uint64) bool { return uid == h.db.uid })
	inTurn := append(others, h.db.uid)
	for _, uid := range inTurn {
		if uid != h.db.uid && h.db.reach(uid) == nil && defences.AllOwners {
			return nil, errDown
		}
	}
	if v.epoch.Sloppy && defences.HintFloor {
		m.Step = replica.RoundFloor
		for i := range v.nodes {
			reply, err := h.ask(v.nodes[i].uid, m)
			if err != nil {
				return nil, fmt.Errorf("the floor of %s: %w", v.nodes[i].id, err)
			}
			m.Horizon = min(m.Horizon, reply.Dot.Stamp)
		}
	}
	for _, m.Step = range []byte{replica.RoundPromise, replica.RoundMerge, replica.RoundRecord} {
		for _, uid := range inTurn {
			reply, err := h.ask(uid, m)
			// Steps may be repeated, and a merge may take long.
			for tries := 1; isAny(err, ErrTimeout, ErrOverloaded) && tries < stepTries && h.db.pause(stepPause); tries++ {
				reply, err = h.ask(uid, m)
			}
			if err != nil && defences.AllOwners {
				return lostOf(set.partitions, reply.Lost), fmt.Errorf("step %d at %016x: %w", m.Step, uid, err)
			}
		}
	}
	return nil, nil
}

// lostOf are those of the partitions whose bit is set.
func lostOf(partitions []uint32, bits []byte) map[uint32]bool {
	lost := map[uint32]bool{}
	set := within(bits, func(int) bool { return true })
	for _, p := range partitions {
		if set(int(p)) {
			lost[p] = true
		}
	}
	return lost
}

// ask has one member do one step, and gives its answer.
func (h *horizons) ask(uid uint64, m replica.RoundStep) (replica.RoundReply, error) {
	m.To, m.Stamp = uid, h.db.clock.Now()
	deadline := now().Add(h.db.opts.MaxRequest)
	if uid == h.db.uid {
		reply := h.do(&m, deadline)
		if reply.Status != replica.OK {
			return reply, statusError(reply.Status)
		}
		return reply, nil
	}
	p := h.db.reach(uid)
	if p == nil {
		return replica.RoundReply{}, errDown
	}
	a := &answerWait{ready: make(chan struct{})}
	if err := p.Call(replica.OpRound, deadline, m.Append(nil), nil, a, 0); err != nil {
		return replica.RoundReply{}, sendError(err)
	}
	if err := h.await(a, uid, m.Epoch); err != nil {
		return replica.RoundReply{}, err
	}
	reply, err := replica.DecodeRoundReply(a.body)
	if err != nil {
		return reply, err
	}
	h.db.heed(&reply.Reply, p)
	if reply.Status != replica.OK {
		return reply, statusError(reply.Status)
	}
	return reply, nil
}

// await waits for an owner's answer. News that leave the epoch as it is, and the owner
// alive, are no reason to give up.
func (h *horizons) await(a *answerWait, uid, epoch uint64) error {
	for {
		v := h.db.view.Load()
		switch {
		case v.epoch.Number != epoch:
			return errStale
		case h.db.reach(uid) == nil:
			return errDown
		}
		select {
		case <-a.ready:
			if a.err != nil {
				return callError(a.err)
			}
			return nil
		case <-v.replaced:
		case <-h.db.stop:
			return ErrClosed
		}
	}
}

// serveRound does one step of a round for its driver, on a worker.
func (db *DB) serveRound(s served) {
	if !s.kept {
		s.body, s.kept = append([]byte(nil), s.body...), true
		if !db.workers.run(func() { db.serveRound(s) }) {
			db.refuse(s.to, replica.Overloaded)
		}
		return
	}
	m, err := replica.DecodeRoundStep(s.body)
	if err != nil {
		db.refuse(s.to, replica.Invalid)
		return
	}
	if db.admitNode(&replica.Request{To: m.To, Epoch: m.Epoch, Stamp: m.Stamp}, s) != nil {
		p := db.horizons.do(&m, s.deadline)
		p.Stamp, p.Epoch = db.clock.Now(), db.view.Load().epoch.Number
		s.to.Reply(p.Append(nil), nil)
	}
}
