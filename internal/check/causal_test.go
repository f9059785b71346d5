package check_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/internal/check"
	"example.com/kvstore/vclock"
)

// deletes reports whether a delete may have been applied: then finding nothing may be
// right.
func (f *family) deletes() bool {
	return f.any(func(o *check.Op) bool { return o.Kind == check.Delete && o.Outcome != check.NotApplied }) != nil
}

// A family makes clean histories of causal and plain writes of one key, by
// clients that make one call after the other: each takes effect at one point
// between its start and its end, or never.
type family struct {
	*rand.Rand
	ops   []check.Op
	final check.Op
}

func newFamily(seed uint64) *family {
	f := &family{Rand: rand.New(rand.NewPCG(seed, 2))}
	type event struct {
		at time.Duration
		op check.Op
	}
	const clients = 4
	var events []event
	for client := range clients {
		t := time.Duration(0)
		for range 4 + f.IntN(8) {
			t += time.Duration(1 + f.IntN(50))
			o := check.Op{Client: client, Key: "k", Start: t, Strict: true, Session: client%2 == 0}
			at := t + time.Duration(f.IntN(40))
			t = at + 1 + time.Duration(f.IntN(40))
			o.End = t
			o.Value = check.Value("k", len(events), 60)
			switch p := f.IntN(20); {
			case p < 8:
				o.Kind, o.Value = check.Get, nil
			case p < 16:
				o.Kind, o.Replaces = check.Put, &vclock.Version{}
			case p < 18:
				o.Kind, o.Replaces, o.Value = check.Delete, &vclock.Version{}, nil
			default:
				o.Kind = check.Put
			}
			if p := f.IntN(12); o.Kind != check.Get && p < 2 {
				o.Outcome = check.Outcome(1 + p)
			}
			events = append(events, event{at, o})
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return int(a.at - b.at) })
	var set vclock.Set
	var versions [clients]vclock.Version
	for i, e := range events {
		o := e.op
		d := vclock.Dot{Stamp: uint64(10 * (i + 1)), Actor: 7}
		switch {
		case o.Kind == check.Get:
			read(&o, set)
			versions[o.Client] = o.Seen
		case o.Outcome == check.NotApplied, o.Outcome == check.Unknown && f.IntN(2) == 0:
			if o.Replaces != nil {
				*o.Replaces = versions[o.Client]
			}
		case o.Replaces == nil:
			d.Actor = 3
			set = vclock.Join(set, vclock.Plain(vclock.Sibling{Dot: d, Value: o.Value}))
			if o.Outcome == check.Applied {
				o.Version, o.Seen = d, vclock.Version{Past: vclock.History{Floor: d}}
				versions[o.Client] = o.Seen
			}
		default:
			if f.IntN(4) > 0 { // else it is blind
				*o.Replaces = versions[o.Client]
			}
			var v vclock.Version
			set, v = set.Replace(*o.Replaces, vclock.Sibling{Dot: d, Tombstone: o.Kind == check.Delete, Value: o.Value})
			if o.Kind == check.Put && o.Outcome == check.Applied {
				o.Version, o.Seen, versions[o.Client] = d, v, v
			}
		}
		f.ops = append(f.ops, o)
	}
	f.final = check.Op{Key: "k", Kind: check.Get, Client: 99, Start: 1 << 20, End: 1<<20 + 1, Strict: true}
	read(&f.final, set)
	return f
}

// read lets o be a Get of set.
func read(o *check.Op, set vclock.Set) {
	o.Found, o.Value, o.Siblings = false, nil, nil
	o.Seen = vclock.Version{Past: set.History}
	o.Version = set.Max()
	for _, s := range set.Siblings {
		if !s.Tombstone {
			o.Siblings = append(o.Siblings, check.Sibling{Dot: s.Dot, Value: s.Value})
		}
	}
	if len(o.Siblings) > 0 {
		o.Found, o.Value = true, o.Siblings[0].Value
	}
}

// any gives a random operation that fits, or nil.
func (f *family) any(fits func(o *check.Op) bool) *check.Op {
	var found []*check.Op
	for i := range f.ops {
		if fits(&f.ops[i]) {
			found = append(found, &f.ops[i])
		}
	}
	if len(found) == 0 {
		return nil
	}
	return found[f.IntN(len(found))]
}

func causalPut(o *check.Op) bool {
	return o.Kind == check.Put && o.Outcome == check.Applied && o.Replaces != nil
}

// drop takes a sibling out of a read.
func drop(o *check.Op, i int) {
	o.Siblings = slices.Delete(slices.Clone(o.Siblings), i, i+1)
	o.Found = len(o.Siblings) > 0
}

// TestCausalHistories: every planted violation of a history with causal writes is
// found, and no clean one is called broken.
func TestCausalHistories(t *testing.T) {
	plants := []struct {
		rule, name string
		plant      func(f *family) bool
	}{
		{"", "clean", func(f *family) bool { return true }},
		{"K1", "a sibling that nobody has replaced is gone", func(f *family) bool {
			for i, s := range f.final.Siblings {
				put := f.any(func(o *check.Op) bool { return causalPut(o) && o.Version == s.Dot })
				// Others may have replaced it as far as anybody can tell.
				doubt := f.any(func(o *check.Op) bool {
					if o.Replaces != nil {
						return o.Replaces.Contains(s.Dot)
					}
					return o.Kind != check.Get && (o.Outcome == check.Unknown || s.Dot.Less(o.Version))
				})
				if put != nil && doubt == nil {
					drop(&f.final, i)
					return true
				}
			}
			return false
		}},
		{"K1", "a write is gone from the version too", func(f *family) bool {
			put := f.any(func(o *check.Op) bool { return causalPut(o) && f.final.Seen.Past.Floor.Less(o.Version) })
			if put == nil || f.deletes() && !f.final.Found {
				return false
			}
			f.final.Seen = vclock.Version{Past: vclock.History{Floor: f.final.Seen.Past.Floor}}
			f.final.Version = f.final.Seen.Past.Floor
			return true
		}},
		{"K1", "a plain write that had ended supersedes it", func(f *family) bool {
			for i, s := range f.final.Siblings {
				put := f.any(func(o *check.Op) bool { return causalPut(o) && o.Version == s.Dot })
				doubt := f.any(func(o *check.Op) bool {
					if o.Replaces != nil {
						return o.Replaces.Contains(s.Dot)
					}
					return o.Kind != check.Get && (o.Outcome == check.Unknown || s.Dot.Less(o.Version))
				})
				if put == nil || doubt != nil {
					continue
				}
				plain := f.any(func(o *check.Op) bool {
					return o.Kind == check.Put && o.Outcome == check.Applied && o.Replaces == nil && o.End < put.Start
				})
				if plain == nil {
					return false
				}
				plain.Version = vclock.Dot{Stamp: s.Dot.Stamp + 1, Actor: 3}
				plain.Seen = vclock.Version{Past: vclock.History{Floor: plain.Version}}
				drop(&f.final, i)
				return true
			}
			return false
		}},
		{"K1", "a replaced value is back", func(f *family) bool {
			y := f.any(func(o *check.Op) bool { return causalPut(o) && !o.Replaces.Past.Max().IsZero() })
			if y == nil {
				return false
			}
			x := f.any(func(o *check.Op) bool {
				return o.Kind == check.Put && o.Outcome == check.Applied && o.Version == y.Replaces.Past.Max()
			})
			if x == nil {
				return false
			}
			f.final.Siblings = append(slices.Clone(f.final.Siblings), check.Sibling{Dot: x.Version, Value: x.Value})
			f.final.Found = true
			return true
		}},
		{"K2", "a read has not seen a write that had ended", func(f *family) bool {
			get := f.any(func(o *check.Op) bool {
				return o.Kind == check.Get && f.any(func(p *check.Op) bool { return causalPut(p) && p.End < o.Start }) != nil
			})
			if get == nil {
				return false
			}
			put := f.any(func(p *check.Op) bool { return causalPut(p) && p.End < get.Start })
			get.Seen = vclock.Version{Past: vclock.History{Floor: vclock.Dot{Stamp: put.Version.Stamp - 1, Actor: 7}}}
			get.Version = get.Seen.Past.Floor
			return true
		}},
		{"K3", "a read in a session has not seen the session's own write", func(f *family) bool {
			get := f.any(func(o *check.Op) bool {
				return o.Session && o.Kind == check.Get && f.any(func(p *check.Op) bool { return causalPut(p) && p.Client == o.Client && p.End < o.Start }) != nil
			})
			if get == nil || f.deletes() {
				return false
			}
			get.Strict = false
			get.Seen, get.Version = vclock.Version{}, vclock.Dot{}
			return true
		}},
		{"K3", "a read in a session is behind an earlier one", func(f *family) bool {
			get := f.any(func(o *check.Op) bool {
				return o.Session && o.Kind == check.Get && f.any(func(p *check.Op) bool {
					return p.Kind == check.Get && p.Client == o.Client && p.End < o.Start && !p.Version.IsZero()
				}) != nil
			})
			if get == nil || f.deletes() {
				return false
			}
			get.Strict = false
			get.Seen, get.Version = vclock.Version{}, vclock.Dot{}
			return true
		}},
		{"K3", "a plain write in a session is below what the session has seen", func(f *family) bool {
			put := f.any(func(o *check.Op) bool {
				return o.Session && o.Kind == check.Put && o.Outcome == check.Applied && o.Replaces == nil && f.any(func(p *check.Op) bool {
					return p.Client == o.Client && p.End < o.Start && p.Outcome == check.Applied && p.Version.Stamp > 1
				}) != nil
			})
			if put == nil {
				return false
			}
			put.Strict = false
			put.Version = vclock.Dot{Stamp: 1, Actor: 3}
			put.Seen = vclock.Version{Past: vclock.History{Floor: put.Version}}
			return true
		}},
		{"K6", "a sibling that nobody wrote", func(f *family) bool {
			get := f.any(func(o *check.Op) bool { return o.Kind == check.Get && len(o.Siblings) > 1 })
			if get == nil {
				return false
			}
			get.Siblings = slices.Clone(get.Siblings)
			get.Siblings[1].Value = check.Value("k", 1<<20, 60)
			return true
		}},
		{"K6", "a dot that names two values", func(f *family) bool {
			get := f.any(func(o *check.Op) bool { return o.Kind == check.Get && len(o.Siblings) > 1 })
			if get == nil {
				return false
			}
			get.Siblings = slices.Clone(get.Siblings)
			get.Siblings[0].Value = get.Siblings[1].Value
			return f.any(func(o *check.Op) bool { return o.Kind == check.Put && o.Version == get.Siblings[0].Dot }) != nil
		}},
		{"K7", "a sibling that was not applied", func(f *family) bool {
			put := f.any(func(o *check.Op) bool { return o.Kind == check.Put && o.Outcome == check.NotApplied })
			if put == nil {
				return false
			}
			f.final.Siblings = append(slices.Clone(f.final.Siblings), check.Sibling{Dot: vclock.Dot{Stamp: 5, Actor: 7}, Value: put.Value})
			f.final.Found = true
			return true
		}},
	}
	for _, p := range plants {
		t.Run(p.rule+" "+p.name, func(t *testing.T) {
			judged := 0
			for seed := uint64(1); judged < histories(); seed++ {
				f := newFamily(seed)
				if !p.plant(f) {
					require.Less(t, seed, uint64(200*histories()), "no place for the violation")
					continue
				}
				judged++
				rules := map[string]bool{}
				violations := check.All(f.ops, []check.Op{f.final})
				for _, v := range violations {
					require.NotEmpty(t, v.String())
					rules[v.Rule] = true
				}
				if p.rule == "" {
					require.Empty(t, violations, "seed %d", seed)
				} else {
					require.True(t, rules[p.rule], "seed %d: %v", seed, violations)
				}
			}
		})
	}
}
