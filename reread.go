package kvstore

import (
	"bytes"
	"time"

	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
)

// reread deals with a write that holds something at or below what this node has
// promised: it, or a sibling in it, may have been deleted meanwhile and forgotten
// here. What other owners hold of the key now decides.
func (db *DB) reread(v *view, s served, w *servedWrite) {
	rec := w.record[0]
	rec.Key, rec.Value = bytes.Clone(rec.Key), bytes.Clone(rec.Value)
	w.record[0] = rec
	if !db.workers.run(func() {
		switch status := db.takeLate(v, rec, s.deadline); {
		case status == replica.OK && w.causal:
			db.answerCausal(s.to, rec)
		default:
			db.answer(s.to, status)
		}
		w.free()
	}) {
		w.free()
		db.refuse(s.to, replica.Overloaded)
	}
}

// takeLate reads the key from the other owners and takes what they have, if it is not
// behind the own horizon. It is OK when this node then holds all that rec does.
func (db *DB) takeLate(v *view, rec lsm.Record, deadline time.Time) replica.Status {
	if !db.gate.enter() {
		return replica.NotReady
	}
	defer db.gate.leave()
	db.sweeper.wake()
	db.metrics.rereads.Add(1)
	p := v.ring.Partition(rec.Token)
	before := db.horizons.of(v).at(p)
	targets, _ := v.targets(nil, p)
	var others []target
	for _, t := range targets {
		if t.peer != nil && !t.dead {
			others = append(others, t)
		}
	}
	var there replica.Record
	if len(others) > 0 {
		c := db.reads.get()
		if c == nil {
			return replica.Overloaded
		}
		out := c.read(v, rec.Key, others, replica.Need{Count: 1}, false, deadline, db.stop)
		there = out.joined
		there.Value = bytes.Clone(there.Value)
		c.release()
		if out.Verdict != replica.Done {
			return replica.Behind
		}
	}
	own, _, err := db.tree.ReadToken(rec.Token, rec.Key)
	if err != nil {
		return errorStatus(err)
	}
	known, err := replica.Join(fromEngine(own), there)
	if err != nil || !db.vouched(known, fromEngine(rec), before.Promised) {
		return replica.Behind
	}
	var batch []lsm.Record
	if there.Found() && there.Dot.Stamp > before.Recorded {
		r, err := engineRecord(rec.Key, there)
		if err != nil {
			return replica.Damaged
		}
		batch = append(batch, r)
	}
	if rec.Kind == lsm.Causal {
		batch = append(batch, rec)
	}
	if len(batch) == 0 {
		return replica.OK
	}
	synced := make(chan error, 1)
	turn := db.horizons.passing.enter()
	moved := db.horizons.of(v).at(p).Recorded != before.Recorded || !db.acceptData(v)
	if !moved {
		db.tree.Submit(batch, func(err error) { synced <- err })
	}
	db.horizons.passing.leave(turn)
	if moved {
		return replica.Behind
	}
	if err := <-synced; err != nil {
		return errorStatus(err)
	}
	return replica.OK
}

// vouched reports whether what is known of a key accounts for all that rec holds at or
// below a promise: each such value is alive there, or is superseded by what is there.
func (db *DB) vouched(known, rec replica.Record, promised uint64) bool {
	if !known.Found() {
		return false
	}
	have, err := known.Set()
	if err != nil {
		return false
	}
	set, err := rec.Set()
	if err != nil {
		return false
	}
	for i := range set.Siblings {
		if d := set.Siblings[i].Dot; d.Stamp <= promised && !have.Contains(d) {
			return false
		}
	}
	return true
}
