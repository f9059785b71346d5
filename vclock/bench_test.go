package vclock

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pair returns two plain sets, and two concurrent causal ones of a few siblings.
func pair() (p, q, x, y Set) {
	p = Plain(Sibling{Dot: Dot{5, 1}, Value: make([]byte, 100)})
	q = Plain(Sibling{Dot: Dot{6, 1}, Value: make([]byte, 100)})
	for a := range uint64(3) {
		x = x.Write(History{}, Sibling{Dot: Dot{10 + a, 2 * a}, Value: make([]byte, 100)})
		y = y.Write(History{}, Sibling{Dot: Dot{20 + a, 2*a + 1}, Value: make([]byte, 100)})
	}
	return p, q, x, y
}

func TestAllocations(t *testing.T) {
	p, q, x, y := pair()
	ep, eq, ex, ey := AppendSet(nil, p), AppendSet(nil, q), AppendSet(nil, x), AppendSet(nil, y)
	buf := make([]byte, 0, 4096)
	c := NewClock(time.Now, time.Second, 0)
	for _, a := range []struct {
		name string
		want float64
		run  func()
	}{
		{"Clock.Next", 0, func() { _, _ = c.Next(0) }},
		{"Clock.Observe", 0, func() { _ = c.Observe(c.Now() + 1) }},
		{"join plain", 0, func() { Join(p, q) }},
		{"join causal", 2, func() { Join(x, y) }}, // the vector and the siblings
		{"join encoded plain", 0, func() { _, _ = JoinEncoded(ep, eq) }},
		{"join encoded causal", 7, func() { _, _ = JoinEncoded(ex, ey) }},
		{"encoded dots", 0, func() { _, _, _ = EncodedDots(ex) }},
		{"append", 0, func() { buf = AppendSet(buf[:0], x) }},
		{"decode", 2, func() { _, _ = DecodeSet(ex) }},
		{"compare", 0, func() { x.Compare(y) }},
	} {
		require.LessOrEqual(t, testing.AllocsPerRun(100, a.run), a.want, a.name)
	}
}

func BenchmarkClockNext(b *testing.B) {
	c := NewClock(time.Now, time.Second, 0)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = c.Next(0)
	}
}

func BenchmarkClockNextParallel(b *testing.B) {
	c := NewClock(time.Now, time.Second, 0)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_, _ = c.Next(0)
		}
	})
}

func BenchmarkJoin(b *testing.B) {
	p, q, x, y := pair()
	for _, c := range []struct {
		name string
		a, b Set
	}{{"plain", p, q}, {"causal", x, y}, {"mixed", p, y}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Join(c.a, c.b)
			}
		})
		b.Run(c.name+" encoded", func(b *testing.B) {
			ea, eb := AppendSet(nil, c.a), AppendSet(nil, c.b)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = JoinEncoded(ea, eb)
			}
		})
	}
}

func BenchmarkEncodedDots(b *testing.B) {
	_, _, x, _ := pair()
	e := AppendSet(nil, x)
	b.ReportAllocs()
	for b.Loop() {
		_, _, _ = EncodedDots(e)
	}
}
