package kvstore

import (
	"context"

	"example.com/kvstore/crdt"
)

// A Counter is a number that all nodes count up and down, also while they do not
// hear of each other: what was counted on both sides of a partition adds up when they
// meet. The zero value of a key is 0; DB.Delete sets it back.
//
// A Counter is a handle, cheap to make and not to be kept up to date.
type Counter struct{ at place }

// Counter gives the counter at key.
func (db *DB) Counter(key string) Counter {
	return Counter{place{db: db, key: key, kind: crdt.CounterKind}}
}

// A RequestID names one Add, so that it can be sent again when its outcome is not
// known: a counter counts the same id once, whichever node it is sent to, whatever the
// delta. An id has at most crdt.MaxRequestBytes (64) bytes and must not be used for
// anything else; "" is none.
//
// A counter remembers the last crdt.MaxRequests (256) ids, a map's counters as many
// each. An id that comes again after 256 others were counted is counted again: so
// give up a request before that many could have been made. Both sides of a partition count
// an id that reaches both, and take one back when they meet, provided that
// neither has counted 256 others by then.
type RequestID string

func (RequestID) counterOption() {}

// Add counts by delta, which may be negative, at the level in opts, else
// Options.Write. It reads first, at Options.Read, as Update does.
//
// With a RequestID it is safe to retry until it succeeds. Without one a retry after an
// Unknown outcome may count twice.
//
// Errors beside those of Update: ErrWrongType if the key holds something else,
// ErrOverflow if the count would leave the range of an int64, or what one coordinator
// has counted would. Both leave nothing behind.
//
// The value of the key takes some 30 bytes, 34 to 43 for each node, and each of its
// restarts, that coordinated an Add, and 11 and the id for each id remembered. Each Add
// rewrites it.
func (c Counter) Add(ctx context.Context, delta int64, opts ...CounterOption) error {
	m := crdt.Mutation{Delta: delta}
	var level Consistency
	for _, o := range opts {
		switch o := o.(type) {
		case Consistency:
			if o != Default {
				level = o
			}
		case RequestID:
			m.Request = string(o)
		}
	}
	return c.at.change(ctx, m, level)
}

// Value gives the count, at the level in opts, else Options.Read: at Quorum it includes
// every Add that was acknowledged at Quorum before it began. A counter that was
// never added to is 0.
//
// Errors beside those of Get: ErrWrongType; ErrOverflow, where what was counted apart is
// together beyond an int64, until enough is counted back.
func (c Counter) Value(ctx context.Context, opts ...GetOption) (int64, error) {
	s, err := c.at.read(ctx, opts)
	if err != nil {
		return 0, err
	}
	n, err := s.Count()
	if err != nil {
		return 0, typeError(c.at.key, err)
	}
	return n, nil
}
