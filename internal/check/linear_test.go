package check_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/internal/check"
)

// A soloist makes clean histories of keys with one writer each: client 0 writes, and reads
// after each unknown outcome; the others read. Writes with an unknown outcome take effect
// then, much later, or never.
type soloist struct {
	*rand.Rand
	ops []check.Op // by the instant of their effect
}

func newSoloist(seed uint64, calls int) *soloist {
	s := &soloist{Rand: rand.New(rand.NewPCG(seed, 5))}
	type event struct {
		at time.Duration // takes effect; negative: never
		op check.Op
	}
	var events []event
	for client := range 4 {
		now, doubt := time.Duration(s.IntN(50)), false
		for i := range calls {
			o := check.Op{Client: client, Key: "k", Kind: check.Get, Start: now + time.Duration(s.IntN(50)), Strict: true}
			o.End = o.Start + 1 + time.Duration(s.IntN(100))
			at := o.Start + time.Duration(s.Int64N(int64(o.End-o.Start)))
			now = o.End + 1
			if client > 0 || doubt || s.IntN(4) == 0 {
				doubt = false
				if client > 0 && s.IntN(10) == 0 {
					o.Strict = false // it may see anything
				}
				events = append(events, event{at, o})
				continue
			}
			o.Kind, o.Value = check.Put, check.Value("k", i, 60)
			if s.IntN(6) == 0 {
				o.Kind, o.Value = check.Delete, nil
			}
			switch s.IntN(8) {
			case 0:
				o.Outcome, at = check.NotApplied, -1
			case 1, 2:
				o.Outcome, at = check.Unknown, [...]time.Duration{-1, at, o.Start + time.Duration(s.IntN(500))}[s.IntN(3)]
				doubt = true
			}
			events = append(events, event{at, o})
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return int(a.at - b.at) })
	var value []byte
	for _, e := range events {
		switch o := &e.op; {
		case o.Kind == check.Get && !o.Strict:
		case o.Kind == check.Get:
			o.Value, o.Found = value, value != nil
		case e.at >= 0:
			value = o.Value
		}
		s.ops = append(s.ops, e.op)
	}
	return s
}

// any gives a random call that fits, or nil.
func (s *soloist) any(fits func(o *check.Op) bool) *check.Op {
	for _, i := range s.Perm(len(s.ops)) {
		if fits(&s.ops[i]) {
			return &s.ops[i]
		}
	}
	return nil
}

func acknowledged(o *check.Op) bool { return o.Kind == check.Put && o.Outcome == check.Applied }
func strictGet(o *check.Op) bool    { return o.Kind == check.Get && o.Strict }

// overwritten is a put that was written over, by another acknowledged one, before the read
// began, and that one.
func (s *soloist) overwritten(read *check.Op) (old, by *check.Op) {
	by = s.any(func(o *check.Op) bool {
		return acknowledged(o) && o.End < read.Start && s.any(func(p *check.Op) bool { return acknowledged(p) && p.End < o.Start }) != nil
	})
	if by != nil {
		old = s.any(func(o *check.Op) bool { return acknowledged(o) && o.End < by.Start })
	}
	return old, by
}

func TestLinearizability(t *testing.T) {
	for _, p := range []struct {
		name   string
		broken bool
		plant  func(s *soloist) bool
	}{
		{"clean", false, func(*soloist) bool { return true }},
		{"a read gives what had been written over", true, func(s *soloist) bool {
			get := s.any(func(o *check.Op) bool {
				if !strictGet(o) {
					return false
				}
				old, _ := s.overwritten(o)
				return old != nil
			})
			if get == nil {
				return false
			}
			old, _ := s.overwritten(get)
			get.Value, get.Found = old.Value, true
			return true
		}},
		{"a read gives what a delete had removed", true, func(s *soloist) bool {
			var put *check.Op
			get := s.any(func(o *check.Op) bool {
				d := s.any(func(d *check.Op) bool {
					return d.Kind == check.Delete && d.Outcome == check.Applied && d.End < o.Start
				})
				if !strictGet(o) || d == nil {
					return false
				}
				put = s.any(func(p *check.Op) bool { return acknowledged(p) && p.End < d.Start })
				return put != nil
			})
			if get == nil {
				return false
			}
			get.Value, get.Found = put.Value, true
			return true
		}},
		{"a read finds nothing, and nobody deleted", true, func(s *soloist) bool {
			if s.any(func(o *check.Op) bool { return o.Kind == check.Delete && o.Outcome != check.NotApplied }) != nil {
				return false
			}
			get := s.any(func(o *check.Op) bool {
				return strictGet(o) && s.any(func(p *check.Op) bool { return acknowledged(p) && p.End < o.Start }) != nil
			})
			if get == nil {
				return false
			}
			get.Value, get.Found = nil, false
			return true
		}},
		{"a read gives what is written later", true, func(s *soloist) bool {
			var put *check.Op
			get := s.any(func(o *check.Op) bool {
				put = s.any(func(p *check.Op) bool { return acknowledged(p) && p.Start > o.End })
				return strictGet(o) && put != nil
			})
			if get == nil {
				return false
			}
			get.Value, get.Found = put.Value, true
			return true
		}},
		{"a read gives what was not applied", true, func(s *soloist) bool {
			put := s.any(func(o *check.Op) bool { return o.Kind == check.Put && o.Outcome == check.NotApplied })
			get := s.any(strictGet)
			if put == nil {
				return false
			}
			get.Value, get.Found = put.Value, true
			return true
		}},
		{"a value is seen, and then the one before it", true, func(s *soloist) bool {
			var first *check.Op
			second := s.any(func(o *check.Op) bool {
				first = s.any(func(p *check.Op) bool {
					return strictGet(p) && p.Found && p.End < o.Start && s.before(p.Value) != nil
				})
				return strictGet(o) && first != nil
			})
			if second == nil {
				return false
			}
			second.Value, second.Found = s.before(first.Value).Value, true
			return true
		}},
		{"a value goes and comes back", true, func(s *soloist) bool {
			var gone, seen *check.Op
			back := s.any(func(o *check.Op) bool {
				gone = s.any(func(p *check.Op) bool { return strictGet(p) && p.End < o.Start })
				if !strictGet(o) || gone == nil {
					return false
				}
				seen = s.any(func(p *check.Op) bool {
					return strictGet(p) && p.Found && p.End < gone.Start && string(p.Value) != string(gone.Value)
				})
				return seen != nil
			})
			if back == nil {
				return false
			}
			back.Value, back.Found = seen.Value, true
			return true
		}},
	} {
		t.Run(p.name, func(t *testing.T) {
			judged := 0
			for seed := uint64(1); judged < histories(); seed++ {
				s := newSoloist(seed, 5+int(seed%20))
				if !p.plant(s) {
					require.Less(t, seed, uint64(200*histories()), "no place for the violation")
					continue
				}
				judged++
				s.Shuffle(len(s.ops), func(i, j int) { s.ops[i], s.ops[j] = s.ops[j], s.ops[i] })
				violations := check.Linearizability(s.ops)
				require.Equal(t, p.broken, len(violations) > 0, "seed %d: %v", seed, violations)
				for _, v := range violations {
					require.Equal(t, "K4", v.Rule)
					require.NotEmpty(t, v.String())
				}
			}
		})
	}
}

// before is an acknowledged put that had ended when the one of value began.
func (s *soloist) before(value []byte) *check.Op {
	put := s.any(func(o *check.Op) bool { return acknowledged(o) && string(o.Value) == string(value) })
	if put == nil {
		return nil
	}
	return s.any(func(o *check.Op) bool { return acknowledged(o) && o.End < put.Start })
}

// TestLinearizabilityOrders: for short histories with any read changed, the judgement is that
// of a search of all orders.
func TestLinearizabilityOrders(t *testing.T) {
	broken := 0
	for seed := uint64(1); seed <= uint64(20*histories()); seed++ {
		s := newSoloist(seed, 2)
		if s.IntN(2) == 0 { // a read is wrong, perhaps
			get, put := s.any(strictGet), s.any(func(o *check.Op) bool { return o.Kind == check.Put })
			if get == nil || put == nil {
				continue
			}
			get.Value, get.Found = put.Value, true
		}
		found := check.Linearizability(s.ops)
		if s.any(func(o *check.Op) bool { return o.Kind != check.Get }) != nil {
			require.Equal(t, inOrder(s.ops, nil), len(found) == 0, "seed %d: %v\n%v", seed, s.ops, found)
		}
		broken += len(found)
	}
	require.Greater(t, broken, histories())
}

// inOrder tries all orders in which the calls can take effect after value.
func inOrder(ops []check.Op, value []byte) bool {
	over := true
	for i, o := range ops {
		idle := o.Kind == check.Get && !o.Strict || o.Outcome == check.NotApplied
		over = over && (idle || o.Outcome == check.Unknown)
		if idle || slices.ContainsFunc(ops, func(p check.Op) bool {
			return p.Outcome == check.Applied && p.Strict && p.End < o.Start
		}) {
			continue
		}
		others := slices.Delete(slices.Clone(ops), i, i+1)
		switch {
		case o.Kind != check.Get:
			if inOrder(others, o.Value) {
				return true
			}
		case o.Found == (value != nil) && string(o.Value) == string(value):
			if inOrder(others, value) {
				return true
			}
		}
	}
	return over
}

// TestManyWriters: what is no register with one writer is not judged.
func TestManyWriters(t *testing.T) {
	stale := func() []check.Op {
		return []check.Op{
			{Key: "k", Kind: check.Put, Start: 1, End: 2, Strict: true, Value: []byte("a")},
			{Key: "k", Kind: check.Put, Start: 3, End: 4, Strict: true, Value: []byte("b")},
			{Key: "k", Kind: check.Get, Start: 5, End: 6, Strict: true, Value: []byte("a"), Found: true},
		}
	}
	require.Len(t, check.Linearizability(stale()), 1)
	for name, change := range map[string]func(ops []check.Op){
		"another client writes":  func(ops []check.Op) { ops[1].Client = 1 },
		"writes overlap":         func(ops []check.Op) { ops[1].Start = 1 },
		"a write at One":         func(ops []check.Op) { ops[1].Strict = false },
		"a read at One":          func(ops []check.Op) { ops[2].Strict = false },
		"written again in doubt": func(ops []check.Op) { ops[0].Outcome = check.Unknown },
	} {
		ops := stale()
		change(ops)
		require.Empty(t, check.Linearizability(ops), name)
	}
}
