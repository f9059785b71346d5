package merkle

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// stream is records as a Builder gets them.
type stream []struct {
	token uint64
	d     Digest
}

func newStream(n uint64) stream {
	out := make(stream, n)
	for i, r := range random(1, n, everything) {
		out[i].token, out[i].d = r.token, r.digest()
	}
	return out
}

func (s stream) build(b *Builder) *Tree {
	for i := range s {
		if b.Add(s[i].token, s[i].d) != nil {
			panic("out of order")
		}
	}
	return b.Tree()
}

// TestAllocations: a build allocates its tree, and nothing for a record or a leaf.
func TestAllocations(t *testing.T) {
	s := newStream(10_000)
	shape := NewShape(0, 1<<64-1, uint64(len(s)))
	require.LessOrEqual(t, testing.AllocsPerRun(5, func() { s.build(NewBuilder(shape)) }), 8.0)
	flat := Shape{everything, 0}
	require.LessOrEqual(t, testing.AllocsPerRun(5, func() { s.build(NewBuilder(flat)) }), 8.0)
}

func BenchmarkBuild(b *testing.B) {
	for name, shape := range map[string]Shape{"leaf=4": NewShape(0, 1<<64-1, 1_000_000), "leaf=1M": {everything, 0}} {
		b.Run(name, func(b *testing.B) {
			s := newStream(1_000_000)
			b.ReportAllocs()
			for b.Loop() {
				s.build(NewBuilder(shape))
			}
			b.ReportMetric(float64(len(s))*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkSum is what a record costs before it is added: 150 bytes of it.
func BenchmarkSum(b *testing.B) {
	data := make([]byte, 150)
	b.ReportAllocs()
	for b.Loop() {
		Sum(data)
	}
}

// BenchmarkDiff compares a million records of which 1 % differ; half the time is
// spent on each side.
func BenchmarkDiff(b *testing.B) {
	mine := random(1, 1_000_000, everything)
	theirs := mine.changed(2, 10_000)
	s := NewShape(0, 1<<64-1, 1_000_000)
	tree, other := mine.tree(b, s), theirs.tree(b, s)
	b.ReportAllocs()
	for b.Loop() {
		d := NewDiff(tree, other.Root(), Salt{1}, mine.read)
		var request, reply []byte
		for !d.Done() {
			request = d.Request(request[:0])
			reply, _ = other.Answer(reply[:0], request, theirs.read)
			if err := d.Step(reply, func(Difference) {}); err != nil {
				b.Fatal(err)
			}
		}
	}
}
