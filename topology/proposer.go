package topology

import "math/bits"

// A proposer is one attempt, under one ballot, to decide an epoch among n members.
// It is volatile: after a restart the next attempt has a higher ballot, which follows
// from the promise to oneself that precedes every attempt.
//
//	preparing --enough promises--> accepting --majority accepted--> chosen
type proposer struct {
	ballot    ballot
	n         int
	all       bool // an own value needs the promise of every member, not of a majority
	promised  set
	accepted  set
	best      ballot // highest ballot that a promise reported as accepted
	bestValue []byte
	value     []byte // what is proposed; nil while preparing
}

// promise counts a promise and what it reports as accepted before.
func (p *proposer) promise(from int, accepted ballot, value []byte) {
	p.promised = p.promised.with(from)
	if p.best.less(accepted) {
		p.best, p.bestValue = accepted, value
	}
}

// ready reports whether a value may be proposed, and the value it has to be; nil
// leaves the choice to the proposer.
//
// An earlier value is never dropped, and needs a majority only: whoever proposed it
// first had the promises it takes, and those hold until the epoch is known.
func (p *proposer) ready() (must []byte, ok bool) {
	switch {
	case p.value != nil || p.promised.len() <= p.n/2:
		return nil, false
	case p.best != ballot{}:
		return p.bestValue, true
	default:
		return nil, !p.all || p.promised.len() == p.n
	}
}

// accept counts an acceptance and reports whether the value is chosen.
func (p *proposer) accept(from int) bool {
	if p.value == nil {
		return false
	}
	p.accepted = p.accepted.with(from)
	return p.accepted.len() > p.n/2
}

// answered reports whether the member needs no reminder in this phase.
func (p *proposer) answered(i int) bool {
	if p.value == nil {
		return p.promised.has(i)
	}
	return p.accepted.has(i)
}

// A set of small numbers.
type set []uint64

func (s set) has(i int) bool { return i/64 < len(s) && s[i/64]>>(i%64)&1 == 1 }

func (s set) with(i int) set {
	for i/64 >= len(s) {
		s = append(s, 0)
	}
	s[i/64] |= 1 << (i % 64)
	return s
}

func (s set) len() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}
