package replica

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"

	"example.com/kvstore/vclock"
)

// A Record is what one replica holds of one key, without the key. The zero
// Record is a key never written.
type Record struct {
	// Dot is the write event of a plain record; for a causal one, the highest
	// dot of its history.
	Dot vclock.Dot
	// Causal says that Value is an encoded vclock.Set.
	Causal    bool
	Tombstone bool
	// Deadline is when the value expires, in Unix milliseconds; 0 is never.
	Deadline int64
	Value    []byte
	// Digest says that the value was left out: Value is the DigestSum of what a
	// causal record holds, and empty for a plain one, whose dot says it all. Only an
	// answer to a read that asked for it is a digest.
	Digest bool
}

// DigestBytes is the size of the value that a causal record's digest has.
const DigestBytes = 16

// AsDigest gives the record's digest. The result does not share memory with r.
func (r Record) AsDigest() Record {
	d := Record{Dot: r.Dot, Causal: r.Causal, Tombstone: r.Tombstone, Deadline: r.Deadline, Digest: true}
	if r.Causal {
		sum := sha256.Sum256(r.Value)
		d.Value = sum[:DigestBytes]
	}
	return d
}

// Found reports whether the replica holds anything, a tombstone included.
func (r Record) Found() bool { return !r.Dot.IsZero() }

// Deleted reports whether the record holds nothing but deletes.
func (r Record) Deleted() bool {
	if !r.Causal {
		return r.Tombstone
	}
	s, err := vclock.DecodeSet(r.Value)
	return err == nil && !slices.ContainsFunc(s.Siblings, func(b vclock.Sibling) bool { return !b.Tombstone })
}

// Gone reports whether the record says "nothing" at a horizon and lies behind it, so
// that it may have been forgotten: all that it holds are deletes, and values whose
// deadline the horizon has passed. The engine forgets by the same rule.
func (r Record) Gone(horizon uint64) bool {
	if horizon == 0 || r.Dot.Stamp > horizon {
		return false
	}
	passed := vclock.StampTime(horizon).UnixMilli()
	if !r.Causal {
		return r.Tombstone || r.Deadline > 0 && r.Deadline < passed
	}
	s, err := vclock.DecodeSet(r.Value)
	return err == nil && !slices.ContainsFunc(s.Siblings, func(b vclock.Sibling) bool {
		return !b.Tombstone && (b.Deadline <= 0 || b.Deadline >= passed)
	})
}

// Expired reports whether the value's deadline has passed at the coordinator's
// wall clock (Unix milliseconds).
func (r Record) Expired(nowMillis int64) bool {
	return r.Deadline != 0 && r.Deadline <= nowMillis
}

// Same reports whether two replicas hold the same: a dot names one write only
// (I6), so plain records are compared by dot alone.
func (r Record) Same(s Record) bool {
	if r.Causal || s.Causal {
		return r.Causal == s.Causal && bytes.Equal(r.Value, s.Value)
	}
	return r.Dot == s.Dot
}

// Join merges two records of one key (I2). The result may alias either one's
// Value.
func Join(a, b Record) (Record, error) {
	switch {
	case !a.Found():
		return b, nil
	case !b.Found():
		return a, nil
	case !a.Causal && !b.Causal:
		if a.Dot.Less(b.Dot) {
			return b, nil
		}
		return a, nil
	}
	x, err := a.Set()
	if err != nil {
		return Record{}, err
	}
	y, err := b.Set()
	if err != nil {
		return Record{}, err
	}
	return FromSet(vclock.Join(x, y)), nil
}

// Set gives the record's causal form. The zero Record is the zero Set.
func (r Record) Set() (vclock.Set, error) {
	if r.Causal {
		s, err := vclock.DecodeSet(r.Value)
		if err != nil {
			return vclock.Set{}, fmt.Errorf("replica: causal record: %w", err)
		}
		return s, nil
	}
	if !r.Found() {
		return vclock.Set{}, nil
	}
	return vclock.Plain(vclock.Sibling{Dot: r.Dot, Tombstone: r.Tombstone, Deadline: r.Deadline, Value: r.Value}), nil
}

// FromSet gives the record of a set: a plain one where the set has no more to
// say, so that equal sets are equal records.
func FromSet(s vclock.Set) Record {
	if s.IsPlain() {
		v := s.Siblings[0]
		return Record{Dot: v.Dot, Tombstone: v.Tombstone, Deadline: v.Deadline, Value: v.Value}
	}
	return Record{Dot: s.Max(), Causal: true, Value: vclock.AppendSet(nil, s)}
}
