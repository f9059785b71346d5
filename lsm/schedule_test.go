package lsm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/kvstore/lsm/internal/compaction"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// A stage is a tree with one key whose flushes, compactions and horizon are in
// the hands of a test, and the join of everything that arrived. It is a search
// over models of the rules for visibility, early end and purge, done with the
// real tree.
type stage struct {
	tb      failer
	tree    *Tree
	o       *Options
	key     []byte
	horizon atomic.Uint64
	chosen  []int // runs that the next compaction merges
	truth   vclock.Set
	trace   []string
}

// A failer is what testing.TB and rapid.T have in common here.
type failer interface {
	require.TestingT
	Fatalf(format string, args ...any)
}

func newStage(tb failer, purges bool) *stage {
	s := &stage{tb: tb, key: []byte("key")}
	s.o = &Options{FS: vfs.NewMem(1), MemtableBytes: minMemtableBytes, Slices: 1, Shards: 1, Identity: [16]byte{1}, Random: salts()}
	s.o.Horizon = func(uint64) vclock.Dot { return vclock.Dot{Stamp: s.horizon.Load(), Actor: math.MaxUint64} }
	if !purges {
		s.o.Horizon = func(uint64) vclock.Dot { return vclock.Dot{} }
	}
	s.o.pick = func([][]compaction.Run, compaction.Conditions) (compaction.Job, bool) {
		if len(s.chosen) == 0 {
			return compaction.Job{}, false
		}
		runs := s.chosen
		s.chosen = nil
		return compaction.Job{Runs: runs, Level: 1}, true
	}
	var err error
	s.tree, err = Open("db", s.o)
	require.NoError(tb, err)
	return s
}

func (s *stage) note(format string, args ...any) {
	s.trace = append(s.trace, fmt.Sprintf(format, args...))
}

// arrive applies a record as a replica does that has the horizon.
func (s *stage) arrive(set vclock.Set) {
	r := Record{Token: Token(s.key), Key: s.key, Kind: Causal, Value: vclock.AppendSet(nil, set), Min: set.Min(), Max: set.Max()}
	if r = straggle(r, s.truth, s.horizon.Load()); r.Kind == 0 {
		return
	}
	s.truth = vclock.Join(s.truth, setOf(&r))
	require.NoError(s.tb, s.tree.Apply([]Record{r}))
	s.note("arrive %v", set)
}

func (s *stage) flush() {
	require.NoError(s.tb, s.tree.Flush())
	s.note("flush")
}

// compact merges the runs of the bits in mask. A goroutine of the tree may come
// first and do it: either way it is done when this returns.
func (s *stage) compact(mask int) {
	v := s.tree.acquire(0)
	n := len(v.slices[0])
	s.tree.release(v, 0)
	var runs []int
	for i := range n {
		if mask>>i&1 == 1 {
			runs = append(runs, i)
		}
	}
	if len(runs) == 0 {
		return
	}
	s.tree.mu.Lock() // pick runs under it
	s.chosen = runs
	s.tree.mu.Unlock()
	before := s.tree.stats.compactions.Load()
	for s.tree.stats.compactions.Load() == before {
		_, err := s.tree.compactNext()
		require.NoError(s.tb, err)
	}
	s.note("compact %v of %d runs, horizon %d", runs, n, s.horizon.Load())
}

// check compares what a reader sees with the join of everything.
func (s *stage) check() {
	r, ok, err := s.tree.Read(s.key)
	require.NoError(s.tb, err)
	got := vclock.Set{}
	if ok {
		got = setOf(&r)
	}
	live := func(set vclock.Set) (out []vclock.Sibling) {
		for _, b := range set.Siblings {
			if !b.Tombstone {
				out = append(out, b)
			}
		}
		return out
	}
	if !slices.EqualFunc(live(got), live(s.truth), sameWrite) || s.horizon.Load() == 0 && !got.Equal(s.truth) {
		s.tb.Fatalf("read %v, want %v after\n%q", got, s.truth, s.trace)
	}
}

// authors are two remote owners. Each obeys the rule that its causal dots are
// above everything in its state.
type authors struct {
	r     *rand.Rand
	known [2]vclock.Set
	sent  []vclock.Set
	stamp uint64
}

// write makes one more record: plain, or causal, blind or aware.
func (a *authors) write() {
	who := a.r.IntN(2)
	a.stamp++
	b := vclock.Sibling{Dot: vclock.Dot{Stamp: a.stamp, Actor: uint64(who + 1)}, Tombstone: a.r.IntN(2) == 0}
	if !b.Tombstone {
		b.Value = []byte{byte(a.stamp)}
	}
	var set vclock.Set
	switch a.r.IntN(3) {
	case 0:
		set = vclock.Plain(b)
	case 1:
		b.Dot.Actor += 10
		set = a.known[who].Write(vclock.History{}, b)
	default:
		b.Dot.Actor += 10
		set = a.known[who].Write(a.known[who].History, b)
	}
	a.known[who] = vclock.Join(a.known[who], set)
	if a.r.IntN(2) == 0 {
		a.known[1-who] = vclock.Join(a.known[1-who], set)
		a.stamp = max(a.stamp, a.known[1-who].Max().Stamp)
	}
	a.sent = append(a.sent, set)
}

// order gives the numbers of the records.
func (a *authors) order() (order []int) {
	for i := range a.sent {
		order = append(order, i)
	}
	return order
}

// TestSchedules lets records arrive in any order, some of them again, between
// flushes, compactions of any runs and moves of the horizon. After each step the
// tree shows what the join of everything shows.
func TestSchedules(t *testing.T) {
	schedules(t, 0, sized[uint64](200_000, 1500, 200))
}

func schedules(t testing.TB, from, to uint64) {
	for seed := from; seed < to; seed++ {
		schedule(t, seed)
	}
}

func schedule(t testing.TB, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 9))
	a := &authors{r: r}
	arrived := map[int]bool{}
	s := newStage(t, true)
	defer s.tree.Close()
	s.note("seed %d", seed)
	arrive := func(i int) {
		arrived[i] = true
		s.arrive(a.sent[i])
	}
	for range 16 {
		switch r.IntN(9) {
		case 0, 1, 2:
			a.write()
		case 3, 4:
			if len(a.sent) > 0 {
				arrive(r.IntN(len(a.sent)))
			}
		case 5:
			s.flush()
		case 6, 7:
			s.compact(1 + r.IntN(31))
		case 8:
			h := r.Uint64N(a.stamp + 1)
			if h <= s.horizon.Load() {
				continue
			}
			for i, set := range a.sent {
				if set.Min().Stamp <= h && !arrived[i] {
					arrive(i)
				}
			}
			s.horizon.Store(h)
		}
		s.check()
	}
	require.NoError(t, s.tree.Close())
}

// TestEarlyEnd proves the early end of a read against the full join: however
// records are spread over memtable and tables, also two of one dot that differ,
// Read gives the join of all.
func TestEarlyEnd(t *testing.T) {
	for range 5 {
		earlyEnd(t)
	}
}

func earlyEnd(t rapid.TB) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStage(t, false)
		defer s.tree.Close()
		a := &authors{r: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))}
		for i, n := 0, rapid.IntRange(2, 9).Draw(t, "records"); i < n; i++ {
			if rapid.Bool().Draw(t, "twin") && i > 0 && a.sent[i-1].IsPlain() {
				// The same dot again, for another content: it must not be, and must
				// not make replicas differ.
				b := a.sent[i-1].Siblings[0]
				b.Tombstone, b.Value = false, []byte{byte(rapid.IntRange(0, 255).Draw(t, "value"))}
				a.sent = append(a.sent, vclock.Plain(b))
			} else {
				a.write()
			}
		}
		for _, i := range rapid.Permutation(a.order()).Draw(t, "order") {
			set := a.sent[i]
			r := Record{Token: Token(s.key), Key: s.key, Kind: Causal, Value: vclock.AppendSet(nil, set)}
			if err := s.tree.Apply([]Record{r}); err != nil {
				t.Fatal(err)
			}
			s.truth = vclock.Join(s.truth, set)
			if rapid.Bool().Draw(t, "flush") {
				if err := s.tree.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			s.check()
		}
	})
}
