package kvstore

import (
	"time"

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

	found    bool
	siblings []Item
	// forgotten is a stamp: where there is no value and no version, all that was
	// written of the key up to it was deleted, and the deletes forgotten.
	forgotten uint64
}

// Found reports whether the key has a value. A Get of a deleted key gives
// ErrNotFound and an Item whose Version covers the tombstone.
func (it Item) Found() bool { return it.found }

// Siblings are the values that were written concurrently and that no later write
// has superseded, newest first; nil when there is one, or none. The item's own
// Value is what Options.Conflicts makes of them, and its Version covers all of
// them: a Put with Replaces(it.Version) leaves its value alone. A sibling's
// Version covers that sibling only. The slice and its values belong to the item.
func (it Item) Siblings() []Item { return it.siblings }

// A Version is an opaque causal token: the writes that a value reflects, for
// Replaces. The zero Version has seen nothing.
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
