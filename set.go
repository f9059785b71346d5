package kvstore

import (
	"context"

	"example.com/kvstore/crdt"
)

// A Set is a set of byte strings that all nodes change, also while they do not hear of each
// other. What was added on either side of a partition is in it when they meet; a Remove
// removes what its author could see, so an element that is removed and added concurrently
// stays. DB.Delete empties it.
//
// A Set is a handle, cheap to make and not to be kept up to date.
type Set struct{ at place }

// Set gives the set at key.
func (db *DB) Set(key string) Set {
	return Set{place{db: db, key: key, kind: crdt.SetKind}}
}

// Add adds an element of at most crdt.MaxNameBytes (4 KiB): see Update.
func (s Set) Add(ctx context.Context, element string, opts ...ChangeOption) error {
	return s.Update(ctx, []string{element}, nil, opts...)
}

// Remove removes an element: see Update.
func (s Set) Remove(ctx context.Context, element string, opts ...ChangeOption) error {
	return s.Update(ctx, nil, []string{element}, opts...)
}

// Update adds and removes elements in one write, at the level in opts, else
// Options.Write. It reads first, at Options.Read: that is what it removes from. What is
// in both is in the set afterwards. It is safe to retry.
//
// Errors beside those of DB.Update: ErrWrongType if the key holds something else;
// ErrValueTooLarge if the set would grow beyond Options.MaxValueBytes, or the change
// alone is larger, where each element takes its bytes and 11 more; ErrInvalid for an element that is too long. They leave
// nothing behind. What two sides made too large together can be read, and made
// smaller.
//
// Each Update reads and rewrites the whole set; a set of many elements is better spread
// over several keys. What was removed takes no room; each node, and each of its restarts,
// that coordinated an Update takes some 40 bytes.
func (s Set) Update(ctx context.Context, add, remove []string, opts ...ChangeOption) error {
	return s.at.change(ctx, crdt.Mutation{Add: add, Drop: remove}, levelOf(opts))
}

// Elements gives what is in the set, in ascending order, at the level in opts, else
// Options.Read; none for a set that was never changed. Errors: those of Get, but
// ErrNotFound, and ErrWrongType.
func (s Set) Elements(ctx context.Context, opts ...GetOption) ([]string, error) {
	state, err := s.at.read(ctx, opts)
	return state.Elements(), err
}

// Contains reports whether an element is in the set. It reads all of it.
func (s Set) Contains(ctx context.Context, element string, opts ...GetOption) (bool, error) {
	state, err := s.at.read(ctx, opts)
	return state.Contains(element), err
}
