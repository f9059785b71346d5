package lsm

import (
	"bytes"
	"fmt"

	"example.com/kvstore/vclock"
)

// join merges two records of one key. It is commutative, associative and
// idempotent (invariant I2), and its result is in normal form: what is plain is
// stored as plain. The result may alias either argument.
func (t *Tree) join(a, b Record) Record {
	if a.Kind != Causal && b.Kind != Causal {
		c := a.Max.Compare(b.Max)
		if c == 0 && !samePlain(&a, &b) {
			// One dot is one write (I6); should it ever not be, let all
			// replicas choose the same.
			s := vclock.Join(plainSet(&a), plainSet(&b)).Siblings[0]
			if !sameSibling(&a, &s) {
				return b
			}
			return a
		}
		if c < 0 {
			return b
		}
		return a
	}
	x, y := encoded(&a), encoded(&b)
	r := Record{Token: a.Token, Key: a.Key, Kind: Causal}
	var err error
	if t.o.Join != nil {
		r.Value = t.o.Join(a.Key, x, y)
	} else {
		r.Value, err = vclock.JoinEncoded(x, y)
	}
	if err == nil {
		if err := t.normalize(&r); err != nil {
			panic(fmt.Sprintf("lsm: the join of two causal values is none: %v", err))
		}
		if len(r.Value) <= MaxValueBytes {
			return r
		}
		err = ErrValueTooLarge // no table takes it
	}
	// Both were verified when they came in, so only a limit is left. The greater
	// one stays: deterministic, and no way to stop the tree.
	t.stats.joinLimits.Add(1)
	t.o.Logger.Error("lsm: two versions are too large to be joined", "token", a.Token, "error", err)
	if c := a.Max.Compare(b.Max); c > 0 || c == 0 && bytes.Compare(x, y) > 0 {
		return a
	}
	return b
}

// normalize verifies a causal record, sets its bounds, and makes it plain if it
// is what one plain write makes.
func (t *Tree) normalize(r *Record) error {
	s, err := vclock.DecodeSet(r.Value)
	if err != nil {
		return err
	}
	if s.IsPlain() {
		fromSibling(r, &s.Siblings[0])
		return nil
	}
	r.Deadline = 0
	if t.o.Dots != nil {
		r.Min, r.Max = t.o.Dots(r.Value)
	} else {
		r.Min, r.Max = s.Min(), s.Max()
	}
	if r.Max.IsZero() {
		return fmt.Errorf("a causal value without any dot")
	}
	return nil
}

func fromSibling(r *Record, s *vclock.Sibling) {
	r.Kind = Value
	if s.Tombstone {
		r.Kind = Tombstone
	}
	r.Min, r.Max, r.Deadline, r.Value = s.Dot, s.Dot, s.Deadline, s.Value
}

func samePlain(a, b *Record) bool {
	return a.Kind == b.Kind && a.Deadline == b.Deadline && bytes.Equal(a.Value, b.Value)
}

func sameSibling(a *Record, s *vclock.Sibling) bool {
	return (a.Kind == Tombstone) == s.Tombstone && a.Deadline == s.Deadline && bytes.Equal(a.Value, s.Value)
}

func plainSet(r *Record) vclock.Set {
	return vclock.Plain(vclock.Sibling{Dot: r.Max, Tombstone: r.Kind == Tombstone, Deadline: r.Deadline, Value: r.Value})
}

// encoded gives the record as an encoded set.
func encoded(r *Record) []byte {
	if r.Kind == Causal {
		return r.Value
	}
	return vclock.AppendSet(nil, plainSet(r))
}
