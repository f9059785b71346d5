package kvstore

import (
	"context"
	"fmt"

	"example.com/kvstore/crdt"
)

// A Map is a record of named fields that all nodes change, also while they do not hear of
// each other: counters, sets and registers, each of which merges by itself. A field
// is named by its name and its kind, so a counter and a set of one name are two fields. A field
// comes to be with its first change; a set of which the last element was removed is
// gone.
//
// A Map is a handle, cheap to make and not to be kept up to date. Each change of a
// field reads and rewrites the whole map, as Set.Update says.
type Map struct{ at place }

// Map gives the map at key.
func (db *DB) Map(key string) Map {
	return Map{place{db: db, key: key, kind: crdt.MapKind}}
}

// Counter gives a field of the map; a name has at most crdt.MaxNameBytes (4 KiB).
func (m Map) Counter(name string) Counter { return Counter{m.at.fieldOf(name, crdt.CounterKind)} }

// Set gives a field of the map.
func (m Map) Set(name string) Set { return Set{m.at.fieldOf(name, crdt.SetKind)} }

// Register gives a field of the map.
func (m Map) Register(name string) Register { return Register{m.at.fieldOf(name, crdt.RegisterKind)} }

// Remove removes a field, as far as its author could see it: what was added to its set, or
// assigned, concurrently stays. A counter to which a node added concurrently keeps
// all that this node had counted.
func (m Map) Remove(ctx context.Context, f crdt.Field, opts ...ChangeOption) error {
	p := m.at
	p.field = f
	return p.change(ctx, crdt.Mutation{Remove: true}, levelOf(opts))
}

// State reads the whole map at once, at the level in opts, else Options.Read: its Fields,
// and of each Field the Count, the Elements or the Values. Errors: those of Get, but
// ErrNotFound, and ErrWrongType.
func (m Map) State(ctx context.Context, opts ...GetOption) (crdt.State, error) {
	return m.at.read(ctx, opts)
}

// A Register is a field of a Map that holds a value. Of values that were put concurrently it
// keeps all, until the next Put.
type Register struct{ at place }

// Put puts a value, in place of those that its author could see, at the level in opts,
// else Options.Write. Errors are those of Set.Update. It is safe to retry.
func (r Register) Put(ctx context.Context, value []byte, opts ...ChangeOption) error {
	return r.at.change(ctx, crdt.Mutation{Value: value}, levelOf(opts))
}

// Value gives the value with the highest stamp, at the level in opts, else
// Options.Read. It fails with ErrNotFound where there is none, and with ErrWrongType.
func (r Register) Value(ctx context.Context, opts ...GetOption) ([]byte, error) {
	all, err := r.Values(ctx, opts...)
	switch {
	case err != nil:
		return nil, err
	case len(all) == 0:
		return nil, fmt.Errorf("%w: field %q of %q", ErrNotFound, r.at.field.Name, r.at.key)
	}
	return all[0], nil
}

// Values gives all values that were put concurrently, the one with the highest stamp
// first, and none where there is none. They are the caller's own.
func (r Register) Values(ctx context.Context, opts ...GetOption) ([][]byte, error) {
	state, err := r.at.read(ctx, opts)
	return state.Values(), err
}
