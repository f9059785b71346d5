package table

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/vfs"
)

const benchRecords = 200_000

// onDisk builds a table on the real file system.
func onDisk(b *testing.B, o WriterOptions, recs []base.Record) *Reader {
	b.Helper()
	name := filepath.ToSlash(filepath.Join(b.TempDir(), base.TableName(testID)))
	f, err := vfs.OS.Create(name)
	require.NoError(b, err)
	w := NewWriter(f, testID, o)
	for i := range recs {
		require.NoError(b, w.Add(&recs[i]))
	}
	m, err := w.Finish()
	require.NoError(b, err)
	r, err := Open(f, m)
	require.NoError(b, err)
	b.Cleanup(func() { r.Close(); os.Remove(name) })
	return r
}

var benchOptions = []struct {
	name string
	o    WriterOptions
}{{"s2", WriterOptions{}}, {"none", WriterOptions{Compression: None}}, {"zstd", WriterOptions{Compression: Zstd}}}

func BenchmarkGet(b *testing.B) {
	recs := halfRandom(benchRecords, 1)
	for _, c := range benchOptions {
		r := onDisk(b, c.o, recs)
		var s Scratch
		b.Run(c.name+"/present", func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i += 7919 {
				rec := &recs[i%len(recs)]
				if _, ok, err := r.Get(rec.Token, rec.Key, &s); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
		b.Run(c.name+"/absent", func(b *testing.B) {
			b.ReportAllocs()
			admitted := 0
			for i := 0; b.Loop(); i++ {
				if r.MayContain(base.Mix(uint64(i))) {
					admitted++
				}
			}
			b.ReportMetric(100*float64(admitted)/float64(b.N), "%admitted")
		})
	}
}

func BenchmarkLocate(b *testing.B) {
	recs := halfRandom(benchRecords, 1)
	r := open(b, WriterOptions{}, recs)
	for i := 0; b.Loop(); i += 7919 {
		r.index.blocks(recs[i%len(recs)].Token)
	}
}

// discard is a file that takes everything and keeps nothing.
type discard struct{ vfs.File }

func (discard) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (discard) WriteBack(int64, int64)                 {}
func (discard) Sync() error                            { return nil }

func BenchmarkBuild(b *testing.B) {
	recs := halfRandom(benchRecords, 1)
	for _, c := range benchOptions {
		b.Run(c.name, func(b *testing.B) {
			var m Meta
			for b.Loop() {
				w := NewWriter(discard{}, testID, c.o)
				for i := range recs {
					if err := w.Add(&recs[i]); err != nil {
						b.Fatal(err)
					}
				}
				var err error
				if m, err = w.Finish(); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(m.RawBytes))
			b.ReportMetric(float64(m.Bytes)/float64(m.Count), "B/entry")
		})
	}
}

func BenchmarkIterate(b *testing.B) {
	recs := halfRandom(benchRecords, 1)
	for _, c := range benchOptions {
		r := onDisk(b, c.o, recs)
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(r.Meta().RawBytes))
			for b.Loop() {
				it, n := r.Iter(0, math.MaxUint64), uint64(0)
				for it.Next() {
					n++
				}
				if it.Close() != nil || n != r.Meta().Count {
					b.Fatal(it.Err(), n)
				}
			}
		})
	}
}
