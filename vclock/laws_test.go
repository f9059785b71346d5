package vclock

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// space lists all structurally valid sets over a few actors and stamps, each
// sibling with one of so many contents.
func space(actors, stamps, contents int) []Set {
	universe := dots(actors, stamps)
	var all []Set
	found := map[string]bool{}
	histories := []History{{}}
	for _, d := range universe {
		histories = append(histories, History{Floor: d})
	}
	for a := range actors {
		for _, h := range histories {
			for n := range stamps {
				histories = append(histories, h.Add(Dot{uint64(n + 1), uint64(a + 1)}))
			}
		}
	}
	for _, h := range histories {
		sets := []Set{{History: h}}
		for _, d := range universe {
			if !h.Contains(d) {
				continue
			}
			for _, s := range sets {
				for c := range contents {
					w := Sibling{Dot: d, Tombstone: c == 1, Value: []byte{byte(c)}}
					sets = append(sets, Set{h, append([]Sibling{w}, s.Siblings...)})
				}
			}
		}
		for _, s := range sets {
			if key := string(AppendSet(nil, s)); !found[key] {
				found[key] = true
				all = append(all, s)
			}
		}
	}
	return all
}

// TestLaws checks every set, pair and triple of small spaces: the join means
// what the naive model means, is closed, commutative, associative and idempotent,
// and agrees with Compare, Covers and the encoding (invariant I2).
func TestLaws(t *testing.T) {
	type size struct{ actors, stamps, contents, states int }
	sizes := []size{{2, 2, 1, 167}, {1, 3, 2, 142}, {2, 1, 2, 37}}
	if torture {
		sizes = append(sizes, size{2, 2, 2, 658}, size{2, 3, 1, 1103}, size{3, 2, 1, 1409})
	}
	for _, z := range sizes {
		t.Run(fmt.Sprintf("%d actors %d stamps %d contents", z.actors, z.stamps, z.contents), func(t *testing.T) {
			all := space(z.actors, z.stamps, z.contents)
			require.Equal(t, z.states, len(all))
			checkLaws(t, all, dots(z.actors, z.stamps), z.contents == 1)
		})
	}
}

func checkLaws(t *testing.T, all []Set, universe []Dot, oneContent bool) {
	models := make([]naive, len(all))
	encoded := make([][]byte, len(all))
	index := map[string]uint16{}
	for i, s := range all {
		require.Empty(t, structure(s))
		models[i] = naiveOf(s, universe)
		encoded[i] = AppendSet(nil, s)
		index[string(encoded[i])] = uint16(i)
		for _, d := range universe {
			require.Equal(t, models[i].seen[d], s.Contains(d), "%v in %v", d, s)
		}
	}

	// joined[x][y] is the number of the join, so that triples are look-ups.
	joined := make([][]uint16, len(all))
	for x := range all {
		joined[x] = make([]uint16, len(all))
		for y := range all {
			j := Join(all[x], all[y])
			b := AppendSet(nil, j)
			i, ok := index[string(b)]
			joined[x][y] = i
			if !ok || !all[i].Equal(j) {
				t.Fatalf("%v join %v = %v, not a valid set", all[x], all[y], j)
			}
			if !models[i].equal(models[x].join(models[y])) {
				t.Fatalf("%v join %v = %v, not what the model says", all[x], all[y], j)
			}
			if e, err := JoinEncoded(encoded[x], encoded[y]); err != nil || string(e) != string(b) {
				t.Fatalf("%v join %v: encoded %x, want %x, %v", all[x], all[y], e, b, err)
			}
		}
	}
	for x := range all {
		for y := range all {
			if joined[x][y] != joined[y][x] {
				t.Fatalf("%v and %v do not commute", all[x], all[y])
			}
			above, below := int(joined[x][y]) == x, int(joined[x][y]) == y
			if above && below != (x == y) {
				t.Fatalf("%v is not idempotent with %v", all[x], all[y])
			}
			h, g := all[x].History, all[y].History
			if h.Covers(g) != h.Join(g).Equal(h) {
				t.Fatalf("%v covers %v: %v", h, g, h.Covers(g))
			}
			if h.Equal(g) != (h.Covers(g) && g.Covers(h)) || h.After(g) != (h.Covers(g) && !g.Covers(h)) ||
				h.Concurrent(g) != (!h.Covers(g) && !g.Covers(h)) {
				t.Fatalf("%v and %v are %v", h, g, h.Compare(g))
			}
			if oneContent && all[x].Compare(all[y]) != order(above, below) {
				t.Fatalf("%v is %v %v", all[x], all[x].Compare(all[y]), all[y])
			}
		}
	}
	for x := range all {
		for y := range all {
			xy := joined[joined[x][y]]
			for z, yz := range joined[y] {
				if xy[z] != joined[x][yz] {
					t.Fatalf("%v, %v and %v do not associate", all[x], all[y], all[z])
				}
			}
		}
	}
	t.Logf("%d sets, %d pairs, %d triples", len(all), len(all)*len(all), len(all)*len(all)*len(all))
}

// TestStampFloorLosesBoth shows why the floor is a dot: if two plain writes with
// one stamp had each seen all dots of that stamp, the join would keep neither.
func TestStampFloorLosesBoth(t *testing.T) {
	universe := dots(2, 1)
	a, b := Sibling{Dot: universe[0]}, Sibling{Dot: universe[1]}

	x, y := newNaive(), newNaive()
	for _, d := range universe { // the floor is stamp 1
		x.seen[d], y.seen[d] = true, true
	}
	x.alive[a.Dot], y.alive[b.Dot] = a, b
	require.Empty(t, x.join(y).alive)

	require.Equal(t, Plain(b), Join(Plain(a), Plain(b)))
}

// TestMergesAreNotWrites shows why replicas leave siblings side by side, and merge
// functions are views: if each stored what it merged, that were new writes, concurrent
// with those of the others, without end. Siblings that are left alone settle at once.
func TestMergesAreNotWrites(t *testing.T) {
	settle := func(merging int) (rounds, writes int) {
		replicas := make([]Set, 3)
		for i := range replicas {
			replicas[i] = Set{}.Write(History{}, Sibling{Dot: Dot{1, 1}}).Write(History{}, Sibling{Dot: Dot{2, 2}})
		}
		replicas[2] = Set{} // it has missed both
		const most = 1000
		for stamp := uint64(10); rounds < most; rounds++ {
			before := slices.Clone(replicas)
			for i := range merging {
				if s := replicas[i]; len(s.Siblings) > 1 {
					stamp++
					writes++
					replicas[i] = s.Write(s.History, Sibling{Dot: Dot{stamp, uint64(10 + i)}})
				}
			}
			for i := range replicas {
				for j := range replicas {
					replicas[i] = Join(replicas[i], replicas[j])
					replicas[j] = replicas[i]
				}
			}
			if slices.EqualFunc(before, replicas, Set.Equal) {
				return rounds, writes
			}
		}
		return rounds, writes
	}
	rounds, writes := settle(0)
	require.Equal(t, 1, rounds)
	require.Zero(t, writes)
	rounds, writes = settle(3)
	require.Equal(t, 1000, rounds, "replicas that merge settle after all")
	require.Greater(t, writes, 1000)
}
