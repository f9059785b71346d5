package topology

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// A join is the state of a node that wants to become a member.
type join struct {
	wanted  bool
	taken   struct{ since, last time.Time } // told that the id is, without a pause
	denied  error
	tries   int
	again   time.Time
	pending []*Epoch // a chain that does not reach this node's own membership yet
}

// A joiner waits at a member for the epoch that makes it one.
type joiner struct {
	Member
	asked time.Time // last
}

// Join starts to ask the seeds, one after the other, until this node is a member or is
// refused. It does nothing at a member.
func (a *Agent) Join(now time.Time) Effects {
	a.now = now
	if a.Current() == nil {
		a.join = join{wanted: true}
		a.tickJoin()
	}
	return a.effects()
}

func (a *Agent) tickJoin() {
	j := &a.join
	if !j.wanted || a.now.Before(j.again) || a.cfg.Seeds == nil {
		return
	}
	seeds := slices.DeleteFunc(slices.Clone(a.cfg.Seeds()), func(s string) bool { return s == a.cfg.Self.Addr })
	if len(seeds) > 0 {
		a.send(seeds[j.tries%len(seeds)], &message{kind: kindJoin, name: a.cfg.Name, from: a.cfg.Self})
	}
	j.again = a.now.Add(a.backoff(j.tries))
	j.tries++
}

// stepOutside takes a message at a node that is no member.
func (a *Agent) stepOutside(m *message) {
	if !a.join.wanted {
		return
	}
	switch m.kind {
	case kindRefused:
		why := refusal(m.code, m.text)
		if errors.Is(why, ErrTooManyLost) || errors.Is(why, ErrNameTaken) && a.takenSince() < a.cfg.TakenFor {
			a.join.denied = why
			return // ask again
		}
		a.join = join{}
		a.fx.Refused = why
	case kindChain:
		a.joinChain(m)
	}
}

// Denied is why this node was not let in so far; it asks on. Nil before any answer.
func (a *Agent) Denied() error { return a.join.denied }

// takenSince is for how long this node is told that its id is taken.
func (a *Agent) takenSince() time.Duration {
	t := &a.join.taken
	if a.now.Sub(t.last) > 2*retryMost {
		t.since = a.now
	}
	t.last = a.now
	return a.now.Sub(t.since)
}

// joinChain gathers a chain from its first epoch on. It is adopted, whole, when it
// makes this node a member: until then the node may end up in another cluster.
func (a *Agent) joinChain(m *message) {
	j := &a.join
	for _, b := range m.epochs {
		e, err := DecodeEpoch(b)
		if err != nil {
			return
		}
		if e.Number == 1 && (len(j.pending) == 0 || j.pending[0].Hash() != e.Hash()) {
			if e.Name != a.cfg.Name {
				return
			}
			j.pending = []*Epoch{e}
		} else if n := len(j.pending); n > 0 && e.follows(j.pending[n-1], j.pending[n-1].Hash()) {
			j.pending = append(j.pending, e)
		}
	}
	n := len(j.pending)
	switch {
	case n == 0:
	case j.pending[n-1].index(a.cfg.Self) >= 0:
		for _, e := range j.pending {
			a.learn(e)
		}
		a.join = join{}
		a.fx.Joined = true
		a.hear(m.from.Addr, m.epoch)
	case m.epoch > uint64(n):
		a.send(m.from.Addr, &message{kind: kindFetch, slot: uint64(n)})
	}
}

// asked takes a request to join.
func (a *Agent) asked(m *message) {
	cur := a.Current()
	if m.cluster != [16]byte{} && m.cluster != cur.Cluster || m.name != cur.Name {
		a.refuse(m.from.Addr, ErrWrongCluster, "it is named "+cur.Name)
		return
	}
	if cur.index(m.from) >= 0 {
		a.sendChain(m.from.Addr, 0)
		return
	}
	if a.me < 0 {
		return
	}
	if taken(cur, m.from) {
		a.askedToFollow(m.from)
		return
	}
	for i, j := range a.joiners {
		switch {
		case j.Is(m.from):
			a.joiners[i] = joiner{m.from, a.now}
			return
		case j.ID == m.from.ID || j.UID == m.from.UID:
			a.refuse(m.from.Addr, ErrNameTaken, "")
			return
		}
	}
	if a.hasData {
		a.refuse(m.from.Addr, ErrHasData, "")
		return
	}
	if _, err := cur.next([]Member{m.from}); err != nil {
		a.refuse(m.from.Addr, ErrIncompatible, err.Error())
		return
	}
	if len(a.joiners) == MaxJoiners {
		return
	}
	if len(a.joiners) == 0 {
		a.after = later(a.after, a.now.Add(a.jitter(batchDelay)))
	}
	a.joiners = append(a.joiners, joiner{m.from, a.now})
}

// askedToFollow takes the request of a node to take the place of the member of its id.
// While nobody knows whether that one is gone there is no answer: the node asks again.
func (a *Agent) askedToFollow(m Member) {
	i := slices.IndexFunc(a.heirs, func(j joiner) bool { return j.ID == m.ID })
	old, ok := a.predecessor(m)
	gone, sure := false, true
	if ok && (i < 0 || a.heirs[i].Is(m)) {
		gone, sure = a.gone(old)
	}
	switch {
	case sure && !gone:
		a.refuse(m.Addr, ErrNameTaken, "")
	case !gone:
	case a.tooMany(m):
		a.refuse(m.Addr, ErrTooManyLost, "")
	case old.Node != m.Node:
		a.refuse(m.Addr, ErrIncompatible, fmt.Sprintf("it is to take the place of a node with another zone, data centre or weight: %q, %q, %v", old.Zone, old.DataCenter, old.Weight))
	case i >= 0:
		a.heirs[i] = joiner{m, a.now}
	default:
		a.heirs = append(a.heirs, joiner{m, a.now})
	}
}

// predecessor is the member whose place m may take when it is gone: that is not this one,
// nor the only one with its data.
func (a *Agent) predecessor(m Member) (old Member, ok bool) {
	cur := a.Current()
	known := slices.ContainsFunc(cur.Members, func(o Member) bool { return o.UID == m.UID })
	old, ok = cur.Member(m.ID)
	return old, ok && !known && cur.Ring.N() > 1 && !old.Is(a.cfg.Self)
}

// gone is Config.Gone.
func (a *Agent) gone(m Member) (gone, sure bool) {
	if a.cfg.Gone == nil {
		return false, true
	}
	return a.cfg.Gone(m)
}

// mayFollow reports whether a node may take the place of the member of its id now.
func (a *Agent) mayFollow(m Member) bool {
	old, ok := a.predecessor(m)
	if !ok {
		return false
	}
	gone, _ := a.gone(old)
	return gone && !a.tooMany(m)
}

// tooMany reports whether, after these nodes took the places of members, a majority of
// the owners of a partition would have no data yet. The directories whose places they have
// may be only out of reach, and would still be a majority among themselves.
func (a *Agent) tooMany(heirs ...Member) bool {
	cur := a.Current()
	empty := make([]bool, len(cur.Members))
	for i, m := range cur.Members {
		empty[i] = a.Follows(m) && a.cfg.Whole != nil && !a.cfg.Whole(m)
	}
	for _, h := range heirs {
		if i := cur.Ring.Index(h.ID); i >= 0 {
			empty[i] = true
		}
	}
	for p := range cur.Ring.Partitions() {
		owners, n := cur.Ring.Owners(p), 0
		for _, i := range owners {
			if empty[i] {
				n++
			}
		}
		if n > len(owners)/2 {
			return true
		}
	}
	return false
}

// Follows reports whether a member's place was another directory's before.
func (a *Agent) Follows(m Member) bool {
	return slices.ContainsFunc(a.chain, func(e *Epoch) bool {
		old, ok := e.Member(m.ID)
		return ok && old.UID != m.UID
	})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// taken reports whether a member other than m has its id or its UID.
func taken(e *Epoch, m Member) bool {
	return slices.ContainsFunc(e.Members, func(o Member) bool { return o.ID == m.ID || o.UID == m.UID }) && e.index(m) < 0
}

func (a *Agent) refuse(addr string, why error, text string) {
	a.send(addr, &message{kind: kindRefused, code: refusalCode(why), text: text})
}

func (a *Agent) refuseAll(why error, text string) {
	for _, j := range a.joiners {
		a.refuse(j.Addr, why, text)
	}
	a.joiners = nil
}
