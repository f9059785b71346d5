package replica

import "math/bits"

func count(set uint64) int { return bits.OnesCount64(set) }

// A Read is the quorum state of one read: a pure value that is told each
// owner's answer once and keeps their join.
//
// Invariant: holders are the owners whose answer is the Same as joined; every
// other owner in answered holds less.
type Read struct {
	need             Need
	owners           int
	answered, failed uint64
	holders, damaged uint64
	absent           uint64 // answered that they hold nothing
	joined           Record
	recorded         [MaxOwners]uint64 // horizons of those

	digests  uint64 // owners in answered that gave a digest; not in holders
	digested [maxDigests]struct {
		owner int
		Record
	}
}

// maxDigests bounds the digests of one read: a level asks for one full answer.
const maxDigests = 16

// NewRead returns the state of a read that needs the answers need of owners
// replicas. There are at most MaxOwners, and enough for the need, which is not none.
func NewRead(need Need, owners int) Read { return Read{need: need, owners: owners} }

// Answer notes what owner i holds. The record's Value is kept by reference. An
// answer that cannot be joined (damaged bytes) is a failure of that owner.
func (r *Read) Answer(i int, rec Record) {
	bit := uint64(1) << i
	if (r.answered|r.failed)&bit != 0 {
		return
	}
	if rec.Digest {
		n := count(r.digests)
		if n == maxDigests || rec.Causal != (len(rec.Value) == DigestBytes) {
			r.Fail(i)
			return
		}
		r.digested[n].owner, r.digested[n].Record = i, rec
		r.digests |= bit
		r.answered |= bit
		return
	}
	joined, err := Join(r.joined, rec)
	if err != nil {
		r.Damaged(i)
		return
	}
	r.answered |= bit
	if r.answered&^r.digests == bit {
		r.joined, r.holders = joined, bit
		return
	}
	if !joined.Same(r.joined) {
		r.joined, r.holders = joined, 0
	}
	if joined.Same(rec) {
		r.holders |= bit
	}
}

// Absent notes that owner i holds nothing, and the horizon that it has recorded:
// behind that, absent is as good as what says "nothing". See Record.Gone.
func (r *Read) Absent(i int, recorded uint64) {
	r.Answer(i, Record{})
	if r.answered>>i&1 == 1 {
		r.absent |= 1 << i
		r.recorded[i] = recorded
	}
}

// Horizon is the highest horizon of the owners that hold nothing, 0 when none does.
func (r *Read) Horizon() (top uint64) {
	for i := range r.owners {
		if r.absent>>i&1 == 1 {
			top = max(top, r.recorded[i])
		}
	}
	return top
}

// holding are the owners that hold the joined record, or have had it and forgotten it.
func (r *Read) holding() uint64 {
	all := r.holders
	if r.absent&^all == 0 || !r.joined.Found() {
		return all
	}
	for i := range r.owners {
		if r.absent>>i&1 == 1 && r.joined.Gone(r.recorded[i]) {
			all |= 1 << i
		}
	}
	return all
}

// Fail notes that owner i will not answer.
func (r *Read) Fail(i int) {
	if r.answered>>i&1 == 0 {
		r.failed |= 1 << i
	}
}

// Damaged notes that owner i found its copy damaged: that is neither a value
// nor "absent" and counts for no quorum (I8).
func (r *Read) Damaged(i int) {
	r.Fail(i)
	r.damaged |= 1 << i & r.failed
}

// Verdict says what the answers so far amount to: Pending, Done or Impossible. As long
// as every owner that spoke found its copy damaged the others are waited for: whether
// any has a good one is part of the answer.
func (r *Read) Verdict() Verdict {
	switch {
	case r.need.met(r.answered):
		return Done
	case r.damaged != 0 && r.damaged == r.answered|r.failed && !r.AllDamaged():
		return Pending
	case !r.need.Possible(r.failed, r.owners):
		return Impossible
	}
	return Pending
}

// Settle compares the digests with the join of the full answers. It reports false
// when some owner may hold what the join lacks: then the read must be made again
// without digests. Until it is called, owners that gave a digest count as holding
// less. A plain digest below a plain join is just a stale owner.
func (r *Read) Settle() bool {
	if r.digests == 0 {
		return true
	}
	if r.digests == r.answered {
		return false
	}
	sum := r.joined.AsDigest()
	for n := range count(r.digests) {
		d := &r.digested[n]
		switch {
		case d.Same(sum):
			r.holders |= 1 << d.owner
		case d.Causal || sum.Causal || sum.Dot.Less(d.Dot):
			return false
		}
	}
	return true
}

// Joined is the join of all full answers.
func (r *Read) Joined() Record { return r.joined }

// Answered is the number of owners that answered.
func (r *Read) Answered() int { return count(r.answered) }

// Holders is the number of owners known to hold the joined record.
func (r *Read) Holders() int { return count(r.holding()) }

// Holds reports whether owner i is known to hold the joined record.
func (r *Read) Holds(i int) bool { return r.holding()>>i&1 == 1 }

// AllDamaged reports whether every owner found its copy damaged.
func (r *Read) AllDamaged() bool { return count(r.damaged) == r.owners }

// Agreed reports whether every owner that answered holds the same.
func (r *Read) Agreed() bool { return r.holding() == r.answered }
