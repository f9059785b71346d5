package cache

import (
	"container/list"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
)

// lru is the reference. It pays for an entry what the cache does.
type lru struct {
	limit, bytes int
	order        list.List
	at           map[uint64]*list.Element
}

type lruEntry struct {
	key   uint64
	bytes int
}

func (l *lru) use(key uint64, bytes int) (hit bool) {
	if e, ok := l.at[key]; ok {
		l.order.MoveToFront(e)
		return true
	}
	l.at[key] = l.order.PushFront(lruEntry{key, bytes})
	for l.bytes += bytes; l.bytes > l.limit; {
		e := l.order.Remove(l.order.Back()).(lruEntry)
		l.bytes -= e.bytes
		delete(l.at, e.key)
	}
	return false
}

// A zipf draws keys as a skewed workload does, the hot ones anywhere.
func zipf(keys uint64) func() uint64 {
	z := rand.NewZipf(rand.New(rand.NewPCG(5, 5)), 1.01, 1, keys-1)
	return func() uint64 { return base.Mix(z.Uint64()) }
}

// TestHitRatio compares with a plain LRU in the same bytes, on skewed reads and on
// skewed reads among a scan.
func TestHitRatio(t *testing.T) {
	const keys, capacity, steps = 100_000, 2 << 20, 400_000
	for name, scan := range map[string]uint64{"zipf": 0, "zipf and scan": 2} {
		t.Run(name, func(t *testing.T) {
			c, ref := New(capacity), &lru{limit: capacity, at: map[uint64]*list.Element{}}
			defer c.Close()
			draw := zipf(keys)
			var hits, refHits, warm, refWarm int
			for i := range uint64(steps) {
				if i == steps/10 {
					warm, refWarm = hits, refHits
				}
				k := draw()
				if scan > 0 && i%scan == 0 {
					k = i
				}
				if get(c, k, 100) {
					hits++
				}
				if ref.use(k, headerBytes+116+wordBytes) {
					refHits++
				}
			}
			ratio, refRatio := float64(hits)/steps, float64(refHits)/steps
			t.Logf("hits %.4f, LRU %.4f; in the first tenth %.4f, LRU %.4f", ratio, refRatio, float64(warm)/steps*10, float64(refWarm)/steps*10)
			require.Greater(t, ratio, refRatio)
			require.Greater(t, float64(warm), 0.97*float64(refWarm), "it warms up as fast")
		})
	}
}

func get(c *Cache, k uint64, size int) bool {
	var key [16]byte
	copy(key[:], put8(k))
	token := base.Token(key[:])
	ticket := c.Begin(token)
	if _, ok := c.Get(token, key[:], nil); ok {
		return true
	}
	r := base.Record{Token: token, Key: key[:], Kind: base.Value, Value: make([]byte, size)}
	c.Fill(ticket, &r)
	return false
}

func BenchmarkCache(b *testing.B) {
	const keys = 1_000_000
	c := New(64 << 20)
	defer c.Close()
	records := make([]base.Record, keys)
	for i := range records {
		records[i] = numbered(uint64(i), 100)
	}
	z := rand.NewZipf(rand.New(rand.NewPCG(5, 5)), 1.01, 1, keys-1)
	draws := make([]uint32, 1<<20)
	for i := range draws {
		draws[i] = uint32(z.Uint64())
	}
	var dst []byte
	fill := func(i uint32) bool {
		r := &records[i]
		ticket := c.Begin(r.Token)
		got, ok := c.Get(r.Token, r.Key, dst[:0])
		if !ok {
			c.Fill(ticket, r)
		} else {
			dst = got.Value
		}
		return ok
	}
	for name, draw := range map[string]func(n int) uint32{
		"zipf":    func(n int) uint32 { return draws[n%len(draws)] },
		"uniform": func(n int) uint32 { return uint32(uint64(n) * 7919 % keys) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			n, hits := 0, 0
			for b.Loop() {
				if fill(draw(n)) {
					hits++
				}
				n++
			}
			b.ReportMetric(float64(hits)/float64(n), "hits")
		})
		b.Run(name+"/update", func(b *testing.B) {
			n := 0
			for b.Loop() {
				c.Update(&records[draw(n)])
				n++
			}
		})
	}
}
