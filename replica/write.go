package replica

import "example.com/kvstore/vclock"

// MaxOwners bounds the owners that one request may have: the width of the bit
// sets below.
const MaxOwners = 64

// Verdict is what a quorum state says about the answers so far.
type Verdict uint8

const (
	// Pending: the answers so far decide nothing.
	Pending Verdict = iota
	// Done: the level is met.
	Done
	// Restamp: an owner holds a newer write of the key. The coordinator must
	// stamp above Write.Newer and send again before it acknowledges, or a write
	// acknowledged earlier would shadow this later one.
	Restamp
	// Impossible: too few owners are left for the level.
	Impossible
)

// A Write is the quorum state of one write under one dot and one epoch: a pure
// value that is told each owner's answer once.
//
// Invariant: acked and failed are disjoint, so acked + failed + outstanding is
// the number of owners.
type Write struct {
	need          Need
	owners        int
	acked, failed uint64
	superseded    bool
	newer         vclock.Dot
}

// NewWrite returns the state of a write to owners replicas of which need must
// acknowledge. There are at most MaxOwners, and enough for the need.
func NewWrite(need Need, owners int) Write { return Write{need: need, owners: owners} }

// Ack notes that owner i holds the write, synced.
func (w *Write) Ack(i int) {
	if w.failed>>i&1 == 0 {
		w.acked |= 1 << i
	}
}

// Fail notes that owner i will not acknowledge: it refused, or nobody knows.
func (w *Write) Fail(i int) {
	if w.acked>>i&1 == 0 {
		w.failed |= 1 << i
	}
}

// Superseded notes that owner i holds a newer write, with dot by.
func (w *Write) Superseded(i int, by vclock.Dot) {
	w.Fail(i)
	w.superseded = true
	if w.newer.Less(by) {
		w.newer = by
	}
}

// Verdict says what the answers so far amount to. A write that has its acks is
// done whatever else was heard: the owners that acknowledged intersect with
// those of every write acknowledged before it.
func (w *Write) Verdict() Verdict {
	switch {
	case w.need.met(w.acked):
		return Done
	case w.superseded:
		return Restamp
	case !w.need.Possible(w.failed, w.owners):
		return Impossible
	}
	return Pending
}

// Acked is the number of owners known to hold the write.
func (w *Write) Acked() int { return count(w.acked) }

// Newer is the highest dot that an owner was found to hold instead.
func (w *Write) Newer() vclock.Dot { return w.newer }
