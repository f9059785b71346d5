package kvstore

import (
	"time"

	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// A Resolver says what becomes of values that were written concurrently. The
// zero Resolver is LastWriterWins. Nodes of one cluster should have the same.
type Resolver struct {
	name  string
	merge func(a, b []byte) []byte
}

const mergeName = "merge function"

var (
	// LastWriterWins shows the concurrent value with the highest stamp. A Put or
	// Delete without Replaces is plain: it supersedes everything stamped before
	// it. The default.
	LastWriterWins Resolver
	// KeepSiblings makes every Put causal: without Replaces it supersedes
	// nothing, so that whatever else was written stays beside it, in
	// Item.Siblings. A Delete without Replaces reads first, at Options.Read, and
	// deletes what it saw. Item.Value is the sibling with the highest stamp.
	KeepSiblings = Resolver{name: "keep siblings"}
)

// MergeFunc is KeepSiblings, but Item.Value is what merge makes of all siblings.
// The merged value is a view: it is stored when the caller puts it back with
// Replaces, or by Update, and by nothing else.
//
// merge must be commutative, associative and idempotent, or callers see values
// change that nobody wrote; kvtest.CheckMerge looks for a counter-example. It
// must not modify its arguments and may return one of them. It is called from many
// goroutines.
func MergeFunc(merge func(a, b []byte) []byte) Resolver {
	return Resolver{name: mergeName, merge: merge}
}

// causal reports whether every write is a causal one.
func (r Resolver) causal() bool { return r.name != "" }

// mergesByNothing reports whether this is MergeFunc(nil).
func (r Resolver) mergesByNothing() bool { return r.name == mergeName && r.merge == nil }

// String names the resolver.
func (r Resolver) String() string {
	if r.name == "" {
		return "last writer wins"
	}
	return r.name
}

// newItem turns a joined record into the caller's item. Values are copied: the
// record's memory may be re-used.
func (r Resolver) newItem(key string, rec replica.Record, now time.Time) (Item, error) {
	it := Item{Key: key}
	switch {
	case !rec.Found():
		return it, ErrNotFound
	case rec.Causal:
		set, err := vclock.DecodeSet(rec.Value)
		if err != nil {
			return it, err
		}
		return r.view(key, set, now)
	}
	it.Version = plainVersion(rec.Dot)
	it.Modified = vclock.StampTime(rec.Dot.Stamp)
	it.Expires = deadlineTime(rec.Deadline)
	if rec.Tombstone || rec.Expired(now.UnixMilli()) && defences.TTL {
		return it, ErrNotFound
	}
	it.found = true
	it.Value = append(make([]byte, 0, len(rec.Value)), rec.Value...)
	return it, nil
}

// view gives the item of a set: of the values that are neither deleted nor
// expired, with a version that covers all siblings. A value that was put while
// the key was deleted concurrently stays. Counters, sets and maps merge by themselves.
func (r Resolver) view(key string, set vclock.Set, now time.Time) (Item, error) {
	it := Item{Key: key, Version: Version{vclock.Version{Past: set.History}}}
	if len(set.Siblings) > 0 {
		it.Modified = vclock.StampTime(set.Siblings[0].Dot.Stamp)
		it.Expires = deadlineTime(set.Siblings[0].Deadline)
	}
	var live []Item
	for _, s := range set.Siblings {
		if s.Tombstone || s.Deadline != 0 && s.Deadline <= now.UnixMilli() {
			continue
		}
		live = append(live, Item{
			Key: key, Value: append(make([]byte, 0, len(s.Value)), s.Value...), found: true,
			Version:  Version{vclock.Version{Own: s.Dot}},
			Modified: vclock.StampTime(s.Dot.Stamp), Expires: deadlineTime(s.Deadline),
		})
	}
	if len(live) == 0 {
		return it, ErrNotFound
	}
	it.found, it.Value, it.Modified, it.Expires = true, live[0].Value, live[0].Modified, live[0].Expires
	if len(live) == 1 {
		return it, nil
	}
	it.siblings = live
	if s, err := mergeStates(live); err == nil {
		it.Value = s.Append(nil)
		return it, nil
	}
	if r.merge == nil {
		it.Value = append(make([]byte, 0, len(it.Value)), it.Value...)
		return it, nil
	}
	for _, s := range live[1:] {
		it.Value = r.merge(it.Value, s.Value)
		if s.Expires.IsZero() || !it.Expires.IsZero() && s.Expires.After(it.Expires) {
			it.Expires = s.Expires // of the value that stays longest
		}
	}
	it.Value = append(make([]byte, 0, len(it.Value)), it.Value...) // it may be a sibling's
	return it, nil
}

// deadlineTime is a record's deadline as a caller sees it.
func deadlineTime(millis int64) time.Time {
	if millis == 0 {
		return time.Time{}
	}
	return time.UnixMilli(millis)
}
