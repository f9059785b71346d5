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
// decided by the code of this package: Judge, Join, Gone, Read, Forgotten, Heals.
// Messages take any time and any order, so what a search leaves out is only that they are
// lost, which is a message that never comes.

// searchRules are what may be left out of the rules of the horizon (I5), or of reads
// (I4), to see that it is missed.
type searchRules struct {
	promise   bool // what comes late is refused
	merge     bool // a round merges before it records
	recorded  bool // tombstones are kept until a horizon covers them
	writeBack bool // a read has what it joined written back before it returns
	reread    bool // a write-back that comes late is compared with what there is now

	incomplete bool // an owner that lost data answers no read and takes part in no round
	yield      bool // the others promise up to what it may have acknowledged
	quorum     bool // it exchanges with enough of the others
	drop       bool // it loses what they have forgotten
	floor      bool // no horizon passes a hint that was counted
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
	purged             bool // the delete was forgotten somewhere

	// Damage: one owner loses its newest record, once.
	had              [searchOwners]uint8 // sets of writes that its tables may have
	hurt             uint8               // the owner, from 1; 0: none so far
	healing, void    bool                // it is incomplete; the round began before
	asOf             uint8               // all that it may have acknowledged
	yielded, fetched uint8               // owners
	low              uint8               // the lowest horizon of those that it has fetched from

	// Hints that count, at a fourth node.
	hints, counted [searchWrites + 1]uint8 // by write: owners
	hintFloor      uint8
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
	damage bool // of one owner, with anyHurt of each of them
	hints  bool

	anyHurt bool
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
func (s *search) join(n *searchState, i int, w uint8) {
	joined, err := replica.Join(searchRecord(n.holds[i]), searchRecord(w))
	if err != nil {
		panic(err)
	}
	n.holds[i] = uint8(joined.Dot.Stamp)
	if s.damage {
		n.had[i] |= 1 << w
	}
}

// lacking reports whether owner i lost data and is not whole again.
func (n *searchState) lacking(i int) bool { return n.healing && int(n.hurt) == i+1 }

// acknowledge notes that write w is at owner i, or in a hint that counts.
func (n *searchState) acknowledge(w uint8) {
	if bits.OnesCount8(n.acks[w]|n.counted[w]) >= searchQuorum {
		n.acked = max(n.acked, w)
	}
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
					s.join(&n, i, w)
					n.acks[w] |= 1 << i
					n.acknowledge(w)
				}
				s.add(n)
			}
			if s.hints {
				s.hint(at, i, w)
			}
			if at.backs[i]>>w&1 == 1 {
				s.takeBack(at, i, w)
			}
		}
		for j := range searchOwners {
			if j == i || s.rules.incomplete && (at.lacking(i) || at.lacking(j)) {
				continue
			}
			n := at // an exchange brings i what j has
			if s.judge(&n, i, n.holds[j], replica.Exchanged) == replica.Take {
				s.join(&n, i, n.holds[j])
				s.add(n)
			}
			if at.reads < s.reads && at.reading == 0 && i < j {
				s.read(at, i, j)
			}
		}
		if w := at.holds[i]; w != 0 && (searchRecord(w).Gone(uint64(at.recorded[i])) || !s.rules.recorded && searchRecord(w).Tombstone) {
			n := at
			n.holds[i], n.purged = 0, true
			n.had[i] &^= 1<<(w+1) - 1
			s.add(n)
		}
		if s.damage && at.hurt == 0 && (i == 0 || s.anyHurt) {
			s.hurt(at, i)
		}
	}
	if at.healing {
		s.heal(at)
	}
	s.round(at)
	s.settle(at)
}

// hint has a fourth node keep write w for owner i, counted in its place, or hand it
// over.
func (s *search) hint(at searchState, i int, w uint8) {
	if n := at; n.pending[w]>>i&1 == 1 && n.counted[w]>>i&1 == 0 && (w > n.hintFloor || !s.rules.floor) {
		n.hints[w] |= 1 << i
		n.counted[w] |= 1 << i
		n.acknowledge(w)
		s.add(n)
	}
	if n := at; n.hints[w]>>i&1 == 1 {
		s.handOver(&n, i, w)
		s.add(n)
	}
}

func (s *search) handOver(n *searchState, i int, w uint8) {
	n.hints[w] &^= 1 << i
	if s.judge(n, i, w, replica.Counted) == replica.Take {
		s.join(n, i, w)
	}
}

// hurt has owner i lose what it holds, but for something older in another table.
func (s *search) hurt(at searchState, i int) {
	for left := range at.holds[i] {
		if left > 0 && at.had[i]>>left&1 == 0 {
			continue
		}
		n := at
		n.holds[i], n.recorded[i] = left, 0
		n.had[i] &= 1<<(left+1) - 1
		n.hurt, n.healing, n.void, n.asOf = uint8(i+1), true, n.step > 0, n.issued
		n.low = s.writes
		s.add(n)
	}
}

// heal has the owner that lost data go on by one step: the others promise in turn, it
// exchanges with them in turn, and is whole.
func (s *search) heal(at searchState) {
	i := int(at.hurt) - 1
	enough := func(owners uint8) bool {
		return replica.Heals(searchOwners, bits.OnesCount8(owners)) || !s.rules.quorum && owners != 0
	}
	for j := range searchOwners {
		n := at
		switch bit := uint8(1) << j; {
		case j == i:
			continue
		case n.yielded&bit == 0:
			n.yielded |= bit
			if s.rules.yield {
				n.promised[j] = max(n.promised[j], n.asOf)
			}
		case n.fetched&bit == 0 && enough(n.yielded):
			s.fetch(&n, i, j)
		default:
			continue
		}
		if s.add(n); s.rules.quorum {
			break
		}
	}
	if enough(at.fetched) {
		n := at
		n.whole(i)
		s.add(n)
	}
}

// fetch brings owner i what j has, and takes from it what j has forgotten.
func (s *search) fetch(n *searchState, i, j int) {
	n.fetched |= 1 << j
	n.low = min(n.low, n.recorded[j])
	if s.judge(n, i, n.holds[j], replica.Exchanged) == replica.Take {
		s.join(n, i, n.holds[j])
	}
	horizon := vclock.Dot{Stamp: uint64(n.recorded[j]), Actor: 1}
	rec, lose, err := replica.Forgotten(searchRecord(n.holds[i]), searchRecord(n.holds[j]), horizon)
	if err != nil {
		panic(err)
	}
	if lose && n.recorded[j] > 0 && s.rules.drop {
		joined, err := replica.Join(searchRecord(n.holds[i]), rec)
		if err != nil {
			panic(err)
		}
		n.holds[i] = 0
		if !joined.Gone(horizon.Stamp) {
			n.holds[i] = uint8(joined.Dot.Stamp)
		}
		n.had[i] = 0
	}
}

func (n *searchState) whole(i int) {
	n.recorded[i], n.promised[i], n.healing = n.low, max(n.promised[i], n.asOf), false
}

// settle looks at what comes of a state when faults end, and no client writes: hints are
// handed over, the owner that lost data heals, all exchange. All then hold the same, and
// nothing that was acknowledged is lost or deleted again.
func (s *search) settle(n searchState) {
	if !s.damage && !s.hints {
		return
	}
	at := n
	for i := range searchOwners {
		for j := range i {
			if s.hints || s.rules.incomplete && (at.lacking(i) || at.lacking(j)) {
				continue // a counted hint is not where reads look
			}
			if _, _, right := s.ask(&at, i, j); !right {
				return
			}
		}
	}
	for w := range n.hints {
		for i := range searchOwners {
			if n.hints[w]>>i&1 == 1 {
				s.handOver(&n, i, uint8(w))
			}
		}
	}
	if n.healing {
		i := int(n.hurt) - 1
		for j := range searchOwners {
			if j != i && n.fetched>>j&1 == 0 {
				s.fetch(&n, i, j)
			}
		}
		n.whole(i)
	}
	for range 2 {
		for i := range searchOwners {
			for j := range searchOwners {
				if i != j && s.judge(&n, i, n.holds[j], replica.Exchanged) == replica.Take {
					s.join(&n, i, n.holds[j])
				}
			}
		}
	}
	horizon := uint64(max(n.recorded[0], n.recorded[1], n.recorded[2]))
	for i, w := range n.holds {
		if searchRecord(w).Gone(horizon) {
			n.holds[i] = 0
		}
	}
	switch w := n.holds[0]; {
	case n.holds[1] != w || n.holds[2] != w:
		s.broken = fmt.Sprintf("at rest owners hold %d: %+v", n.holds, at)
	case w < max(n.acked, n.seen) && !(w == 0 && searchRecord(2).Gone(horizon)):
		s.broken = fmt.Sprintf("at rest owners hold %d, and %d was acknowledged or read: %+v", w, max(n.acked, n.seen), at)
	case w == 1 && n.purged:
		s.broken = fmt.Sprintf("at rest owners hold what was deleted: %+v", at)
	}
}

// ask gives what a read has from owners i and j, and what it joins; not right when that
// breaks a promise.
func (s *search) ask(at *searchState, i, j int) (r replica.Read, w uint8, right bool) {
	r = replica.NewRead(replica.Need{Count: searchQuorum}, searchOwners)
	for _, k := range []int{i, j} {
		if w := at.holds[k]; w == 0 {
			r.Absent(k, uint64(at.recorded[k]))
		} else {
			r.Answer(k, searchRecord(w))
		}
	}
	joined := r.Joined()
	w = uint8(joined.Dot.Stamp)
	least := max(at.acked, at.seen)
	// Nothing at all may be there once a delete was forgotten that came after.
	forgotten := w == 0 && at.issued >= 2 && least <= 2 && (searchRecord(2).Gone(r.Horizon()) || !s.rules.recorded)
	if w < least && !forgotten || w == 1 && at.purged {
		s.broken = fmt.Sprintf("a read of %d and %d gives %d; acknowledged or read was %d, the delete forgotten %v: %+v", i, j, w, least, at.purged, *at)
		return r, w, false
	}
	return r, w, true
}

// read has a read ask owners i and j. It returns at once, or when a quorum has what
// it joined.
func (s *search) read(at searchState, i, j int) {
	r, w, right := s.ask(&at, i, j)
	if !right {
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
		s.join(&n, i, w)
		end(n, true)
	case replica.Ignore:
		end(n, true)
	case replica.Reread:
		for k := range searchOwners {
			if n := at; k != i {
				if there := n.holds[k]; there > n.recorded[i] {
					s.join(&n, i, there)
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
	end := func() {
		n.step, n.void = 0, false
		s.add(n)
	}
	// An owner that lost data since the round began ends it.
	out := func(i int) bool { return s.rules.incomplete && int(n.hurt) == i+1 && (n.healing || n.void) }
	switch k := int(at.step) - 1; {
	case k < 0 && (at.rounds == s.rounds || at.issued == 0):
		return
	case k < 0:
		n.rounds++
		n.horizon = at.issued
		for w := n.horizon; w > 0 && s.rules.floor; w-- {
			if n.hints[w] != 0 {
				n.horizon = w - 1
			}
		}
		n.hintFloor = max(n.hintFloor, n.horizon)
	case k < searchOwners && out(k):
		end()
		return
	case k < searchOwners:
		n.promised[k] = max(n.promised[k], n.horizon)
	case k < searchOwners+merges:
		i := (k - searchOwners) / (searchOwners - 1)
		j := (i + 1 + (k-searchOwners)%(searchOwners-1)) % searchOwners
		if out(i) || s.rules.incomplete && n.lacking(j) {
			end()
			return
		}
		if w := n.holds[j]; s.rules.merge && w <= n.horizon && s.judge(&n, i, w, replica.Exchanged) == replica.Take {
			s.join(&n, i, w)
		}
	default:
		i := k - searchOwners - merges
		if out(i) {
			end()
			return
		}
		n.recorded[i] = max(n.recorded[i], n.horizon)
	}
	if n.step = (n.step + 1) % (2*searchOwners + merges + 1); n.step == 0 {
		n.void = false
	}
	s.add(n)
}

// TestSearchDamage: nor when an owner loses data and heals, or hints count; nothing that
// was acknowledged is lost, nothing deleted comes back, and all agree at rest (I1, I3, I5).
// Under KVSTORE_TORTURE=1 any owner may lose data, else the first.
func TestSearchDamage(t *testing.T) {
	all := searchRules{true, true, true, true, true, true, true, true, true, true}
	for _, tt := range []struct {
		name          string
		holds         bool
		damage, hints bool
		change        func(*searchRules)
	}{
		{"damage", true, true, false, func(*searchRules) {}},
		{"incomplete owners take part", false, true, false, func(r *searchRules) { r.incomplete = false }},
		{"the others do not promise", false, true, false, func(r *searchRules) { r.yield = false }},
		{"one other owner is enough", false, true, false, func(r *searchRules) { r.quorum = false }},
		{"what was forgotten stays", false, true, false, func(r *searchRules) { r.drop = false }},
		{"hints", true, false, true, func(*searchRules) {}},
		{"horizons pass hints", false, false, true, func(r *searchRules) { r.floor = false }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := search{rules: all, writes: 2, rounds: 1, damage: tt.damage, hints: tt.hints}
			s.anyHurt = os.Getenv("KVSTORE_TORTURE") != "" || !tt.holds
			if testing.Short() && tt.holds {
				t.Skip("millions of states")
			}
			tt.change(&s.rules)
			states := s.run(s.follow)
			t.Logf("%d states; %s", states, s.broken)
			require.Equal(t, tt.holds, s.broken == "", s.broken)
		})
	}
}

// TestSearchHorizon: in no state of one key does a quorum read miss what was
// acknowledged or read before, or give what was deleted, and each rule is needed for
// that (I4, I5). A put and a delete, a round and a read; under KVSTORE_TORTURE=1 two
// reads.
func TestSearchHorizon(t *testing.T) {
	all := searchRules{true, true, true, true, true, true, true, true, true, true}
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
