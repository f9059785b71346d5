package topology

import (
	"slices"
	"time"
)

// An attempt is this member's way to the next epoch. For joiners:
//
//	probing --all answered, no data--> preparing --all promised--> accepting --> learned
//	   |                                  |  ^
//	   +--> dropped, joiners refused      |  | a higher ballot: dropped, tried again later
//	                                      +--> data, or too slow: the attempt goes on with
//	                                           a new ballot, for no joiner, so that fences end
//
// A node that takes the place of one that is gone needs a majority and no fence: it begins
// at preparing, as an attempt for no joiner does.
//
// Probing keeps a dead member, or one with data, from costing a fence and an epoch.
type attempt struct {
	proposer
	probing bool
	probed  set
	join    bool // for joiners
	tries   int
	again   time.Time // when to remind those that did not answer
}

// tickAttempt starts, repeats and gives up attempts.
func (a *Agent) tickAttempt() {
	silent := func(j joiner) bool { return a.now.After(j.asked.Add(askedTimeout)) }
	a.joiners = slices.DeleteFunc(a.joiners, silent)
	a.heirs = slices.DeleteFunc(a.heirs, func(j joiner) bool { return silent(j) || !a.mayFollow(j.Member) })
	t := a.attempt
	switch {
	case a.fenced && !a.now.Before(a.patience) && (t == nil || t.value == nil && (t.join || t.probing)):
		a.propose(false)
	case (t == nil || t.probing) && len(a.heirs) > 0 && !a.now.Before(a.after):
		a.propose(false)
	case t == nil && len(a.joiners) > 0 && !a.now.Before(a.after):
		a.startProbe()
	case t != nil && t.probing && len(a.joiners) == 0:
		a.attempt = nil
	case t != nil && !a.now.Before(t.again):
		a.remind()
	}
}

// startProbe asks all members whether they could promise for a join.
func (a *Agent) startProbe() {
	if a.hasData || a.probe() {
		a.refuseAll(ErrHasData, "")
		return
	}
	a.attempt = &attempt{probing: true, join: true, probed: set{}.with(a.me), proposer: proposer{n: len(a.Current().Members)}}
	a.remind()
	a.advance()
}

// propose starts phase 1 with a ballot above all others.
func (a *Agent) propose(join bool) {
	if join && a.fence() {
		a.attempt = nil
		a.refuseAll(ErrHasData, "")
		return
	}
	a.round = max(a.round, a.acceptor.promised.round) + 1
	b := ballot{a.round, a.cfg.Self.UID}
	a.acceptor.prepare(b)
	a.dirty = true
	t := &attempt{join: join, proposer: proposer{ballot: b, n: len(a.Current().Members), all: join}}
	t.promise(a.me, a.acceptor.accepted, a.acceptor.value)
	a.attempt = t
	a.patience = a.now.Add(a.jitter(fenceTimeout))
	a.remind()
	a.advance()
}

// answer takes a member's answer to the attempt.
func (a *Agent) answer(from int, m *message) {
	t := a.attempt
	switch {
	case t.probing:
		if m.kind != kindProbed {
			return
		}
		if m.flag {
			a.hasData, a.attempt = true, nil
			a.refuseAll(ErrHasData, "")
			return
		}
		t.probed = t.probed.with(from)
	case m.kind == kindPromise:
		t.promise(from, m.other, slices.Clone(m.value))
	case m.kind == kindAccepted:
		if t.accept(from) {
			a.chosen()
			return
		}
	case m.kind == kindReject && m.flag:
		a.hasData = true
		a.refuseAll(ErrHasData, "")
		a.propose(false) // ends the fences of those that promised
	case m.kind == kindReject:
		a.giveUp()
	}
	a.advance()
}

// advance goes to the next phase when the answers allow it.
func (a *Agent) advance() {
	t := a.attempt
	if t == nil {
		return
	}
	if t.probing {
		if t.probed.len() == t.n {
			a.propose(true)
		}
		return
	}
	value, ok := t.ready()
	if !ok {
		return
	}
	if value == nil {
		value = a.wish(t.join)
	}
	if !a.acceptor.accept(t.ballot, value) {
		a.giveUp()
		return
	}
	a.dirty = true
	t.value, t.tries = value, 0
	if t.accept(a.me) {
		a.chosen()
		return
	}
	a.remind()
}

// wish is the own value: the joiners made members; or the heirs, if there are any, in
// the places of those that are gone, and all else as it is.
func (a *Agent) wish(join bool) []byte {
	cur := a.Current()
	e, err := cur.next(nil)
	if err != nil {
		panic("topology: an agreed epoch has no successor: " + err.Error())
	}
	var heirs []Member
	for _, h := range members(a.heirs) {
		if !a.tooMany(append(heirs, h)...) {
			heirs = append(heirs, h)
		}
	}
	if !join && len(heirs) > 0 {
		if changed, err := cur.succeeded(heirs); err == nil {
			e = changed
		}
	}
	if more := members(a.joiners); join && len(more) > 0 {
		if grown, err := cur.next(more); err != nil {
			a.refuseAll(ErrIncompatible, err.Error())
		} else {
			e = grown
		}
	}
	b, _ := e.AppendBinary(nil)
	return b
}

func members(joiners []joiner) (all []Member) {
	for _, j := range joiners {
		all = append(all, j.Member)
	}
	return all
}

// chosen ends an attempt that a majority accepted: the epoch is agreed.
func (a *Agent) chosen() {
	prev := a.Current()
	e, err := a.child(a.attempt.value)
	if err != nil {
		panic("topology: the chosen epoch cannot be decoded: " + err.Error())
	}
	a.learn(e)
	for i, m := range e.Members {
		switch {
		case i == a.me:
		case prev.index(m) >= 0:
			a.sendChain(a.address(m), prev.Number)
		default:
			a.sendChain(m.Addr, 0)
		}
	}
}

// giveUp drops the attempt in favour of another member's, and waits for its end.
func (a *Agent) giveUp() {
	a.attempt = nil
	a.failures++
	wait := a.backoff(a.failures)
	a.after = a.now.Add(wait)
	a.patience = a.now.Add(a.jitter(fenceTimeout) + wait)
}

// yield gives up an attempt that b outbids at this member's own acceptor.
func (a *Agent) yield(b ballot) {
	if a.attempt != nil && !a.attempt.probing && a.attempt.ballot.less(b) {
		a.giveUp()
	}
}

// remind sends the question of the phase to all who have not answered it.
func (a *Agent) remind() {
	t := a.attempt
	for i, m := range a.Current().Members {
		q := &message{slot: a.Current().Number + 1, ballot: t.ballot}
		switch {
		case t.probing && !t.probed.has(i):
			q.kind = kindProbe
		case !t.probing && t.value == nil && !t.answered(i):
			q.kind, q.flag = kindPrepare, t.join
		case !t.probing && t.value != nil && !t.answered(i):
			q.kind, q.value = kindAccept, t.value
		default:
			continue
		}
		a.send(a.address(m), q)
	}
	t.again = a.now.Add(a.backoff(t.tries))
	t.tries++
}
