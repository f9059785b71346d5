package cache

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/offheap"
	"example.com/kvstore/vclock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A store is what the cache is a cache of: one record of each key.
type store struct {
	r     *rand.Rand
	all   map[string]base.Record
	stamp uint64
}

// write makes a record of any shape for a key.
func (s *store) write(key string) base.Record {
	s.stamp++
	r := base.Record{Token: base.Token([]byte(key)), Key: []byte(key), Kind: base.Kind(1 + s.r.IntN(3))}
	if s.r.IntN(20) == 0 {
		r.Token = 7 // many keys of one token
	}
	if old, ok := s.all[key]; ok {
		r.Token = old.Token
	}
	r.Max = vclock.Dot{Stamp: s.stamp, Actor: s.r.Uint64()}
	r.Min = r.Max
	if r.Kind == base.Causal {
		r.Min.Stamp--
	}
	if s.r.IntN(3) == 0 {
		r.Deadline = int64(s.stamp)
	}
	if r.Kind != base.Tombstone {
		r.Value = make([]byte, int(math.Exp(s.r.Float64()*math.Log(7000))))
		for i := range r.Value {
			r.Value[i] = byte(s.stamp)
		}
	}
	s.all[key] = r
	return r
}

func requireRecord(t *testing.T, want, got base.Record) {
	t.Helper()
	want.Value, got.Value = append([]byte{}, want.Value...), append([]byte{}, got.Value...)
	require.Equal(t, want, got)
}

// TestAgainstMap does everything at random. What the cache has is what the store
// has, and its bytes are bounded.
func TestAgainstMap(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := &store{r: r, all: map[string]base.Record{}}
		capacity := int64(40<<10 + r.IntN(1<<20))
		c := New(capacity)
		hits := 0
		for i := range 30_000 {
			key := fmt.Sprint("key ", int(math.Exp(r.Float64()*8)))
			switch k := r.IntN(1000); {
			case k < 100:
				rec := s.write(key)
				c.Update(&rec)
			case k < 110:
				c.Hold()
				old, ok := s.all[key]
				delete(s.all, key)
				if ok {
					c.Forget(old.Token)
				}
				c.Release()
			case k == 110:
				c.Hold()
				lo := r.Uint64()
				hi := lo + r.Uint64()>>4
				for k, old := range s.all {
					if lo <= old.Token && old.Token <= hi {
						delete(s.all, k)
					}
				}
				c.ForgetRange(lo, hi)
				c.Release()
			case k < 114:
				capacity = int64(r.IntN(1 << 20))
				c.SetCapacity(capacity)
			default:
				rec, ok := s.all[key]
				ticket := c.Begin(rec.Token)
				got, held := c.Get(rec.Token, []byte(key), nil)
				if held {
					require.True(t, ok)
					requireRecord(t, rec, got)
					hits++
				} else if ok {
					if r.IntN(10) == 0 {
						later := s.write(key) // while the read is under way
						c.Update(&later)
					}
					c.Fill(ticket, &rec)
				}
			}
			if i%16 == 0 {
				require.LessOrEqual(t, c.Stats().Bytes, capacity)
			}
		}
		for i := range c.shards {
			requireShape(t, &c.shards[i])
		}
		require.Greater(t, hits, 2000)
		require.Positive(t, c.Stats().Dropped)
		c.Close()
	}
	require.Zero(t, offheap.Live())
}

// requireChunks: every segment that is held has a place of its own.
func requireChunks(t *testing.T, g *segments) {
	held := map[int]int{}
	places := map[[2]int]bool{}
	for _, one := range g.all {
		if one.chunk < 0 {
			require.Nil(t, one.b)
			continue
		}
		require.False(t, places[[2]int{one.chunk, one.at}], "two segments in one place")
		places[[2]int{one.chunk, one.at}] = true
		if one.b != nil {
			held[one.chunk]++
		}
	}
	for k, c := range g.chunks {
		require.Equal(t, c.held, held[k])
		require.Equal(t, c.held > 0, c.memory != nil)
	}
}

// TestChunks takes segments and gives them back under a limit that moves. What is held keeps
// its bytes, and in the end nothing is left.
func TestChunks(t *testing.T) {
	before := offheap.Live()
	draw := rand.New(rand.NewPCG(1, 2))
	for _, most := range []int{20, 100} { // below a huge page, and three of them
		g := segments{size: 64 << 10, limit: most}
		taken := map[int]byte{}
		for range 20_000 {
			switch draw.IntN(10) {
			case 0:
				g.limit = max(len(taken), draw.IntN(most+1))
				g.trim()
				requireChunks(t, &g)
			case 1, 2, 3, 4, 5:
				if g.left() > 0 {
					i := g.take()
					require.NotContains(t, taken, i)
					taken[i] = byte(draw.Int())
					g.all[i].b[0], g.all[i].b[g.size-1] = taken[i], taken[i]
				}
			default:
				for i, mark := range taken {
					require.Equal(t, mark, g.all[i].b[0])
					require.Equal(t, mark, g.all[i].b[g.size-1])
					g.put(i)
					delete(taken, i)
					break
				}
			}
			require.LessOrEqual(t, g.held, g.limit)
			require.Equal(t, g.held, len(g.free)+len(taken))
		}
		require.LessOrEqual(t, len(g.all), 2*most, "places are used again")
		for i := range taken {
			g.put(i)
		}
		g.limit = 0
		g.trim()
		requireChunks(t, &g)
		require.Equal(t, before, offheap.Live())
	}
}

// requireShape checks a shard's invariants.
func requireShape(t *testing.T, s *shard) {
	x, g := &s.mu.index, &s.mu.segments
	seen, used := map[ref]bool{}, 0
	for i, w := range x.words {
		if w == 0 {
			continue
		}
		used++
		require.False(t, seen[ref(w)])
		seen[ref(w)] = true
		r := record(g.at(ref(w)))
		require.Equal(t, tag(base.Mix(r.Token)), w>>tagShift)
		at, _, ok := s.find(base.Mix(r.Token), r.Token, r.Key)
		require.True(t, ok)
		require.Equal(t, i, at)
	}
	require.Equal(t, x.used, used)
	require.Equal(t, g.held, len(g.free)+len(s.mu.small.order)+len(s.mu.main.order))
	require.LessOrEqual(t, g.held, g.limit)
	requireChunks(t, g)
	if g.limit > 0 {
		require.Positive(t, g.left())
	}
	for _, q := range []queue{s.mu.small, s.mu.main} {
		for _, n := range q.order {
			off := 0
			for off < g.all[n].used {
				off += space(g.all[n].b[off:])
			}
			require.Equal(t, g.all[n].used, off)
		}
	}
}

func put8(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

func numbered(i uint64, size int) base.Record {
	r := base.Record{Key: put8(i), Kind: base.Value, Value: make([]byte, size), Max: vclock.Dot{Stamp: 1}}
	r.Token, r.Min = base.Token(r.Key), r.Max
	return r
}

// TestFill says which fills are dropped.
func TestFill(t *testing.T) {
	r := numbered(1, 100)
	newer := r
	newer.Max.Stamp, newer.Min.Stamp = 2, 2
	same := r // a key of its own with the same generation counter
	same.Key = []byte("another key of the token")
	for name, test := range map[string]struct {
		meanwhile func(*Cache)
		held      bool
	}{
		"nothing":                {func(*Cache) {}, true},
		"an update":              {func(c *Cache) { c.Update(&newer) }, false},
		"an update of its token": {func(c *Cache) { c.Update(&same) }, false},
		"a hold":                 {func(c *Cache) { c.Hold() }, false},
		"a hold and its release": {func(c *Cache) { c.Hold(); c.Release() }, false},
		"another fill":           {func(c *Cache) { c.Fill(c.Begin(r.Token), &r) }, true},
	} {
		c := New(1 << 20)
		ticket := c.Begin(r.Token)
		test.meanwhile(c)
		c.Fill(ticket, &r)
		_, held := c.Get(r.Token, r.Key, nil)
		require.Equal(t, test.held, held, name)
		c.Close()
	}
	c := New(1 << 20)
	defer c.Close()
	c.Hold()
	ticket := c.Begin(r.Token)
	c.Release()
	c.Fill(ticket, &r)
	_, held := c.Get(r.Token, r.Key, nil)
	require.False(t, held, "begun under a hold")
}

// TestUpdate says what becomes of a copy.
func TestUpdate(t *testing.T) {
	at := func(stamp uint64, kind base.Kind, value string) base.Record {
		r := numbered(1, 0)
		r.Kind, r.Value = kind, []byte(value)
		r.Max.Stamp, r.Min.Stamp = stamp, stamp
		return r
	}
	large := string(make([]byte, 5000))
	for name, c := range map[string]struct{ old, new, want base.Record }{
		"newer":           {at(5, base.Value, "old"), at(6, base.Value, "new"), at(6, base.Value, "new")},
		"newer, larger":   {at(5, base.Value, "old"), at(6, base.Value, large), at(6, base.Value, large)},
		"newer, smaller":  {at(5, base.Value, large), at(6, base.Value, "n"), at(6, base.Value, "n")},
		"deleted":         {at(5, base.Value, "old"), at(6, base.Tombstone, ""), at(6, base.Tombstone, "")},
		"older":           {at(5, base.Value, "old"), at(4, base.Value, "new"), at(5, base.Value, "old")},
		"again":           {at(5, base.Value, "old"), at(5, base.Value, "old"), at(5, base.Value, "old")},
		"one dot, two":    {at(5, base.Value, "old"), at(5, base.Value, "new"), base.Record{}},
		"causal":          {at(5, base.Value, "old"), at(4, base.Causal, "new"), base.Record{}},
		"of a causal":     {at(5, base.Causal, "old"), at(6, base.Value, "new"), base.Record{}},
		"beyond a record": {at(5, base.Value, "old"), at(6, base.Value, string(make([]byte, 1<<20))), base.Record{}},
	} {
		cache := New(1 << 20)
		cache.Fill(cache.Begin(c.old.Token), &c.old)
		cache.Update(&c.new)
		got, held := cache.Get(c.old.Token, c.old.Key, nil)
		require.Equal(t, c.want.Kind != 0, held, name)
		if held {
			requireRecord(t, c.want, got)
		}
		requireShape(t, cache.shard(base.Mix(c.old.Token)))
		cache.Close()
	}
}

// TestLimits keeps what is larger than a segment out, and works without memory.
func TestLimits(t *testing.T) {
	c := New(1 << 20)
	largest := numbered(1, c.segmentBytes-headerBytes-8)
	c.Fill(c.Begin(largest.Token), &largest)
	_, held := c.Get(largest.Token, largest.Key, nil)
	require.True(t, held)
	large := numbered(2, c.segmentBytes-headerBytes-8+1)
	c.Fill(c.Begin(large.Token), &large)
	_, held = c.Get(large.Token, large.Key, nil)
	require.False(t, held)
	c.Close()
	for _, c := range []*Cache{nil, New(0), New(-1), New(1000)} {
		r := numbered(1, 10)
		c.Fill(c.Begin(r.Token), &r)
		c.Update(&r)
		c.Hold()
		c.Forget(r.Token)
		c.ForgetRange(0, math.MaxUint64)
		c.Release()
		_, held := c.Get(r.Token, r.Key, nil)
		require.False(t, held)
		require.LessOrEqual(t, c.Stats().Bytes, int64(4096))
		c.Close()
	}
	require.Zero(t, offheap.Live())
}

// TestGrows begins with nothing, as a cache does that a budget owns.
func TestGrows(t *testing.T) {
	c := New(8 << 20)
	defer c.Close()
	fill := func() int {
		for i := range uint64(100_000) {
			r := numbered(i, 100)
			c.Fill(c.Begin(r.Token), &r)
		}
		return c.Stats().Records
	}
	few := fill()
	require.Greater(t, few, 30_000)
	c.SetCapacity(16 << 20)
	many := fill()
	require.Greater(t, many, 3*few/2)
	c.SetCapacity(3 << 20)
	left := c.Stats()
	require.LessOrEqual(t, left.Bytes, int64(3<<20))
	require.Greater(t, left.Records, 1000)
	c.SetCapacity(0)
	require.Zero(t, c.Stats().Records)
	require.Zero(t, offheap.Live())
	c.SetCapacity(8 << 20)
	require.Equal(t, few, fill())
}

func TestAllocations(t *testing.T) {
	c := New(1 << 20)
	defer c.Close()
	i := uint64(0)
	records := make([]base.Record, 20_000)
	for i := range records {
		records[i] = numbered(uint64(i), 100)
	}
	dst := make([]byte, 0, 200)
	step := func() {
		r := &records[i%uint64(len(records))]
		i++
		c.Fill(c.Begin(r.Token), r)
		if _, ok := c.Get(r.Token, r.Key, dst); !ok {
			t.Fatal("not there")
		}
		c.Update(r)
	}
	for range records {
		step()
	}
	require.Zero(t, testing.AllocsPerRun(30_000, step))
}

// TestStress reads counters that only grow, while everything else goes on: a
// reader never sees less than was written before it began.
func TestStress(t *testing.T) {
	const keys = 500
	c := New(64 << 10)
	defer c.Close()
	var current, shown [keys]atomic.Uint64
	at := func(i, n uint64) base.Record {
		r := numbered(i, 0)
		r.Value = append(put8(n), bytes.Repeat([]byte{byte(n)}, int(n%200))...)
		r.Max.Stamp, r.Min.Stamp = n, n
		return r
	}
	var done atomic.Bool
	var all, readers sync.WaitGroup
	for w := range 2 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(w)))
			for !done.Load() {
				i := 2*r.Uint64N(keys/2) + uint64(w) // one writer for each key
				n := current[i].Add(1)
				rec := at(i, n)
				c.Update(&rec)
				shown[i].Store(n)
			}
		})
	}
	all.Go(func() {
		r := rand.New(rand.NewPCG(2, 2))
		for !done.Load() {
			switch r.IntN(3) {
			case 0:
				c.SetCapacity(32<<10 + r.Int64N(64<<10))
			case 1:
				c.Hold()
				c.ForgetRange(r.Uint64(), math.MaxUint64)
				c.Release()
			default:
				c.Stats()
			}
		}
	})
	const wanted = 1000 // hits, however slowly the writers begin
	hits := atomic.Uint64{}
	for w := range 3 {
		readers.Go(func() {
			r := rand.New(rand.NewPCG(3, uint64(w)))
			var dst []byte
			for n := 0; n < 30_000 || hits.Load() <= wanted; n++ {
				i := min(r.Uint64N(keys), r.Uint64N(keys))
				key := put8(i)
				token := base.Token(key)
				low := shown[i].Load()
				ticket := c.Begin(token)
				rec, ok := c.Get(token, key, dst[:0])
				if !ok {
					if n := current[i].Load(); n > 0 {
						rec = at(i, n)
						c.Fill(ticket, &rec)
					}
					continue
				}
				hits.Add(1)
				dst = rec.Value
				n := binary.LittleEndian.Uint64(rec.Value)
				if n < low || n > current[i].Load() || !bytes.Equal(rec.Value[8:], bytes.Repeat([]byte{byte(n)}, int(n%200))) {
					t.Errorf("key %d: %d, shown %d, written %d", i, n, low, current[i].Load())
					return
				}
			}
		})
	}
	readers.Wait()
	done.Store(true)
	all.Wait()
}

// TestTwins: keys that share a token, as those of a system may, take few places, so that
// no search visits many of them; others come in beside them.
func TestTwins(t *testing.T) {
	c := New(1 << 20)
	defer c.Close()
	for i := range uint64(1000) {
		for _, token := range []uint64{1<<64 - 1, i} {
			r := numbered(i, 100)
			r.Token = token
			c.Fill(c.Begin(token), &r)
		}
	}
	require.Equal(t, 1000+maxTwins, c.Stats().Records)
	last := numbered(maxTwins-1, 0)
	_, ok := c.Get(1<<64-1, last.Key, nil)
	require.True(t, ok)
	c.Forget(1<<64 - 1)
	require.Equal(t, 1000, c.Stats().Records)
}
