package memtable

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/offheap"
	"example.com/kvstore/vclock"
)

// newPool is for four memtables of the size.
func newPool(bytes int64) *offheap.Pool { return offheap.NewPool(bytes/16, 4*bytes) }

func newTable(bytes int64) *Table { return newTableIn(newPool(bytes), bytes, 0) }

func newTableIn(p *offheap.Pool, bytes int64, keys int) *Table {
	return New(Options{Shards: 8, Bytes: bytes, Keys: keys, Pool: p, Join: func(a, b base.Record) base.Record {
		if string(a.Value) < string(b.Value) {
			return b
		}
		return a
	}})
}

func record(token uint64, key string, stamp uint64, value string) *base.Record {
	d := vclock.Dot{Stamp: stamp, Actor: 1}
	return &base.Record{Token: token, Key: []byte(key), Kind: base.Value, Min: d, Max: d, Value: []byte(value)}
}

// spaces are sets of tokens that a hash table may dislike.
var spaces = map[string]func(r *rand.Rand) uint64{
	"uniform":   func(r *rand.Rand) uint64 { return r.Uint64() },
	"few":       func(r *rand.Rand) uint64 { return r.Uint64N(5) },
	"one range": func(r *rand.Rand) uint64 { return 7<<40 + r.Uint64N(1<<12) },
	"colliding": func(r *rand.Rand) uint64 { return unmix(r.Uint64N(64) << 32) }, // one slot, one shard
}

// unmix is the inverse of mix: what an attacker would compute.
func unmix(x uint64) uint64 {
	x ^= x>>31 ^ x>>62
	x *= 0x319642b2d24d8ec3
	x ^= x>>27 ^ x>>54
	x *= 0x96de1b173f119089
	return x ^ x>>30 ^ x>>60
}

func TestAgainstMap(t *testing.T) {
	require.Equal(t, uint64(12345), unmix(base.Mix(12345)))
	for name, token := range spaces {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			m, want := newTable(1<<20), map[string]*base.Record{}
			for i := range 20_000 {
				tk := token(r)
				k := fmt.Sprintf("%x/%d", tk, r.IntN(300))
				rec := record(tk, k, r.Uint64N(1000)+1, fmt.Sprint(i))
				if r.IntN(5) == 0 {
					rec.Deadline = int64(i)
				}
				old := want[k]
				newer := m.Apply(rec)
				if old != nil && rec.Max.Less(old.Max) {
					require.Equal(t, old.Max, newer)
					continue
				}
				require.Zero(t, newer)
				if old == nil || old.Max.Less(rec.Max) || string(old.Value) < string(rec.Value) {
					want[k] = rec
				}
			}
			require.Equal(t, len(want), m.Count())
			for k, rec := range want {
				got, ok := m.Get(rec.Token, []byte(k))
				require.True(t, ok)
				require.Equal(t, *rec, got)
			}
			_, ok := m.Get(token(r), []byte("absent"))
			require.False(t, ok)
			for _, bounds := range [][2]uint64{{0, math.MaxUint64}, {0, 2}, {7 << 40, 7<<40 + 99}, {5, 4}, {1, 1}, {42, 42}, {7 << 40, 7 << 40}} {
				v, n := m.View(bounds[0], bounds[1]), 0
				for _, rec := range want {
					if bounds[0] <= rec.Token && rec.Token <= bounds[1] {
						n++
					}
				}
				require.Equal(t, n, v.Len())
				for i := range v.Len() {
					rec := v.At(i)
					require.Equal(t, want[string(rec.Key)].Value, rec.Value)
					if i > 0 {
						last := v.At(i - 1)
						require.Negative(t, last.Compare(rec.Token, rec.Key))
					}
				}
			}
		})
	}
}

// TestChosenTokens requires that keys made to collide do not make the memtable
// slow: 50,000 of them would take minutes in a list.
func TestChosenTokens(t *testing.T) {
	m := newTable(64 << 20)
	for i := range 50_000 {
		m.Apply(record(base.SystemToken, fmt.Sprint(i), 1, ""))
	}
	for i := range 50_000 {
		_, ok := m.Get(base.SystemToken, fmt.Append(nil, i))
		require.True(t, ok)
	}
	// Nor do they make it grow: no slots are added for what finds none.
	require.Less(t, m.Bytes(), int64(8<<20))
}

func TestLargeRecord(t *testing.T) {
	m := newTable(1 << 16)
	large := string(make([]byte, 3<<20))
	m.Apply(record(1, "a", 1, "small"))
	m.Apply(record(1, "b", 1, large))
	m.Apply(record(1, "c", 1, "small"))
	for key, n := range map[string]int{"a": 5, "b": len(large), "c": 5} {
		r, ok := m.Get(1, []byte(key))
		require.True(t, ok)
		require.Len(t, r.Value, n)
	}
	require.True(t, m.Full())
}

// TestReaders reads without locks while writers make the index grow.
func TestReaders(t *testing.T) {
	m := newTable(64 << 20)
	const keys = 4000
	var low [keys]atomic.Uint64
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			for stamp := uint64(1); stamp <= 3; stamp++ {
				for i := w; i < keys; i += 2 {
					token := base.Mix(uint64(i))
					if i%16 < 2 {
						token = 42 // these overflow
					}
					m.Apply(record(token, fmt.Sprint(i), stamp, fmt.Sprint(stamp)))
					low[i].Store(stamp)
				}
			}
		})
	}
	for seed := range uint64(2) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, 0))
			for range 30_000 {
				i := r.IntN(keys)
				token := base.Mix(uint64(i))
				if i%16 < 2 {
					token = 42
				}
				least := low[i].Load()
				rec, ok := m.Get(token, fmt.Append(nil, i))
				if ok != (least > 0) && !ok || rec.Max.Stamp < least {
					t.Errorf("key %d: read %v, %d was written", i, rec.Max, least)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, keys, m.Count())
}

// TestSeal requires that a quiet memtable has every record of every writer that
// got in.
func TestSeal(t *testing.T) {
	for range 200 {
		m := newTable(1 << 16)
		var entered atomic.Int64
		var wg sync.WaitGroup
		quiet := make(chan struct{}, 10)
		for w := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					in := m.Enter()
					if in {
						m.Apply(record(uint64(w), fmt.Sprint(i), 1, ""))
						entered.Add(1)
					}
					if m.Leave() {
						quiet <- struct{}{}
					}
					if !in {
						return
					}
				}
			})
		}
		m.Seal()
		wg.Wait()
		require.True(t, m.Quiet())
		require.Equal(t, int(entered.Load()), m.Count())
		require.NotEmpty(t, quiet, "the last writer says so")
	}
}

// TestFree requires that the memory goes to the pool, up to its bound, and from
// there to the next memtable or back to the system.
func TestFree(t *testing.T) {
	before := offheap.Live()
	const bytes = 1 << 20
	p := newPool(bytes)
	fill := func(keys int) *Table {
		m := newTableIn(p, bytes, keys)
		for i := 0; !m.Full(); i++ {
			m.Apply(record(base.Mix(uint64(i)), fmt.Sprint(i), 1, "some value"))
		}
		m.Apply(record(1, "large", 1, string(make([]byte, 300_000)))) // of no size that is kept
		return m
	}
	a, b := fill(0), fill(0)
	require.GreaterOrEqual(t, a.Bytes(), int64(bytes))
	require.LessOrEqual(t, a.Bytes(), int64(bytes+500_000))
	// Bytes counts the nodes of the overflow too, which are on the Go heap.
	require.InDelta(t, a.Bytes()+b.Bytes(), offheap.Live()-before, 100*nodeBytes)
	a.View(0, math.MaxUint64).Close()
	a.Free()
	b.Free()
	require.Zero(t, a.Bytes())
	require.Panics(t, func() { a.Get(1, []byte("large")) })
	require.Equal(t, before+p.Bytes(), offheap.Live())
	require.LessOrEqual(t, p.Bytes(), int64(4*bytes))
	if !offheap.Traps {
		require.Greater(t, p.Bytes(), int64(bytes/2), "what lies idle serves the next one")
	}
	c := fill(0)
	require.InDelta(t, c.Bytes()+p.Bytes(), offheap.Live()-before, 100*nodeBytes)
	// With four in use nothing lies idle beside them.
	full := []*Table{fill(0), fill(0), fill(0)}
	require.Zero(t, p.Bytes())
	for _, m := range full {
		m.Free()
	}
	p.Close()
	c.Free()
	require.Equal(t, before, offheap.Live())
}

// TestKeys requires that an index of the right size from the start leaves more
// room for records than one that had to grow, and that it is bounded.
func TestKeys(t *testing.T) {
	const bytes = 1 << 20
	count := func(keys int) int {
		m := newTableIn(newPool(bytes), bytes, keys)
		defer m.Free()
		require.Less(t, m.Bytes(), int64(bytes/2))
		for i := 0; !m.Full(); i++ {
			m.Apply(record(base.Mix(uint64(i)), fmt.Sprint(i), 1, "a value that is not quite as short as the others"))
		}
		return m.Count()
	}
	grown := count(0)
	require.Greater(t, count(grown), grown*21/20)
	require.Positive(t, count(math.MaxInt))
}

// TestTop: no record is above it, whatever order they came in.
func TestTop(t *testing.T) {
	m := newTable(1 << 20)
	require.True(t, m.Top().IsZero())
	r, want := rand.New(rand.NewPCG(3, 4)), vclock.Dot{}
	for range 500 {
		rec := record(r.Uint64(), fmt.Sprint(r.IntN(50)), 1+r.Uint64N(1000), "v")
		m.Apply(rec)
		if want.Less(rec.Max) {
			want = rec.Max
		}
		require.Equal(t, want, m.Top())
	}
}
