package replica_test

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// The search below is about writes whose stamps tell nothing of their order: clocks
// differ as they like, owners crash before they have synced, messages come in any order
// or not at all. Write and Read decide.

// quorumRules are what may be left out of the rules of writes and reads.
type quorumRules struct {
	synced    bool // reads are answered from what is synced
	writeBack bool // a read has what it joined written back before it returns
	restamp   bool // a write that an owner calls superseded is stamped again
}

const (
	firstStamps = 2 // those that clocks give
	lastStamp   = 4 // with those that are stamped again; the first of them is the last but under torture
)

// A quorumState is one key at its owners, two writes and some reads. Stamps are small
// numbers.
type quorumState struct {
	owners [searchOwners]quorumOwner // in any order: see add
	by     [lastStamp + 1]uint8      // the write, from 1, that took a stamp
	writes [searchWrites]quorumWrite
	reads  [2]quorumRead
	acked  uint8 // set of writes
	most   uint8 // the highest stamp that was acknowledged or read
}

// A quorumOwner is one owner, and what coordinators know of it.
type quorumOwner struct {
	shows, synced uint8 // stamps; 0 is nothing
	coming, taken uint8 // sets of stamps: on the way to it, and not synced yet
	acks, newer   uint8 // sets of writes, by what it has answered
	top           uint8 // of what is newer
	asked, backed uint8 // sets of reads
	got           [2]uint8
}

type quorumWrite struct {
	stamp uint8 // 0 before it began
	after uint8 // writes that were acknowledged when it began
}

type quorumRead struct {
	step   readStep
	joined uint8 // while it is written back
	least  uint8 // the stamp that it must not go behind
	after  uint8 // writes that were acknowledged when it began
}

type readStep uint8

const (
	readToCome readStep = iota
	readAsks
	readWritesBack
	readEnded
)

type quorumSearch struct {
	walk[quorumState]
	rules  quorumRules
	writes int
	reads  int
	last   uint8 // stamp
}

func stamped(stamp uint8) replica.Record {
	if stamp == 0 {
		return replica.Record{}
	}
	return replica.Record{Dot: vclock.Dot{Stamp: uint64(stamp), Actor: 1}, Value: []byte{stamp}}
}

// add adds a state. Owners are alike, so that their order does not matter.
func (s *quorumSearch) add(n quorumState) {
	slices.SortFunc(n.owners[:], func(a, b quorumOwner) int { return cmp.Compare(a.packed(), b.packed()) })
	s.walk.add(n)
}

func (o *quorumOwner) packed() (sum uint64) {
	for _, x := range [...]uint8{o.shows, o.synced, o.coming, o.taken, o.acks, o.newer, o.top, o.asked, o.backed, o.got[0], o.got[1]} {
		sum = sum<<5 | uint64(x)
	}
	return sum
}

// follow adds the states that come after one.
func (s *quorumSearch) follow(at quorumState) {
	for w := range s.writes {
		if at.writes[w].stamp != 0 {
			continue
		}
		for stamp := uint8(1); stamp <= firstStamps; stamp++ {
			if at.by[stamp] == 0 {
				n := at
				n.writes[w].after = n.acked
				n.send(w, stamp)
				s.add(n)
			}
		}
		break // the next one begins later
	}
	for i := range at.owners {
		if o := &at.owners[i]; o.synced != o.shows {
			s.sync(at, i)
			n := at // or it crashes
			n.owners[i].shows, n.owners[i].taken = o.synced, 0
			s.add(n)
		}
		for stamp := uint8(1); stamp <= lastStamp; stamp++ {
			s.deliver(at, i, stamp)
		}
	}
	for k := range s.reads {
		switch at.reads[k].step {
		case readToCome:
			n := at
			n.reads[k] = quorumRead{step: readAsks, least: n.most, after: n.acked}
			s.add(n)
		case readAsks, readWritesBack:
			s.read(at, k)
			continue
		case readEnded:
			continue
		}
		break // the next one begins later
	}
}

// send has write w go to all owners under a stamp.
func (n *quorumState) send(w int, stamp uint8) {
	n.by[stamp], n.writes[w].stamp = uint8(w+1), stamp
	for i := range n.owners {
		o := &n.owners[i]
		o.coming |= 1 << stamp
		o.acks &^= 1 << w
		o.newer &^= 1 << w
	}
}

// sync has owner i sync what it has, and say so.
func (s *quorumSearch) sync(n quorumState, i int) {
	n.owners[i].sync(&n.writes)
	s.answered(n)
}

func (o *quorumOwner) sync(writes *[searchWrites]quorumWrite) {
	o.synced = o.shows
	o.answer(writes)
}

// answer acknowledges what is synced.
func (o *quorumOwner) answer(writes *[searchWrites]quorumWrite) {
	synced := o.taken & (1<<(o.synced+1) - 1)
	for w := range writes {
		if synced>>writes[w].stamp&1 == 1 {
			o.acks |= 1 << w
		}
	}
	o.taken &^= synced
}

// deliver has owner i join what is on its way to it under a stamp.
func (s *quorumSearch) deliver(n quorumState, i int, stamp uint8) {
	o := &n.owners[i]
	if o.coming>>stamp&1 == 0 {
		return
	}
	o.coming &^= 1 << stamp
	w := n.by[stamp] - 1
	switch {
	case o.shows <= stamp || !s.rules.restamp:
		o.shows = max(o.shows, stamp)
		o.taken |= 1 << stamp
		if o.synced >= stamp {
			o.answer(&n.writes)
		}
	case n.writes[w].stamp == stamp:
		o.newer |= 1 << w
		o.top = max(o.top, o.shows)
	}
	s.answered(n)
}

// answered has the coordinators do what the answers amount to.
func (s *quorumSearch) answered(n quorumState) {
	for w := range n.writes {
		stamp := n.writes[w].stamp
		if stamp == 0 || n.acked>>w&1 == 1 {
			continue
		}
		q := replica.NewWrite(replica.Need{Count: searchQuorum}, searchOwners)
		for i := range n.owners {
			switch o := &n.owners[i]; {
			case o.acks>>w&1 == 1:
				q.Ack(i)
			case o.newer>>w&1 == 1:
				q.Superseded(i, vclock.Dot{Stamp: uint64(o.top), Actor: 1})
			}
		}
		switch q.Verdict() {
		case replica.Done:
			n.acked |= 1 << w
			n.most = max(n.most, stamp)
		case replica.Restamp:
			for stamp = uint8(q.Newer().Stamp); stamp <= s.last && n.by[stamp] != 0; stamp++ {
			}
			if stamp > s.last {
				return // these were all stamps
			}
			n.send(w, stamp)
		}
	}
	s.add(n)
}

// read has read k hear one more owner, or have one more written back to.
func (s *quorumSearch) read(at quorumState, k int) {
	for i := range at.owners {
		n := at
		x, o := &n.reads[k], &n.owners[i]
		switch {
		case x.step == readAsks && o.asked>>k&1 == 0:
			o.got[k] = o.shows
			if s.rules.synced {
				o.got[k] = o.synced
			}
			o.asked |= 1 << k
		case x.step == readWritesBack && o.backed>>k&1 == 0:
			o.shows = max(o.shows, x.joined)
			o.backed |= 1 << k
			o.sync(&n.writes)
		default:
			continue
		}
		r := replica.NewRead(replica.Need{Count: searchQuorum}, searchOwners)
		for j := range n.owners {
			switch o := &n.owners[j]; {
			case x.step == readAsks && o.asked>>k&1 == 1:
				r.Answer(j, stamped(o.got[k]))
			case x.step == readWritesBack && o.backed>>k&1 == 1:
				r.Answer(j, stamped(x.joined))
			}
		}
		stamp := uint8(r.Joined().Dot.Stamp)
		switch {
		case r.Verdict() != replica.Done:
			s.answered(n)
		case s.rules.writeBack && !r.Agreed():
			x.step, x.joined = readWritesBack, stamp
			for j := range n.owners {
				if r.Holds(j) {
					n.owners[j].backed |= 1 << k
				}
			}
			s.add(n)
		default:
			s.finish(n, k, stamp)
		}
	}
}

// finish has read k return what has a stamp.
func (s *quorumSearch) finish(n quorumState, k int, stamp uint8) {
	x := n.reads[k]
	if stamp < x.least {
		s.broken = fmt.Sprintf("a read gives %d, and %d was acknowledged or read: %+v", stamp, x.least, n)
		return
	}
	if w := n.by[stamp]; w != 0 {
		for later := range n.writes {
			if x.after>>later&1 == 1 && n.writes[later].after>>(w-1)&1 == 1 {
				s.broken = fmt.Sprintf("a read gives write %d, and write %d, which followed it, was acknowledged: %+v", w, later+1, n)
				return
			}
		}
	}
	n.most = max(n.most, stamp)
	n.reads[k] = quorumRead{step: readEnded}
	for i := range n.owners {
		o := &n.owners[i]
		o.asked, o.backed, o.got[k] = o.asked&^(1<<k), o.backed&^(1<<k), 0
	}
	s.add(n)
}

// TestSearchQuorum: in no state of two writes under any stamps does a quorum read miss
// what was acknowledged or read before (I4), nor give a write that an acknowledged one
// followed; and each rule is needed for that.
func TestSearchQuorum(t *testing.T) {
	for _, tt := range []struct {
		name          string
		holds         bool
		writes, reads int
		change        func(*quorumRules)
	}{
		{"all rules, two reads", true, 1, 2, func(*quorumRules) {}},
		{"all rules, two writes", true, 2, 1, func(*quorumRules) {}},
		{"reads of what is not synced", false, 1, 2, func(r *quorumRules) { r.synced = false }},
		{"no write-back", false, 1, 2, func(r *quorumRules) { r.writeBack = false }},
		{"superseded writes are acknowledged", false, 2, 1, func(r *quorumRules) { r.restamp = false }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := quorumSearch{rules: quorumRules{true, true, true}, writes: tt.writes, reads: tt.reads, last: firstStamps + 1}
			if os.Getenv("KVSTORE_TORTURE") != "" && tt.writes == 2 {
				s.last = lastStamp
			}
			tt.change(&s.rules)
			states := s.run(s.follow)
			t.Logf("%d states; %s", states, s.broken)
			require.Equal(t, tt.holds, s.broken == "", s.broken)
		})
	}
}
