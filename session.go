package kvstore

import (
	"context"
	"fmt"
	"sync"

	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// sessionKeys is how many keys a session knows the versions of.
const sessionKeys = 1000

type sessionKey struct{}

// A visitor is a session of WithSession: what its calls have seen, of each key the
// version that a read must cover.
type visitor struct {
	mu struct {
		sync.Mutex
		seen map[string]*seenKey
	}
}

// A seenKey is what a session has seen of one key: a history, and the dots of
// writes whose authors could not claim all earlier ones of their actor.
type seenKey struct {
	past vclock.History
	own  []vclock.Dot
}

// WithSession gives a context whose calls, on any nodes of one cluster, see what
// calls with it have written and read before, at whatever level: a Get at One that
// meets an owner which is behind asks more of them, and fails with ErrUnavailable
// rather than go back. A plain Put is stamped above what the session has seen of
// its key.
//
// A session remembers 1,000 keys, those that come first. Calls for others are made
// at Quorum, if the level is lower. Scan does not heed sessions.
func WithSession(ctx context.Context) context.Context {
	s := &visitor{}
	s.mu.seen = map[string]*seenKey{}
	return context.WithValue(ctx, sessionKey{}, s)
}

// sessionOf gives the context's session, or nil.
func sessionOf(ctx context.Context) *visitor {
	s, _ := ctx.Value(sessionKey{}).(*visitor)
	return s
}

// covered reports whether v has seen all that the session has of the key.
func (s *visitor) covered(key string, v vclock.Version) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.mu.seen[key]
	if k == nil || !defences.Sessions {
		return true
	}
	if !v.Past.Covers(k.past) {
		return false
	}
	for _, d := range k.own {
		if !v.Contains(d) {
			return false
		}
	}
	return true
}

// max is the greatest dot that the session has seen of the key.
func (s *visitor) max(key string) vclock.Dot {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.mu.seen[key]
	if k == nil {
		return vclock.Dot{}
	}
	return k.max()
}

func (k *seenKey) max() vclock.Dot {
	top := k.past.Max()
	for _, d := range k.own {
		if top.Less(d) {
			top = d
		}
	}
	return top
}

// note remembers that the session has seen v of the key, if there is room.
func (s *visitor) note(key string, v vclock.Version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.mu.seen[key]
	if k == nil {
		if len(s.mu.seen) == sessionKeys {
			return
		}
		k = &seenKey{}
		s.mu.seen[key] = k
	}
	k.past = k.past.Join(v.Past)
	if !v.Own.IsZero() && !k.past.Contains(v.Own) {
		k.own = append(k.own, v.Own)
	}
	own := k.own[:0]
	for _, d := range k.own {
		if !k.past.Contains(d) {
			own = append(own, d)
		}
	}
	k.own = own
}

// level is the level at which a call for the key must be made: the one asked for,
// or Quorum if that is higher and the session has no room for the key.
func (s *visitor) level(key string, level Consistency, replicas int) Consistency {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.seen[key] != nil || len(s.mu.seen) < sessionKeys {
		return level
	}
	if need, err := level.required(replicas); err == nil && need < replicas/2+1 && level != EachQuorum {
		return Quorum
	}
	return level
}

// read is get within the context's session, if it has one: at the level, and at
// higher ones while the answer lacks what the session has seen.
func (db *DB) read(ctx context.Context, key string, level Consistency, raw *replica.Record) (Item, error) {
	s := sessionOf(ctx)
	if s == nil {
		return db.get(ctx, key, level, raw)
	}
	for _, l := range [...]Consistency{s.level(key, level, db.replicas()), Quorum, All} {
		it, err := db.get(ctx, key, l, raw)
		if err != nil && !isAny(err, ErrNotFound) {
			return it, err
		}
		if it.forgotten > 0 && s.max(key).Stamp <= it.forgotten {
			return it, err // what the session has seen was deleted since
		}
		if s.covered(key, it.Version.seen) {
			s.note(key, it.Version.seen)
			return it, err
		}
	}
	qe := QuorumError{Op: opGet, Key: key, Level: level, outcome: NotApplied}
	return Item{Key: key}, qe.fail(fmt.Errorf("%w: no owner that answered has what the session has seen", ErrUnavailable))
}

// replicas is the number of owners of each key that the cluster wants.
func (db *DB) replicas() int {
	if v := db.view.Load(); v != nil {
		return v.ring.N()
	}
	return db.opts.N
}
