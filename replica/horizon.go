package replica

import (
	"slices"

	"example.com/kvstore/vclock"
)

// A Horizon is what one owner has promised and recorded of one partition. Both are
// stamps and stand for every dot of that stamp and below. They are durable before
// they are acted on, and never lowered.
//
// Promised: nothing at or below will be taken any more that comes for the first time.
// Recorded: all owners hold everything at or below, so that a tombstone there may be
// forgotten.
//
// Invariant: Recorded <= Promised.
type Horizon struct{ Promised, Recorded uint64 }

// Forgotten gives a record that makes own lose what a complete owner, which holds there,
// has forgotten behind its horizon: what is in own at or below the horizon, and not in
// there. Joined with own it leaves what is in both, and all above the horizon. It
// reports false when there is nothing to lose.
func Forgotten(own, there Record, horizon vclock.Dot) (Record, bool, error) {
	joined, err := Join(own, there)
	if err != nil {
		return Record{}, false, err
	}
	all, err := joined.Set()
	if err != nil {
		return Record{}, false, err
	}
	theirs, err := there.Set()
	if err != nil {
		return Record{}, false, err
	}
	lose := slices.ContainsFunc(all.Siblings, func(s vclock.Sibling) bool {
		return !horizon.Less(s.Dot) && !slices.ContainsFunc(theirs.Siblings, func(t vclock.Sibling) bool { return t.Dot == s.Dot })
	})
	if !lose {
		return Record{}, false, nil
	}
	if len(theirs.Siblings) == 0 {
		return Record{Dot: horizon, Tombstone: true}, true, nil
	}
	// Behind the horizon everything is decided: to have seen all of it is the truth.
	theirs.History = theirs.History.Join(vclock.History{Floor: horizon})
	return FromSet(theirs), true, nil
}

// Heals reports whether so many owners of n that lost nothing have together all that a
// majority acknowledged: N-W+1 of them, W being the majority.
func Heals(n, whole int) bool { return whole >= n-n/2 }

// A Source says how a record comes to an owner.
type Source uint8

const (
	// Fresh: from the coordinator of the write, or as a hint that was not counted.
	Fresh Source = iota
	// WrittenBack: from the coordinator of a read that joined it.
	WrittenBack
	// Exchanged: from an owner that held it when it was asked.
	Exchanged
	// Counted: a hint that was counted. No round has a horizon that covers one which is
	// on its way, whatever was promised besides.
	Counted
)

// A Judgement is what an owner does with a record.
type Judgement uint8

const (
	// Take it: join it with one's own.
	Take Judgement = iota
	// Refuse it: it came too late.
	Refuse
	// Reread: it, or a sibling in it, may have been deleted and forgotten meanwhile.
	// Ask owners that have everything what there is now.
	Reread
	// Ignore it: it says "nothing" behind the own horizon, and so does what is absent
	// there. Nothing Fresh is ignored.
	Ignore
)

// Judge decides about a record whose dots lie between lo and hi. gone says that it is
// Gone at h.Recorded.
func (h Horizon) Judge(from Source, lo, hi vclock.Dot, gone bool) Judgement {
	switch {
	case from == Fresh && hi.Stamp <= h.Promised:
		return Refuse // deletes too: ignored, they would be acknowledged and stored nowhere
	case gone && hi.Stamp <= h.Recorded:
		return Ignore
	case from == Counted && lo.Stamp > h.Recorded:
		return Take
	case from == Exchanged || lo.Stamp > h.Promised:
		return Take
	}
	return Reread
}
