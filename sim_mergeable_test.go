package kvstore_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/crdt"
	"example.com/kvstore/kvtest"
)

// counterStorm has clients count through all nodes in a storm, each request again until it
// succeeds, with its id or without, and gives by how much the counts are wrong.
func counterStorm(t *testing.T, seed uint64, ids bool) (wrong int64) {
	var mu sync.Mutex
	sums := map[string]int64{}
	counter := func(db *kvstore.DB, key string) kvstore.Counter {
		if key == "field" {
			return db.Map("map").Counter(key)
		}
		return db.Counter(key)
	}
	set := func(o *kvstore.Options) {
		if seed%2 == 0 {
			o.Read, o.Write = kvstore.One, kvstore.One // so that every part of a partition counts
		}
	}
	mergeableStorm(t, seed, 8*time.Second, set, 5, func(_ *kvtest.Cluster, client, i int, draw *rand.Rand) func(db *kvstore.DB) error {
		key := []string{"a", "b", "c", "field"}[draw.IntN(4)]
		delta := draw.Int64N(200) - 50
		mu.Lock()
		sums[key] += delta
		mu.Unlock()
		var opts []kvstore.CounterOption
		if ids {
			opts = append(opts, kvstore.RequestID(fmt.Sprint(client, "/", i)))
		}
		return func(db *kvstore.DB) error { return counter(db, key).Add(ctx, delta, opts...) }
	}, func(c *kvtest.Cluster) {
		for key, sum := range sums {
			for i := range c.Nodes() {
				n := insist(c, i, func(db *kvstore.DB) (int64, error) { return counter(db, key).Value(ctx, kvstore.All) })
				wrong += max(n-sum, sum-n)
			}
		}
	})
	return wrong
}

// TestSimCounter: what all nodes count adds up exactly, through partitions, crashes,
// loss and duplicates, each request again until it succeeds.
//
//	go test -run TestSimCounter -seeds 1000
func TestSimCounter(t *testing.T) {
	kvtest.Seeds(t, 12, func(t *testing.T, seed uint64) {
		require.Zero(t, counterStorm(t, seed, true))
	})
}

// TestSimCounterWithout: it does not without request ids, nor if the changes of a key
// do not take turns at their coordinator.
func TestSimCounterWithout(t *testing.T) {
	t.Run("ids", func(t *testing.T) {
		for seed := uint64(1); ; seed++ {
			require.Less(t, seed, uint64(20))
			if counterStorm(t, seed, false) > 0 {
				t.Log("seen with seed", seed)
				return
			}
		}
	})
	t.Run("turns", func(t *testing.T) {
		defer func(d bool) { kvstore.Defences.KeyLocks = d }(kvstore.Defences.KeyLocks)
		for _, locks := range []bool{true, false} {
			kvstore.Defences.KeyLocks = locks
			simulate(t, 1, nil, func(c *kvtest.Cluster) {
				c.Ready()
				waitMembers(c, 3)
				var wg sync.WaitGroup
				for i := range 30 {
					wg.Go(func() {
						db := c.Node(i % 3).DB()
						require.NoError(c.T, db.Counter("n").Add(ctx, 1))
						require.NoError(c.T, db.Set("s").Add(ctx, fmt.Sprint(i)))
					})
				}
				wg.Wait()
				n, err := c.Node(0).DB().Counter("n").Value(ctx)
				require.NoError(c.T, err)
				require.Equal(c.T, locks, n == 30)
				s, err := c.Node(0).DB().Set("s").Elements(ctx)
				require.NoError(c.T, err)
				require.Equal(c.T, locks, len(s) == 30)
			})
		}
	})
}

// TestSimCounterOnce: without faults that fail a call, each Add counts once, also without an
// id, whatever the network duplicates.
func TestSimCounterOnce(t *testing.T) {
	few(t, 3, func(t *testing.T, seed uint64) {
		simulate(t, seed, &kvtest.Options{Duplicate: 0.3}, func(c *kvtest.Cluster) {
			c.Ready()
			waitMembers(c, 3)
			var wg sync.WaitGroup
			for i := range 6 {
				wg.Go(func() {
					for range 20 {
						require.NoError(c.T, c.Node(i%3).DB().Counter("n").Add(ctx, 1))
					}
				})
			}
			wg.Wait()
			require.Equal(c.T, int64(120), value(c.T, c.Node(0).DB().Counter("n")))
		})
	})
}

// A setCall is one attempt to add or remove an element, or to put a value.
type setCall struct {
	element    string
	remove     bool
	start, end time.Duration
	acked      bool // else it may have happened, until end
}

// judge says whether calls leave an element in the set, as far as they tell.
func judge(calls []setCall, element string) (in, decided bool) {
	calls = slices.DeleteFunc(slices.Clone(calls), func(s setCall) bool { return s.element != element })
	for _, s := range calls {
		if !s.acked {
			continue
		}
		// An add stays if all that may remove it was over before, and a remove is the
		// last word if it could see all that was added.
		if !slices.ContainsFunc(calls, func(o setCall) bool { return o.remove != s.remove && (o.end >= s.start || !o.remove && !o.acked) }) {
			return !s.remove, true
		}
	}
	return false, false
}

// TestSimSet: in a storm, an element that was added after all that removed it is in the
// set, and one that was removed after all that added it is not; in a map too.
//
//	go test -run TestSimSet -seeds 1000
func TestSimSet(t *testing.T) {
	decided, runs := map[bool]int{}, 0
	kvtest.Seeds(t, 12, func(t *testing.T, seed uint64) {
		var mu sync.Mutex
		var calls []setCall
		sets := func(db *kvstore.DB) []kvstore.Set { return []kvstore.Set{db.Set("set"), db.Map("map").Set("set")} }
		// The elements of a set are its own.
		of := func(element string) int { return int(element[0]) % 2 }
		mergeableStorm(t, seed, 8*time.Second, nil, 5, func(c *kvtest.Cluster, _, i int, draw *rand.Rand) func(db *kvstore.DB) error {
			element := string(rune('a'+draw.IntN(2))) + fmt.Sprint(i/10, draw.IntN(3))
			remove := draw.IntN(3) == 0
			return func(db *kvstore.DB) error {
				call := setCall{element: element, remove: remove, start: c.Now()}
				var err error
				if s := sets(db)[of(element)]; remove {
					err = s.Remove(ctx, element)
				} else {
					err = s.Add(ctx, element)
				}
				if call.end, call.acked = c.Now(), err == nil; !call.acked {
					call.end = call.start + 4*time.Second // whoever still has it may do it until its deadline
				}
				if kvstore.OutcomeOf(err) != kvstore.NotApplied {
					mu.Lock()
					calls = append(calls, call)
					mu.Unlock()
				}
				return err
			}
		}, func(c *kvtest.Cluster) {
			runs++
			for i := range c.Nodes() {
				var there [2][]string
				for s := range there {
					there[s] = insist(c, i, func(db *kvstore.DB) ([]string, error) { return sets(db)[s].Elements(ctx) })
				}
				for _, call := range calls {
					if in, known := judge(calls, call.element); known {
						decided[in]++
						require.Equal(c.T, in, slices.Contains(there[of(call.element)], call.element), "element %s, calls %+v", call.element, calls)
					}
				}
			}
		})
	})
	t.Log("in and not in:", decided[true], decided[false])
	if runs > 5 { // not a replay of a few
		require.NotZero(t, decided[true])
		require.NotZero(t, decided[false])
	}
}

// TestSimRegister: in a storm, a value that was put after all others were is the only
// one, and one is gone that somebody put after it.
//
//	go test -run TestSimRegister -seeds 1000
func TestSimRegister(t *testing.T) {
	const registers = 4
	last, gone, runs := 0, 0, 0
	kvtest.Seeds(t, 6, func(t *testing.T, seed uint64) {
		var mu sync.Mutex
		calls := map[string][]setCall{} // of each register
		register := func(db *kvstore.DB, name string) kvstore.Register { return db.Map("map").Register(name) }
		mergeableStorm(t, seed, 8*time.Second, nil, 4, func(c *kvtest.Cluster, client, i int, draw *rand.Rand) func(db *kvstore.DB) error {
			name, tries := fmt.Sprint(draw.IntN(registers)), 0
			return func(db *kvstore.DB) error {
				tries++
				call := setCall{element: fmt.Sprint(client, i, tries), start: c.Now()}
				err := register(db, name).Put(ctx, []byte(call.element))
				if call.end, call.acked = c.Now(), err == nil; !call.acked {
					call.end = call.start + 4*time.Second
				}
				if kvstore.OutcomeOf(err) != kvstore.NotApplied {
					mu.Lock()
					calls[name] = append(calls[name], call)
					mu.Unlock()
				}
				return err
			}
		}, func(c *kvtest.Cluster) {
			runs++
			for name, calls := range calls {
				values := insist(c, 0, func(db *kvstore.DB) ([][]byte, error) { return register(db, name).Values(ctx) })
				for _, p := range calls {
					there := slices.ContainsFunc(values, func(v []byte) bool { return string(v) == p.element })
					switch {
					case p.acked && !slices.ContainsFunc(calls, func(o setCall) bool { return o != p && (o.end >= p.start || !o.acked) }):
						last++
						require.True(c.T, there && len(values) == 1, "put %+v, there are %q", p, values)
					case p.acked && slices.ContainsFunc(calls, func(o setCall) bool { return o.acked && o.start > p.end }):
						gone++
						require.False(c.T, there, "put %+v, there are %q", p, values)
					}
				}
			}
		})
	})
	t.Log("the last and gone:", last, gone)
	if runs > 5 { // not a replay of a few
		require.NotZero(t, gone)
	}
}

// TestSimMergeablePartition: both sides of a partition change a counter, a set and a
// map; what they did comes together, and the next change stores it as one.
func TestSimMergeablePartition(t *testing.T) {
	o := &kvtest.Options{Configure: func(_ int, o *kvstore.Options) {
		o.Read, o.Write, o.MaxValueBytes = kvstore.One, kvstore.One, 1000
	}}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		c.Ready()
		waitMembers(c, 3)
		db := func(i int) *kvstore.DB { return c.Node(i).DB() }
		ok := func(errs ...error) {
			c.T.Helper()
			for _, err := range errs {
				require.NoError(c.T, err)
			}
		}
		large := func(s string) string { return strings.Repeat(s, 600) }
		gone := crdt.Field{Name: "gone", Kind: crdt.CounterKind}
		ok(db(0).Counter("n").Add(ctx, 1), db(0).Set("s").Update(ctx, []string{"x", "y", "z"}, nil),
			db(0).Map("m").Register("r").Put(ctx, []byte("old")), db(0).Map("m").Counter("gone").Add(ctx, 1), db(0).Map("m").Set("tags").Add(ctx, "t"),
			db(0).Counter("over").Add(ctx, math.MaxInt64-1))
		c.Settle()
		c.Partition([]int{0}, []int{1, 2})
		time.Sleep(20 * time.Second) // until both sides have given each other up
		ok(db(0).Counter("n").Add(ctx, 10), db(0).Set("s").Update(ctx, []string{"left"}, []string{"x", "y"}),
			db(0).Map("m").Register("r").Put(ctx, []byte("left")), db(0).Map("m").Remove(ctx, gone), db(0).Map("m").Set("tags").Remove(ctx, "t"),
			db(0).Set("large").Add(ctx, large("a")), db(0).Counter("over").Add(ctx, 1), db(0).Counter("twice").Add(ctx, 5, kvstore.RequestID("r")))
		ok(db(1).Counter("n").Add(ctx, 100), db(2).Counter("n").Add(ctx, -1000), db(1).Set("s").Update(ctx, []string{"right", "y"}, []string{"z"}),
			db(2).Map("m").Register("r").Put(ctx, []byte("right")), db(1).Map("m").Set("tags").Add(ctx, "u"),
			db(1).Set("large").Add(ctx, large("b")), db(2).Counter("over").Add(ctx, 1), db(1).Counter("twice").Add(ctx, 5, kvstore.RequestID("r")), db(2).Counter("twice").Add(ctx, 5, kvstore.RequestID("r")))
		c.Heal()
		c.Settle()
		for i := range 3 {
			require.Equal(c.T, int64(-889), value(c.T, db(i).Counter("n"), kvstore.All))
			require.Equal(c.T, int64(5), value(c.T, db(i).Counter("twice"), kvstore.All))
			require.Equal(c.T, []string{"left", "right", "y"}, elements(c.T, db(i).Set("s"), kvstore.All))
			require.Equal(c.T, []string{"u"}, elements(c.T, db(i).Map("m").Set("tags"), kvstore.All))
			values, err := db(i).Map("m").Register("r").Values(ctx, kvstore.All)
			ok(err)
			require.ElementsMatch(c.T, []string{"left", "right"}, []string{string(values[0]), string(values[1])})
			state, err := db(i).Map("m").State(ctx, kvstore.All)
			ok(err)
			require.NotContains(c.T, state.Fields(), gone)
			_, err = db(i).Counter("over").Value(ctx, kvstore.All)
			require.ErrorIs(c.T, err, kvstore.ErrOverflow)
			it, err := db(i).Get(ctx, "n", kvstore.All)
			ok(err)
			require.Len(c.T, it.Siblings(), 2)
			s, err := crdt.Decode(it.Value)
			ok(err)
			n, err := s.Count()
			ok(err)
			require.Equal(c.T, int64(-889), n, "a read shows what was merged")
		}
		// What is too large together can be read, and made smaller.
		require.Equal(c.T, []string{large("a"), large("b")}, elements(c.T, db(2).Set("large"), kvstore.All))
		require.ErrorIs(c.T, db(2).Set("large").Add(ctx, "c"), kvstore.ErrValueTooLarge)
		ok(db(2).Set("large").Remove(ctx, large("a")), db(2).Set("large").Add(ctx, "c"))
		require.Equal(c.T, []string{large("b"), "c"}, elements(c.T, db(2).Set("large"), kvstore.All))

		ok(db(0).Counter("over").Add(ctx, -1), db(1).Counter("n").Add(ctx, 0), db(2).Map("m").Register("r").Put(ctx, []byte("one")))
		require.Equal(c.T, int64(math.MaxInt64), value(c.T, db(2).Counter("over"), kvstore.All))
		it, err := db(2).Get(ctx, "n", kvstore.All)
		ok(err)
		require.Nil(c.T, it.Siblings(), "a change stores what was merged")
		values, err := db(0).Map("m").Register("r").Values(ctx, kvstore.All)
		ok(err)
		require.Len(c.T, values, 1)
	})
}

// TestSimMergeableAfterDelete: a change that is coordinated by an owner which missed an
// acknowledged Delete, or Remove, starts from nothing all the same.
func TestSimMergeableAfterDelete(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		c.Ready()
		waitMembers(c, 3)
		c.Settle()
		first := ownersOf(c, "n")[0]
		other := c.Node((first + 1) % 3).DB()
		require.NoError(c.T, other.Counter("n").Add(ctx, 100, kvstore.All))
		c.Cut(first, (first+1)%3) // what it is told arrives nowhere, and it is told nothing
		c.Cut((first+1)%3, first)
		c.Cut((first+2)%3, first)
		require.NoError(c.T, other.Delete(ctx, "n"))
		c.Heal()
		time.Sleep(time.Millisecond)
		require.NoError(c.T, other.Counter("n").Add(ctx, 1))
		for i := range 3 {
			require.Equal(c.T, int64(1), value(c.T, c.Node(i).DB().Counter("n")))
		}
	})
}
