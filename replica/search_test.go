package replica_test

import (
	"fmt"
	"hash/maphash"
	"math/bits"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// The search below walks through all states of one key at three owners, with what is
// decided by the code of this package: Judge, Join, Gone, Read. Messages take any time
// and any order, so what a search leaves out is only that they are lost, which is a
// message that never comes.

// searchRules are what may be left out of the rules of the horizon (I5), or of reads
// (I4), to see that it is missed.
type searchRules struct {
	promise   bool // what comes late is refused
	merge     bool // a round merges before it records
	recorded  bool // tombstones are kept until a horizon covers them
	writeBack bool // a read has what it joined written back before it returns
	reread    bool // a write-back that comes late is compared with what there is now
}

const (
	searchOwners = 3
	searchQuorum = 2
	searchWrites = 2
)

// searchRecord is what write w makes: the second one deletes. Write 0 is nothing.
func searchRecord(w uint8) replica.Record {
	if w == 0 {
		return replica.Record{}
	}
	return replica.Record{Dot: vclock.Dot{Stamp: uint64(w), Actor: 1}, Tombstone: w == 2}
}

// A searchState is one key at its owners, what is on its way, and what was promised
// to callers.
type searchState struct {
	holds              [searchOwners]uint8 // the write, 0 for nothing
	promised, recorded [searchOwners]uint8
	issued             uint8
	pending, acks      [searchWrites + 1]uint8 // by write: owners
	acked              uint8                   // the newest write acknowledged
	seen               uint8                   // the newest that a read returned
	backs              [searchOwners]uint8     // writes on their way back to an owner: a set
	reading            uint8                   // what a read joined, that waits for its write-back
	backed             uint8                   // owners that have it
	step, horizon      uint8                   // of the round; step 0: there is none
	rounds, reads      uint8
}

// A walk looks at every state once.
type walk[S comparable] struct {
	todo   []S
	seed   maphash.Seed
	known  map[uint64]struct{} // hashes of the states: they do not fit otherwise
	broken string              // the first promise that a state breaks
}

// run goes on from the zero state to those that follow adds, until one is broken.
func (s *walk[S]) run(follow func(S)) (states int) {
	s.seed, s.known = maphash.MakeSeed(), map[uint64]struct{}{}
	var first S
	s.add(first)
	for len(s.todo) > 0 && s.broken == "" {
		at := s.todo[len(s.todo)-1]
		s.todo = s.todo[:len(s.todo)-1]
		follow(at)
	}
	return len(s.known)
}

func (s *walk[S]) add(n S) {
	h := maphash.Comparable(s.seed, n)
	if _, known := s.known[h]; !known {
		s.known[h] = struct{}{}
		s.todo = append(s.todo, n)
	}
}

// A search is a walk over the rules of the horizon.
type search struct {
	walk[searchState]
	rules  searchRules
	writes uint8
	rounds uint8
	reads  uint8
}

// judge is what owner i does with write w.
func (s *search) judge(n *searchState, i int, w uint8, from replica.Source) replica.Judgement {
	h := replica.Horizon{Promised: uint64(n.promised[i]), Recorded: uint64(n.recorded[i])}
	rec := searchRecord(w)
	j := h.Judge(from, rec.Dot, rec.Dot, rec.Gone(h.Recorded))
	switch {
	case !s.rules.promise && from == replica.Fresh, !s.rules.reread && j == replica.Reread:
		return replica.Take
	}
	return j
}

// join has owner i join write w with what it holds.
func join(n *searchState, i int, w uint8) {
	joined, err := replica.Join(searchRecord(n.holds[i]), searchRecord(w))
	if err != nil {
		panic(err)
	}
	n.holds[i] = uint8(joined.Dot.Stamp)
}

// follow adds the states that come after one.
func (s *search) follow(at searchState) {
	if at.issued < s.writes {
		n := at
		n.issued++
		n.pending[n.issued] = 1<<searchOwners - 1
		s.add(n)
	}
	for i := range searchOwners {
		for w := uint8(1); w <= at.issued; w++ {
			if at.pending[w]>>i&1 == 1 { // a write or a hint arrives
				n := at
				n.pending[w] &^= 1 << i
				if s.judge(&n, i, w, replica.Fresh) == replica.Take {
					join(&n, i, w)
					n.acks[w] |= 1 << i
					if bits.OnesCount8(n.acks[w]) >= searchQuorum {
						n.acked = max(n.acked, w)
					}
				}
				s.add(n)
			}
			if at.backs[i]>>w&1 == 1 {
				s.takeBack(at, i, w)
			}
		}
		for j := range searchOwners {
			if j == i {
				continue
			}
			n := at // an exchange brings i what j has
			if s.judge(&n, i, n.holds[j], replica.Exchanged) == replica.Take {
				join(&n, i, n.holds[j])
				s.add(n)
			}
			if at.reads < s.reads && at.reading == 0 && i < j {
				s.read(at, i, j)
			}
		}
		if w := at.holds[i]; w != 0 && (searchRecord(w).Gone(uint64(at.recorded[i])) || !s.rules.recorded && searchRecord(w).Tombstone) {
			n := at
			n.holds[i] = 0
			s.add(n)
		}
	}
	s.round(at)
}

// read has a read ask owners i and j. It returns at once, or when a quorum has what
// it joined.
func (s *search) read(at searchState, i, j int) {
	r := replica.NewRead(replica.Need{Count: searchQuorum}, searchOwners)
	for _, k := range []int{i, j} {
		if w := at.holds[k]; w == 0 {
			r.Absent(k, uint64(at.recorded[k]))
		} else {
			r.Answer(k, searchRecord(w))
		}
	}
	joined := r.Joined()
	w := uint8(joined.Dot.Stamp)
	least := max(at.acked, at.seen)
	// Nothing at all may be there once a delete was forgotten that came after.
	forgotten := w == 0 && at.issued >= 2 && least <= 2 && (searchRecord(2).Gone(r.Horizon()) || !s.rules.recorded)
	if w < least && !forgotten {
		s.broken = fmt.Sprintf("a read of %d and %d gives %d, and %d was acknowledged or read: %+v", i, j, w, least, at)
		return
	}
	n := at
	n.reads++
	if r.Agreed() || !s.rules.writeBack {
		n.seen = max(n.seen, w)
		s.add(n)
		return
	}
	n.reading, n.backed = w, 0
	for k := range searchOwners {
		if r.Holds(k) {
			n.backed |= 1 << k
		} else {
			n.backs[k] |= 1 << w
		}
	}
	s.add(n)
}

// takeBack has owner i take a write that was written back, and the read return once a
// quorum has it. One that comes late is taken as another owner has it now.
func (s *search) takeBack(at searchState, i int, w uint8) {
	end := func(n searchState, holds bool) {
		n.backs[i] &^= 1 << w
		if holds && n.reading == w {
			n.backed |= 1 << i
			if bits.OnesCount8(n.backed) >= searchQuorum {
				n.seen, n.reading, n.backed = max(n.seen, w), 0, 0
			}
		}
		s.add(n)
	}
	n := at
	switch s.judge(&n, i, w, replica.WrittenBack) {
	case replica.Take:
		join(&n, i, w)
		end(n, true)
	case replica.Ignore:
		end(n, true)
	case replica.Reread:
		for k := range searchOwners {
			if n := at; k != i {
				if there := n.holds[k]; there > n.recorded[i] {
					join(&n, i, there)
				}
				end(n, n.holds[i] >= w)
			}
		}
	}
}

// round has a round go on by one step. Its driver goes from owner to owner: each
// promises, then each merges what every other has, then each records.
func (s *search) round(at searchState) {
	const merges = searchOwners * (searchOwners - 1)
	n := at
	switch k := int(at.step) - 1; {
	case k < 0 && (at.rounds == s.rounds || at.issued == 0):
		return
	case k < 0:
		n.rounds++
		n.horizon = at.issued
	case k < searchOwners:
		n.promised[k] = max(n.promised[k], n.horizon)
	case k < searchOwners+merges:
		i := (k - searchOwners) / (searchOwners - 1)
		j := (i + 1 + (k-searchOwners)%(searchOwners-1)) % searchOwners
		if w := n.holds[j]; s.rules.merge && w <= n.horizon && s.judge(&n, i, w, replica.Exchanged) == replica.Take {
			join(&n, i, w)
		}
	default:
		i := k - searchOwners - merges
		n.recorded[i] = max(n.recorded[i], n.horizon)
	}
	n.step = (n.step + 1) % (2*searchOwners + merges + 1)
	s.add(n)
}

// TestSearchHorizon: in no state of one key does a quorum read miss what was
// acknowledged or read before, or give what was deleted, and each rule is needed for
// that (I4, I5). A put and a delete, a round and a read; under KVSTORE_TORTURE=1 two
// reads.
func TestSearchHorizon(t *testing.T) {
	all := searchRules{true, true, true, true, true}
	for _, tt := range []struct {
		name          string
		holds         bool
		rounds, reads uint8
		change        func(*searchRules)
	}{
		{"all rules", true, 1, 1, func(*searchRules) {}},
		{"no promise", false, 1, 1, func(r *searchRules) { r.promise = false }},
		{"no merge", false, 1, 1, func(r *searchRules) { r.merge = false }},
		{"no horizon", false, 0, 1, func(r *searchRules) { r.recorded = false }},
		{"no write-back", false, 0, 2, func(r *searchRules) { r.writeBack = false }},
		{"no second look", false, 1, 2, func(r *searchRules) { r.reread = false }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := search{rules: all, writes: 2, rounds: tt.rounds, reads: tt.reads}
			if os.Getenv("KVSTORE_TORTURE") != "" && tt.holds {
				s.reads = 2
			}
			tt.change(&s.rules)
			states := s.run(s.follow)
			t.Logf("%d states; %s", states, s.broken)
			require.Equal(t, tt.holds, s.broken == "", s.broken)
		})
	}
}
