package lsm

import (
	"math"

	"example.com/kvstore/lsm/internal/cache"
	"example.com/kvstore/vclock"
)

// The record cache stands between the memtables and the tables.
//
// Invariant: a copy is the join of all that the tree shows of its key, except for
// what is in a memtable whose writer has not called showCached yet. So a copy
// joined with the memtables of any version acquired before is the full join, no
// table is needed, and a reader sees what readers before it saw.
//
// What keeps it, at each step that changes what the tree shows:
//
//   - A write is shown by its memtable first, and then written through, both
//     before it is acknowledged and before the memtable can be flushed: the log's
//     goroutine seals only between groups, and other writers have entered the
//     memtable. It does not matter in which order two writes of a key, or records
//     with older dots, come: a copy is joined with each of them, or dropped.
//   - A flush moves records that were written through; a compaction that purges
//     nothing joins records to the same join. Neither touches the cache.
//   - A compaction that purges, and whatever else puts tables in or out or keeps
//     records from being seen, goes through changeBelow.
//   - A fill is what a full lookup found. Its ticket is older than the version it
//     read, and so it is dropped if any of the above happened to the key since.
//
// Deadlines are judged by who reads, on copies too. Absence is never cached.

// showCached writes a record through that its memtable shows by now. It is called
// before the writer leaves the memtable.
func (t *Tree) showCached(r *Record) {
	if defences.WriteThrough {
		t.cache.Update(r)
	}
}

// stale says of which tokens a change of tables may outdate copies.
type stale struct {
	lo, hi uint64   // all from lo to hi, both included; none if lo > hi
	tokens []uint64 // and these
}

// nothingStale is for changes that leave every record as it is.
func nothingStale() stale { return stale{lo: math.MaxUint64} }

// maxStaleTokens bounds the list of a stale, which then becomes a range.
const maxStaleTokens = 1 << 16

// add adds a token of the slice from lo to hi.
func (s *stale) add(token, lo, hi uint64) {
	switch {
	case s.lo <= s.hi:
	case len(s.tokens) < maxStaleTokens:
		s.tokens = append(s.tokens, token)
	default:
		s.lo, s.hi, s.tokens = lo, hi, nil
	}
}

// span gives the first and the last token of a token's slice.
func (t *Tree) span(token uint64) (lo, hi uint64) {
	lo = token >> t.sliceShift << t.sliceShift
	return lo, lo | (1<<t.sliceShift - 1)
}

// changeBelow runs an edit that changes what a lookup finds below the memtables:
// purging, ingest, dropping a range, setting a table aside. Copies of the stale
// tokens are gone when it returns, and no read that overlaps with it fills the
// cache, so that no reader goes back behind another.
func (t *Tree) changeBelow(s stale, edit func() error) error {
	if s.lo > s.hi && len(s.tokens) == 0 {
		return edit()
	}
	if defences.FillHold {
		t.cache.Hold()
		defer t.cache.Release()
	}
	err := edit()
	if s.lo <= s.hi {
		t.cache.ForgetRange(s.lo, s.hi)
	}
	for _, token := range s.tokens {
		t.cache.Forget(token)
	}
	return err
}

// beginRead gives the ticket of a read. It comes before the read acquires its
// version.
func (t *Tree) beginRead(token uint64) cache.Ticket { return t.cache.Begin(token) }

// cached joins in the copy of the cache, with which the tables are not needed.
func (l *lookup) cached(t *Tree, v *version, token uint64, key []byte) bool {
	below, ok := v.maxDot(t.slice(token))
	if !ok || l.settles(below) {
		return false // nor is the cache
	}
	r, ok := t.cache.Get(token, key, l.copied[:0])
	if !ok {
		return false
	}
	l.copied = r.Value
	l.join(t, key, &r, false)
	return true
}

// fill puts what a lookup found, some of it in tables, into the cache.
func (l *lookup) fill(t *Tree, ticket cache.Ticket, token uint64, key []byte) {
	if !l.below {
		return
	}
	r := l.r
	r.Token, r.Key = token, key
	if !defences.FillGeneration {
		ticket = t.cache.Begin(token)
	}
	t.cache.Fill(ticket, &r)
}

// maxDot gives the highest dot in the tables of a slice; false when there are none.
func (v *version) maxDot(slice int) (vclock.Dot, bool) {
	if len(v.slices[slice]) == 0 {
		return vclock.Dot{}, false
	}
	return v.slices[slice][0].maxDot, true
}
