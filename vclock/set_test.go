package vclock

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestAgainstNaive runs random writes and joins on a few replicas and on the
// naive model of each, over dots that collide in stamps and actors.
func TestAgainstNaive(t *testing.T) {
	universe := dots(5, 12)
	rapid.Check(t, func(t *rapid.T) {
		const replicas = 3
		var sets [replicas]Set
		models := [replicas]naive{newNaive(), newNaive(), newNaive()}
		used := map[Dot]bool{}
		fresh := func(above Dot) (Dot, bool) {
			d := rapid.SampledFrom(universe).Draw(t, "dot")
			ok := above.Less(d) && !used[d]
			used[d] = true
			return d, ok
		}
		sibling := func(d Dot) Sibling {
			return Sibling{d, rapid.Bool().Draw(t, "tombstone"), rapid.Int64Range(0, 2).Draw(t, "deadline"),
				rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "value")}
		}
		replica := rapid.IntRange(0, replicas-1)
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			i, k := replica.Draw(t, "at"), replica.Draw(t, "from")
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0: // a plain write, blind
				d, ok := fresh(Dot{})
				if !ok {
					continue
				}
				w := Plain(sibling(d))
				sets[i] = Join(sets[i], w)
				models[i] = models[i].join(naiveOf(w, universe))
			case 1: // a causal write at i, by an author who read at k
				seen := sets[k].History
				if rapid.Bool().Draw(t, "blind") {
					seen = History{}
				}
				top := max(sets[i].Max().Stamp, seen.Max().Stamp)
				d, ok := fresh(Dot{top, ^uint64(0)})
				if !ok {
					continue
				}
				w := sibling(d)
				before, bytes := sets[i], AppendSet(nil, sets[i])
				sets[i] = sets[i].Write(seen, w)
				require.Equal(t, bytes, AppendSet(nil, before), "Write changed its receiver")
				models[i] = models[i].join(naiveOf(Set{History: seen}, universe))
				for _, e := range universe {
					if e.Actor == d.Actor && e.Stamp <= d.Stamp {
						models[i].seen[e] = true
					}
				}
				models[i].alive[d] = w
			case 2:
				sets[i] = Join(sets[i], sets[k])
				models[i] = models[i].join(models[k])
			}
			require.Empty(t, structure(sets[i]))
			require.True(t, models[i].equal(naiveOf(sets[i], universe)), "%v", sets[i])
		}
		decoded, err := DecodeSet(AppendSet(nil, sets[0]))
		require.NoError(t, err)
		require.True(t, sets[0].Equal(decoded))
	})
}

// drawSet draws any structurally valid set over a wide range of dots.
func drawSet(t *rapid.T) Set {
	stamp, actor := rapid.Uint64Range(0, 40), rapid.Uint64Range(0, 6)
	dot := rapid.Custom(func(t *rapid.T) Dot { return Dot{stamp.Draw(t, "stamp"), actor.Draw(t, "actor")} })
	s := Set{History: History{Floor: dot.Draw(t, "floor")}}
	for _, d := range rapid.SliceOfN(dot, 0, 6).Draw(t, "V") {
		s.History = s.Add(d)
	}
	for _, d := range rapid.SliceOfN(dot, 0, 8).Draw(t, "siblings") {
		if s.Contains(d) && !d.IsZero() {
			w := Sibling{Dot: d, Tombstone: d.Stamp%3 == 0, Value: []byte(d.String())}
			s.Siblings = Join(Set{s.History, s.Siblings}, Set{s.History, []Sibling{w}}).Siblings
			if !s.has(d) { // the history had seen it superseded: put it in by hand
				s.Siblings = insert(s.Siblings, w)
			}
		}
	}
	return s
}

func insert(siblings []Sibling, w Sibling) []Sibling {
	var out []Sibling
	for i, v := range siblings {
		if v.Dot.Less(w.Dot) {
			return append(append(out, w), siblings[i:]...)
		}
		out = append(out, v)
	}
	return append(out, w)
}

// TestLawsAtRandom checks the laws where the spaces are too large to enumerate.
func TestLawsAtRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, y, z := drawSet(t), drawSet(t), drawSet(t)
		require.True(t, Join(x, x).Equal(x))
		require.True(t, Join(x, y).Equal(Join(y, x)))
		require.True(t, Join(Join(x, y), z).Equal(Join(x, Join(y, z))))
		require.NotEqual(t, Before, Join(x, y).Compare(x))
		require.Empty(t, structure(Join(x, y)))
	})
}

// TestAnyOrderSameBytes delivers the same sets in many orders, with repeats.
func TestAnyOrderSameBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sets := rapid.SliceOfN(rapid.Custom(drawSet), 1, 6).Draw(t, "sets")
		var want []byte
		for seed := range uint64(5) {
			var s Set
			for range 2 {
				for _, i := range rand.New(rand.NewPCG(seed, 1)).Perm(len(sets)) {
					s = Join(s, sets[i])
				}
			}
			got := AppendSet(nil, s)
			if want == nil {
				want = got
			}
			require.Equal(t, want, got)
		}
	})
}

func TestZeroSetIsNeutral(t *testing.T) {
	s := Plain(Sibling{Dot: Dot{3, 1}}).Write(History{}, Sibling{Dot: Dot{4, 2}})
	require.True(t, Join(s, Set{}).Equal(s))
	require.True(t, Join(Set{}, s).Equal(s))
	require.Equal(t, Equal, Set{}.Compare(Set{}))
	require.Equal(t, After, s.Compare(Set{}))
}

func TestWritePanicsBelowTheHistory(t *testing.T) {
	s := Plain(Sibling{Dot: Dot{5, 2}})
	for _, d := range []Dot{{}, {4, 9}, {5, 1}, {5, 2}} {
		require.Panics(t, func() { s.Write(History{}, Sibling{Dot: d}) }, "%v", d)
		require.Panics(t, func() { Set{}.Write(s.History, Sibling{Dot: d}) }, "%v", d)
	}
	require.NotPanics(t, func() { s.Write(History{}, Sibling{Dot: Dot{5, 3}}) })
}

func TestPlainOverCausal(t *testing.T) {
	causal := Set{}.Write(History{}, Sibling{Dot: Dot{10, 1}}).Write(History{}, Sibling{Dot: Dot{20, 2}})
	require.Len(t, causal.Siblings, 2)

	between := Join(causal, Plain(Sibling{Dot: Dot{15, 3}}))
	require.Equal(t, "f@3 [14@2] {14@2 f@3}", between.String())
	require.False(t, between.IsPlain())

	above := Join(causal, Plain(Sibling{Dot: Dot{25, 3}, Tombstone: true}))
	require.Equal(t, "19@3 [] {-19@3}", above.String())
	require.True(t, above.IsPlain())
	require.Equal(t, Dot{25, 3}, above.Min())
	require.Equal(t, Dot{25, 3}, above.Max())
}

// TestOneDotTwoContents: a retried write uses its dot again, and may differ in
// its deadline. All replicas keep the same one.
func TestOneDotTwoContents(t *testing.T) {
	d := Dot{5, 1}
	ascending := []Sibling{
		{Dot: d},
		{Dot: d, Value: []byte("v")},
		{Dot: d, Deadline: 1000},
		{Dot: d, Deadline: 2000, Value: []byte("v")},
		{Dot: d, Tombstone: true},
	}
	for i, x := range ascending {
		for j, y := range ascending {
			want := Plain(ascending[max(i, j)])
			require.True(t, Join(Plain(x), Plain(y)).Equal(want))
			e, err := JoinEncoded(AppendSet(nil, Plain(x)), AppendSet(nil, Plain(y)))
			require.NoError(t, err)
			require.Equal(t, AppendSet(nil, want), e)
		}
	}
}
