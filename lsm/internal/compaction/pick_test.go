package compaction

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// runs makes idle runs of a level, all of one size.
func runs(level uint8, n int, bytes uint64) []Run {
	out := make([]Run, n)
	for i := range out {
		out[i] = Run{Level: level, Bytes: bytes, Records: bytes}
	}
	return out
}

func join(parts ...[]Run) (all []Run) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func busy(r []Run) []Run {
	for i := range r {
		r[i].Busy = true
	}
	return r
}

func TestPick(t *testing.T) {
	dead := func(r []Run, n uint64) []Run { r[0].Purgeable = n; return r }
	for _, c := range []struct {
		name    string
		slices  [][]Run
		nothing bool
		want    Job
	}{
		{name: "empty", slices: [][]Run{nil, nil}, nothing: true},
		{name: "too few for a first bottom", slices: [][]Run{runs(0, 3, 10)}, nothing: true},
		{name: "first bottom", slices: [][]Run{runs(0, 3, 10), runs(0, 4, 10)}, want: Job{1, []int{0, 1, 2, 3}, Bottom}},
		{name: "a bottom alone", slices: [][]Run{runs(Bottom, 1, 100)}, nothing: true},
		{name: "little above", slices: [][]Run{join(runs(Bottom, 1, 100), runs(0, 5, 2))}, nothing: true},
		{name: "tier", slices: [][]Run{join(runs(Bottom, 1, 100), runs(0, 6, 2))}, want: Job{0, []int{1, 2, 3, 4, 5, 6}, 1}},
		{name: "tier of the most crowded slice", slices: [][]Run{
			join(runs(Bottom, 1, 100), runs(0, 6, 2)),
			join(runs(Bottom, 1, 100), runs(1, 2, 2), runs(0, 7, 1)),
		}, want: Job{1, []int{3, 4, 5, 6, 7, 8, 9}, 1}},
		{name: "second tier", slices: [][]Run{join(runs(1, 6, 5), runs(Bottom, 1, 100))}, want: Job{0, []int{0, 1, 2, 3, 4, 5}, 2}},
		{name: "a tier whose bottom is merged soon", slices: [][]Run{join(runs(Bottom, 1, 100), runs(0, 8, 5))}, nothing: true},
		{name: "though not for ever", slices: [][]Run{join(runs(Bottom, 1, 200), runs(0, 18, 5))}, want: Job{0, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18}, 1}},
		{name: "a tier that is being merged", slices: [][]Run{join(runs(Bottom, 1, 100), busy(runs(0, 6, 2)), runs(0, 5, 2))}, nothing: true},
		{name: "the slice above its share", slices: [][]Run{
			join(runs(Bottom, 1, 100), runs(0, 1, 50)),
			join(runs(Bottom, 1, 100), runs(0, 1, 75)),
		}, want: Job{1, []int{0, 1}, Bottom}},
		{name: "together below it", slices: [][]Run{
			join(runs(Bottom, 1, 100), runs(0, 1, 40)),
			join(runs(Bottom, 1, 100), runs(0, 1, 75)),
		}, nothing: true},
		{name: "one slice filled alone", slices: [][]Run{
			runs(Bottom, 1, 100), runs(Bottom, 1, 100), runs(Bottom, 1, 100),
			join(runs(Bottom, 1, 100), runs(0, 2, 50)),
		}, want: Job{3, []int{0, 1, 2}, Bottom}},
		{name: "what is above a busy bottom", slices: [][]Run{join(busy(runs(Bottom, 1, 100)), runs(0, 2, 50))}, nothing: true},
		{name: "a first bottom that is being made", slices: [][]Run{join(busy(runs(0, 4, 10)), runs(0, 5, 10))}, nothing: true},
		{name: "a bottom beside a busy tier", slices: [][]Run{join(runs(Bottom, 1, 100), busy(runs(0, 6, 5)), runs(1, 3, 40))}, want: Job{0, []int{0, 7, 8, 9}, Bottom}},
		{name: "two bottoms, by whatever way", slices: [][]Run{join(runs(Bottom, 1, 100), runs(Bottom, 1, 110))}, want: Job{0, []int{0, 1}, Bottom}},
		{name: "purge", slices: [][]Run{runs(Bottom, 1, 100), dead(runs(Bottom, 1, 100), 25)}, want: Job{1, []int{0}, Bottom}},
		{name: "nothing to purge worth it", slices: [][]Run{dead(runs(Bottom, 1, 100), 24)}, nothing: true},
		{name: "purge of what is above too", slices: [][]Run{join(dead(runs(0, 1, 40), 40), runs(Bottom, 1, 100))}, want: Job{0, []int{0, 1}, Bottom}},
	} {
		t.Run(c.name, func(t *testing.T) {
			j, ok := Pick(c.slices, Conditions{})
			require.Equal(t, !c.nothing, ok)
			require.Equal(t, c.want, j)
			_, ok = Pick(c.slices, Conditions{Held: func(int) bool { return true }})
			require.False(t, ok, "every slice is held")
			if j, ok := Pick(c.slices, Conditions{NoBottoms: true}); ok {
				require.NotEqual(t, uint8(Bottom), j.Level)
			}
			want := uint64(0)
			for _, i := range c.want.Runs {
				want += c.slices[c.want.Slice][i].Bytes
			}
			require.GreaterOrEqual(t, Debt(c.slices), want)
		})
	}
}

// A simulation keeps the keys of every run of a tree, and merges whatever Pick
// asks for. Sizes are in values.
type simulation struct {
	t                *testing.T
	r                *rand.Rand
	slices           [][]simRun
	live             []map[int]bool // the truth, for each slice
	horizon, resting bool           // everything is behind the horizon; nobody writes

	flushed, merged float64
	runs            int     // most in a slice
	space           float64 // at worst, of the live data
	filters         filters
}

// filters sums up what filters by FilterBits take and let through, and the same
// for filters that are alike.
type filters struct{ bits, alikeBits, passed, alikePassed float64 }

type simRun struct {
	level uint8
	keys  map[int]bool // false: a tombstone
	bits  float64      // a key, of its filter
}

// bits gives those for a run that is about to be made.
func (s *simulation) bits(slice int, level uint8, keys int) float64 {
	bottom := 0
	for _, r := range s.slices[slice] {
		if r.level == Bottom {
			bottom = len(r.keys)
		}
	}
	return FilterBits(10, level, uint64(keys), uint64(bottom))
}

// observe looks at the filters as they are now.
func (s *simulation) observe() {
	f := &s.filters
	for _, runs := range s.slices {
		for _, r := range runs {
			n := float64(len(r.keys))
			f.bits += n * r.bits
			f.alikeBits += n * 10
			f.passed += math.Pow(0.6185, r.bits)
			f.alikePassed += math.Pow(0.6185, 10)
		}
	}
}

const (
	tombstone  = 0.03 // its size
	compressed = 0.68 // what a value takes in a table: half of it is random
)

func (r simRun) size() (values float64, dead int) {
	for _, v := range r.keys {
		if v {
			values++
		} else {
			dead++
		}
	}
	return values + tombstone*float64(dead), dead
}

func newSimulation(t *testing.T, n int) *simulation {
	s := &simulation{t: t, r: rand.New(rand.NewPCG(1, 1)), slices: make([][]simRun, n)}
	for range n {
		s.live = append(s.live, map[int]bool{})
	}
	return s
}

func (s *simulation) shapes() [][]Run {
	out := make([][]Run, len(s.slices))
	for i, runs := range s.slices {
		for _, r := range runs {
			bytes, dead := r.size()
			if !s.horizon {
				dead = 0
			}
			out[i] = append(out[i], Run{Level: r.level, Bytes: uint64(1000 * bytes), Records: uint64(len(r.keys)), Purgeable: uint64(dead)})
		}
	}
	return out
}

func (s *simulation) total() (tables, live float64) {
	for i, runs := range s.slices {
		for _, r := range runs {
			size, _ := r.size()
			tables += size
		}
		live += float64(len(s.live[i]))
	}
	return tables, live
}

// flush adds a run to each slice, then compacts as long as Pick says so.
func (s *simulation) flush(write func(slice int) map[int]bool) {
	for i := range s.slices {
		r := simRun{0, write(i), 0}
		r.bits = s.bits(i, 0, len(r.keys))
		for k, v := range r.keys {
			if v {
				s.live[i][k] = true
			} else {
				delete(s.live[i], k)
			}
		}
		size, _ := r.size()
		s.flushed += size
		s.slices[i] = append(s.slices[i], r)
	}
	s.compact()
	s.observe()
}

func (s *simulation) compact() {
	for n := 0; ; n++ {
		require.Less(s.t, n, 100, "compactions never end")
		for _, runs := range s.slices {
			s.runs = max(s.runs, len(runs))
		}
		if j, ok := Pick(s.shapes(), Conditions{Resting: s.resting}); ok {
			s.merge(j)
		} else {
			return
		}
	}
}

// merge carries out a job. Newer runs come later in a slice, so that what they
// hold of a key counts.
func (s *simulation) merge(j Job) {
	out := simRun{j.Level, map[int]bool{}, 0}
	var rest []simRun
	at := 0 // where the newest of the merged ones was
	for i, r := range s.slices[j.Slice] {
		if !slices.Contains(j.Runs, i) {
			rest = append(rest, r)
			continue
		}
		at = len(rest)
		for k, v := range r.keys {
			out.keys[k] = v
		}
	}
	if s.horizon && len(rest) == 0 {
		for k, v := range out.keys {
			if !v {
				delete(out.keys, k)
			}
		}
	}
	out.bits = s.bits(j.Slice, j.Level, len(out.keys))
	size, _ := out.size()
	s.merged += size
	if tables, live := s.total(); live > 0 {
		s.space = max(s.space, compressed*(tables+size)/live) // both are there for a moment
	}
	if len(out.keys) > 0 {
		rest = slices.Insert(rest, at, out)
	}
	s.slices[j.Slice] = rest
}

func (s *simulation) amplification() float64 { return (s.flushed + s.merged) / s.flushed }

func (s *simulation) log(phase string) {
	tables, live := s.total()
	s.t.Logf("%s: write amplification %.2f, at most %d runs, space at worst %.2f and now %.2f of %.0f values",
		phase, s.amplification(), s.runs, s.space, compressed*tables/live, live)
}

func (s *simulation) reset() {
	s.filters = filters{}
	s.flushed, s.merged, s.runs, s.space = 0, 0, 0, 0
}

// TestSimulation bounds what a tree costs over fills, overwrites and deletes:
// table bytes written for each byte flushed, runs, and table bytes for each byte
// of live data.
func TestSimulation(t *testing.T) {
	const (
		perFlush = 50 // keys of a slice in a memtable
		flushes  = 30
		keys     = perFlush * flushes // of a slice
	)
	for _, n := range []int{1, 8} {
		t.Run(fmt.Sprintf("%d slices", n), func(t *testing.T) {
			s := newSimulation(t, n)
			worst := 1.2
			if n == 1 {
				worst = 2.5 // one slice is rewritten as a whole
			}
			for i := range flushes {
				s.flush(func(int) map[int]bool {
					m := map[int]bool{}
					for k := range perFlush {
						m[i*perFlush+k] = true
					}
					return m
				})
			}
			s.log("fill")
			require.Less(t, s.amplification(), 3.0)
			require.LessOrEqual(t, s.runs, Waiting)

			s.reset()
			for range 5 * flushes {
				s.flush(func(int) map[int]bool {
					m := map[int]bool{}
					for len(m) < perFlush {
						m[s.r.IntN(keys)] = true
					}
					return m
				})
			}
			s.log("overwrite")
			require.Less(t, s.amplification(), 3.5)
			require.LessOrEqual(t, s.runs, Waiting)
			require.Less(t, s.space, worst)
			f := s.filters
			t.Logf("filters: %.3f of the memory, %.2f of the false positives of filters that are alike", f.bits/f.alikeBits, f.passed/f.alikePassed)
			require.LessOrEqual(t, f.bits, f.alikeBits)
			require.Less(t, f.passed, 0.6*f.alikePassed)

			s.resting = true
			s.compact()
			s.log("settled")
			tables, live := s.total()
			require.Less(t, compressed*tables/live, 0.76)
			s.resting = false

			s.reset()
			before := live
			for range 5 * flushes {
				s.flush(func(slice int) map[int]bool {
					m := map[int]bool{}
					for len(m) < perFlush {
						k := s.r.IntN(keys)
						m[k] = !s.live[slice][k] // puts and deletes in turn
					}
					return m
				})
			}
			s.log("deletes")
			require.Less(t, s.amplification(), 4.5)
			require.LessOrEqual(t, s.runs, Waiting)
			require.Less(t, s.space, 2*worst) // half of the keys are gone, and all were there

			for i := range flushes {
				s.flush(func(int) map[int]bool {
					m := map[int]bool{}
					for k := range perFlush {
						m[i*perFlush+k] = false
					}
					return m
				})
			}
			s.horizon = true
			s.compact()
			tables, live = s.total()
			require.Zero(t, live)
			require.LessOrEqual(t, tables, before/100, "all is deleted and behind the horizon")
		})
	}
}

func TestPressure(t *testing.T) {
	for _, c := range []struct {
		name   string
		slices [][]Run
		want   float64
	}{
		{"nothing", [][]Run{nil}, 0},
		{"a bottom and as much as the picker leaves", [][]Run{join(runs(Bottom, 1, 1000), runs(0, 5, 100))}, 0},
		{"few runs", [][]Run{runs(0, 16, 1)}, 0},
		{"runs", [][]Run{runs(0, 28, 1), runs(0, 3, 1)}, 0.5},
		{"too many runs", [][]Run{runs(0, 50, 1)}, 1},
		{"waste", [][]Run{runs(Bottom, 1, 500), join(runs(Bottom, 1, 500), runs(1, 10, 100))}, 0.5},
		{"too much waste", [][]Run{join(runs(Bottom, 1, 1000), runs(1, 10, 1000))}, 1},
	} {
		require.InDelta(t, c.want, max(Pressure(c.slices, 40, 100), 0), 1e-9, c.name)
	}
}
