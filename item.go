package kvstore

import (
	"time"

	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// An Item is what Get returns. Value is the caller's own.
type Item struct {
	Key   string
	Value []byte
	// Version is what was read: to compare with another, and as an HTTP ETag.
	Version Version
	// Modified is when the coordinator of the write stamped it, to the
	// millisecond.
	Modified time.Time
	// Expires is when the value's TTL ends; zero is never.
	Expires time.Time

	found bool
}

// Found reports whether the key has a value. A Get of a deleted key gives
// ErrNotFound and an Item whose Version covers the tombstone.
func (it Item) Found() bool { return it.found }

// A Version is an opaque causal token: the writes that a value reflects. The
// zero Version has seen nothing.
type Version struct{ seen vclock.Version }

// Equal reports whether v and w have seen the same writes.
func (v Version) Equal(w Version) bool { return v.seen.Equal(w.seen) }

// After reports whether v has seen everything w has, and more.
func (v Version) After(w Version) bool { return v.seen.Compare(w.seen) == vclock.After }

// Concurrent reports whether each has seen a write that the other has not.
func (v Version) Concurrent(w Version) bool { return v.seen.Compare(w.seen) == vclock.Concurrent }

// MarshalText gives the version's text form, fit for an HTTP ETag.
func (v Version) MarshalText() ([]byte, error) { return v.seen.MarshalText() }

// UnmarshalText reads what MarshalText wrote. Bad text is ErrInvalid.
func (v *Version) UnmarshalText(text []byte) error {
	var seen vclock.Version
	if err := seen.UnmarshalText(text); err != nil {
		return invalid("version: %v", err)
	}
	v.seen = seen
	return nil
}

// String is the text form.
func (v Version) String() string {
	text, _ := v.MarshalText()
	return string(text)
}

// plainVersion is the version of a plain write: its dot is the floor.
func plainVersion(d vclock.Dot) Version {
	return Version{vclock.Version{Past: vclock.History{Floor: d}}}
}

// newItem turns a joined record into the caller's item; the value is copied.
// Of concurrent values it shows the newest.
func newItem(key string, rec replica.Record, now time.Time) (Item, error) {
	it := Item{Key: key}
	if !rec.Found() {
		return it, ErrNotFound
	}
	it.Version = plainVersion(rec.Dot)
	if rec.Causal {
		set, err := vclock.DecodeSet(rec.Value)
		if err != nil {
			return Item{Key: key}, err
		}
		it.Version = Version{vclock.Version{Past: set.History}}
		rec = newest(set)
	}
	it.Modified = vclock.StampTime(rec.Dot.Stamp)
	if rec.Deadline != 0 {
		it.Expires = time.UnixMilli(rec.Deadline)
	}
	if rec.Tombstone || rec.Expired(now.UnixMilli()) || rec.Dot.IsZero() {
		return it, ErrNotFound
	}
	it.found = true
	it.Value = append(make([]byte, 0, len(rec.Value)), rec.Value...)
	return it, nil
}

// newest is the newest live sibling of a set, or its newest tombstone.
func newest(set vclock.Set) replica.Record {
	var best replica.Record
	for _, s := range set.Siblings {
		if best.Dot.IsZero() || best.Tombstone && !s.Tombstone {
			best = replica.Record{Dot: s.Dot, Tombstone: s.Tombstone, Deadline: s.Deadline, Value: s.Value}
		}
	}
	return best
}
