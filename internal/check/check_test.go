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

// histories is how many clean ones, and how many with each planted violation,
// are judged. The race detector, for which -short is, has little to look at here.
func histories() int {
	if testing.Short() {
		return 100
	}
	return 1000
}

// A register makes clean histories: each call takes effect at one point between
// its start and its end, or later or never when its outcome is unknown.
type register struct {
	*rand.Rand
	ops   []check.Op
	final []check.Op
}

type call struct {
	at time.Duration // takes effect; negative: never
	op check.Op
}

func newRegister(seed uint64) *register {
	r := &register{Rand: rand.New(rand.NewPCG(seed, 1))}
	for key := range 2 + r.IntN(3) {
		r.fill(string(rune('a'+key)), 10+r.IntN(30))
	}
	r.Shuffle(len(r.ops), func(i, j int) { r.ops[i], r.ops[j] = r.ops[j], r.ops[i] })
	return r
}

func (r *register) fill(key string, n int) {
	var calls []call
	for i := range n {
		start := time.Duration(r.IntN(1000))
		end := start + 1 + time.Duration(r.IntN(100))
		c := call{op: check.Op{Client: r.IntN(5), Key: key, Start: start, End: end, Strict: r.IntN(10) > 0}}
		c.at = start + time.Duration(r.Int64N(int64(end-start)))
		switch p := r.IntN(10); {
		case p < 4:
			c.op.Kind = check.Get
		case p < 9:
			c.op.Kind, c.op.Value = check.Put, check.Value(key, i, 60)
		default:
			c.op.Kind = check.Delete
		}
		if p := r.IntN(10); c.op.Kind != check.Get && p < 2 {
			c.op.Outcome = check.Unknown
			c.at = start + time.Duration(r.IntN(2000))
			if r.IntN(2) == 0 {
				c.at = -1
			}
		} else if c.op.Kind != check.Get && p < 3 {
			c.op.Outcome, c.at = check.NotApplied, -1
		}
		calls = append(calls, c)
	}
	slices.SortStableFunc(calls, func(a, b call) int { return int(a.at - b.at) })
	var now struct {
		version vclock.Dot
		value   []byte
	}
	for _, c := range calls {
		switch {
		case c.at < 0:
		case c.op.Kind == check.Get:
			c.op.Version, c.op.Value, c.op.Found = now.version, now.value, now.value != nil
		default:
			now.version = vclock.Dot{Stamp: now.version.Stamp + 1 + uint64(r.IntN(3)), Actor: 1 + r.Uint64N(3)}
			now.value = c.op.Value
			if c.op.Kind == check.Put && c.op.Outcome == check.Applied {
				c.op.Version = now.version
			}
		}
		r.ops = append(r.ops, c.op)
	}
	r.final = append(r.final, check.Op{Key: key, Kind: check.Get, Start: 5000, End: 5001, Strict: true,
		Version: now.version, Value: now.value, Found: now.value != nil})
}

// any gives the index of a random operation that fits, or -1.
func (r *register) any(ops []check.Op, fits func(check.Op) bool) int {
	var found []int
	for i, o := range ops {
		if fits(o) {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		return -1
	}
	return found[r.IntN(len(found))]
}

func isPut(o check.Op) bool { return o.Kind == check.Put && o.Outcome == check.Applied && o.Strict }
func isGet(o check.Op) bool { return o.Kind == check.Get && o.Strict }

// before is a strict acknowledged put of the same key that ended before o began.
func (r *register) before(o check.Op) int {
	return r.any(r.ops, func(p check.Op) bool { return isPut(p) && p.Key == o.Key && p.End < o.Start })
}

// A plant puts one violation into a clean history, or reports that there was no
// place for it.
type plant func(r *register) bool

func TestHistories(t *testing.T) {
	plants := []struct {
		rule, name string
		plant      plant
	}{
		{"", "clean", func(r *register) bool { return true }},
		{"K1", "the last write is lost for an older one", func(r *register) bool {
			f := r.any(r.final, func(f check.Op) bool { return r.before(f) >= 0 })
			if f < 0 {
				return false
			}
			last := -1
			for i, o := range r.ops {
				if isPut(o) && o.Key == r.final[f].Key && (last < 0 || r.ops[last].Version.Less(o.Version)) {
					last = i
				}
			}
			old := r.any(r.ops, func(o check.Op) bool {
				return isPut(o) && o.Key == r.final[f].Key && o.Version.Less(r.ops[last].Version)
			})
			if old < 0 {
				return false
			}
			r.final[f].Version, r.final[f].Value, r.final[f].Found = r.ops[old].Version, r.ops[old].Value, true
			return true
		}},
		{"", "a delete was forgotten", func(r *register) bool {
			f := r.any(r.final, func(f check.Op) bool { return !f.Found && !f.Version.IsZero() })
			if f >= 0 {
				r.final[f].Version = vclock.Dot{}
			}
			return f >= 0
		}},
		{"K1", "the key is gone, and was deleted only before its last put", func(r *register) bool {
			f := r.any(r.final, func(f check.Op) bool {
				last := r.any(r.ops, func(o check.Op) bool { return isPut(o) && o.Key == f.Key && o.Version == f.Version })
				return last >= 0 && r.any(r.ops, func(d check.Op) bool {
					return d.Kind == check.Delete && d.Key == f.Key && (d.Outcome == check.Unknown || d.Outcome == check.Applied && d.End >= r.ops[last].Start)
				}) < 0
			})
			if f >= 0 {
				r.final[f].Version, r.final[f].Value, r.final[f].Found = vclock.Dot{}, nil, false
			}
			return f >= 0
		}},
		{"K1", "the key is gone", func(r *register) bool {
			f := r.any(r.final, func(f check.Op) bool { return r.before(f) >= 0 && !r.deletes(f.Key) })
			if f >= 0 {
				r.final[f].Version, r.final[f].Value, r.final[f].Found = vclock.Dot{}, nil, false
			}
			return f >= 0
		}},
		{"K1", "the key can't be read", func(r *register) bool {
			r.final[0].Outcome = check.NotApplied
			return true
		}},
		{"K1", "an acknowledged value came back under a higher version", func(r *register) bool {
			f := r.any(r.final, func(f check.Op) bool { return r.before(f) >= 0 })
			if f < 0 {
				return false
			}
			put := r.ops[r.before(r.final[f])]
			r.final[f].Version, r.final[f].Value, r.final[f].Found = vclock.Dot{Stamp: 1 << 30}, put.Value, true
			return true
		}},
		{"K1", "a deleted value came back", func(r *register) bool {
			d := r.any(r.ops, func(o check.Op) bool {
				return o.Kind == check.Delete && o.Outcome == check.Applied && o.Strict && r.before(o) >= 0
			})
			if d < 0 {
				return false
			}
			put := r.ops[r.before(r.ops[d])]
			f := r.any(r.final, func(f check.Op) bool { return f.Key == put.Key })
			r.final[f].Version, r.final[f].Value, r.final[f].Found = put.Version, put.Value, true
			return true
		}},
		{"K2", "a read went back to an older write", func(r *register) bool {
			i := r.any(r.ops, func(o check.Op) bool { return isGet(o) && r.before(o) >= 0 })
			if i < 0 {
				return false
			}
			put := r.ops[r.before(r.ops[i])]
			old := r.any(r.ops, func(o check.Op) bool { return isPut(o) && o.Key == put.Key && o.Version.Less(put.Version) })
			if old < 0 && r.deletes(put.Key) {
				return false
			}
			if old < 0 {
				r.ops[i].Version, r.ops[i].Value, r.ops[i].Found = vclock.Dot{}, nil, false
			} else {
				r.ops[i].Version, r.ops[i].Value, r.ops[i].Found = r.ops[old].Version, r.ops[old].Value, true
			}
			return true
		}},
		{"K2", "a read went back behind another read", func(r *register) bool {
			i := r.any(r.ops, func(o check.Op) bool {
				return isGet(o) && !r.deletes(o.Key) && r.any(r.ops, func(p check.Op) bool {
					return isGet(p) && p.Key == o.Key && p.End < o.Start && !p.Version.IsZero()
				}) >= 0
			})
			if i >= 0 {
				r.ops[i].Version, r.ops[i].Value, r.ops[i].Found = vclock.Dot{}, nil, false
			}
			return i >= 0
		}},
		{"K2", "a write was shadowed by one acknowledged before it began", func(r *register) bool {
			i := r.any(r.ops, func(o check.Op) bool { return isPut(o) && r.before(o) >= 0 })
			if i < 0 {
				return false
			}
			shadow := r.ops[r.before(r.ops[i])].Version
			r.ops[i].Version = vclock.Dot{Stamp: shadow.Stamp - 1, Actor: 99}
			return true
		}},
		{"K2", "a deleted value was read again", func(r *register) bool {
			i := r.any(r.ops, func(o check.Op) bool {
				d := r.deleteBefore(o)
				return isGet(o) && d >= 0 && r.before(r.ops[d]) >= 0
			})
			if i < 0 {
				return false
			}
			d := r.any(r.ops, func(d check.Op) bool {
				return d.Kind == check.Delete && d.Outcome == check.Applied && d.Strict && d.Key == r.ops[i].Key && d.End < r.ops[i].Start && r.before(d) >= 0
			})
			if d < 0 {
				return false
			}
			put := r.ops[r.before(r.ops[d])]
			r.ops[i].Version, r.ops[i].Value, r.ops[i].Found = put.Version, put.Value, true
			return true
		}},
		{"K6", "a bit flipped", func(r *register) bool {
			i := r.any(r.ops, func(o check.Op) bool { return o.Kind == check.Get && o.Found })
			if i < 0 {
				return false
			}
			r.ops[i].Value = slices.Clone(r.ops[i].Value)
			r.ops[i].Value[r.IntN(len(r.ops[i].Value))] ^= 1 << r.IntN(8)
			return true
		}},
		{"K6", "the value of another key", func(r *register) bool {
			i := r.any(r.ops, func(o check.Op) bool { return o.Kind == check.Get && o.Found })
			if i < 0 {
				return false
			}
			j := r.any(r.ops, func(o check.Op) bool { return o.Kind == check.Put && o.Key != r.ops[i].Key })
			if j < 0 {
				return false
			}
			r.ops[i].Value = r.ops[j].Value
			return true
		}},
		{"K6", "a value read before it was written", func(r *register) bool {
			i := r.any(r.ops, func(o check.Op) bool {
				return o.Kind == check.Get && r.any(r.ops, func(p check.Op) bool { return p.Kind == check.Put && p.Key == o.Key && p.Start > o.End }) >= 0
			})
			if i < 0 {
				return false
			}
			j := r.any(r.ops, func(p check.Op) bool { return p.Kind == check.Put && p.Key == r.ops[i].Key && p.Start > r.ops[i].End })
			r.ops[i].Value, r.ops[i].Found, r.ops[i].Version = r.ops[j].Value, true, vclock.Dot{Stamp: 1 << 20}
			return true
		}},
		{"K6", "two writes of one version", func(r *register) bool {
			i := r.any(r.ops, isPut)
			if i < 0 {
				return false
			}
			j := r.any(r.ops, func(o check.Op) bool { return isPut(o) && o.Key == r.ops[i].Key && o.Start != r.ops[i].Start })
			if j < 0 {
				return false
			}
			r.ops[j].Version = r.ops[i].Version
			return true
		}},
		{"K7", "a write that was not applied is seen", func(r *register) bool {
			i := r.any(r.ops, func(o check.Op) bool { return o.Kind == check.Put && o.Outcome == check.NotApplied })
			if i < 0 {
				return false
			}
			j := r.any(r.ops, func(o check.Op) bool { return o.Kind == check.Get && o.Key == r.ops[i].Key && o.End > r.ops[i].Start })
			if j < 0 {
				return false
			}
			r.ops[j].Value, r.ops[j].Found, r.ops[j].Version = r.ops[i].Value, true, vclock.Dot{Stamp: 1 << 20}
			return true
		}},
	}
	for _, p := range plants {
		t.Run(p.rule+" "+p.name, func(t *testing.T) {
			judged := 0
			for seed := uint64(1); judged < histories(); seed++ {
				r := newRegister(seed)
				if !p.plant(r) {
					continue
				}
				judged++
				rules := map[string]bool{}
				violations := check.All(r.ops, r.final)
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

// deletes reports whether a delete of the key may have been applied: then finding
// nothing may be right.
func (r *register) deletes(key string) bool {
	return r.any(r.ops, func(o check.Op) bool { return o.Kind == check.Delete && o.Key == key && o.Outcome != check.NotApplied }) >= 0
}

func (r *register) deleteBefore(o check.Op) int {
	return r.any(r.ops, func(d check.Op) bool {
		return d.Kind == check.Delete && d.Outcome == check.Applied && d.Strict && d.Key == o.Key && d.End < o.Start && r.before(d) >= 0
	})
}

func TestValue(t *testing.T) {
	for id := range 100 {
		v := check.Value("key", id, 50+id)
		require.True(t, check.Intact("key", v))
		require.False(t, check.Intact("ke", v))
		for i := range v {
			bad := slices.Clone(v)
			bad[i]++
			require.False(t, check.Intact("key", bad))
		}
		require.False(t, check.Intact("key", v[:len(v)-1]))
	}
	require.False(t, check.Intact("", nil))
}
