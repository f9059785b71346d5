package table

import (
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
)

// Hostile bytes under right checksums: an error or some records, no panic, and
// no end.

func FuzzTable(f *testing.F) {
	for _, o := range []WriterOptions{{BlockBytes: 512}, {Compression: None}, {BitsPerKey: -1}, {Compression: Zstd}} {
		file, _ := build(f, o, everyFeature())
		f.Add(bytesOf(f, file))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		repair(b)
		file := readOnly{b: b}
		m, _, _, err := readMeta(file, testID)
		if err != nil {
			requireDamage(t, err)
			return
		}
		r, err := Open(file, m)
		if err != nil {
			requireDamage(t, err)
			return
		}
		defer r.Close()
		it, n := r.Iter(0, math.MaxUint64), 0
		var s Scratch
		for it.Next() {
			rec := it.Record()
			if _, _, err := r.Get(rec.Token, rec.Key, &s); err != nil {
				requireDamage(t, err)
			}
			n++
		}
		requireDamage(t, it.Close())
		require.LessOrEqual(t, n, maxBlockBytes)
		requireDamage(t, r.Verify(nil))
	})
}

func requireDamage(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrIncompatible) {
		t.Fatal(err)
	}
}

func FuzzBlock(f *testing.F) {
	var b blockWriter
	var d dictionary
	for _, r := range everyFeature()[2:24] {
		b.add(&r, &d)
	}
	first := b.tokens[0]
	f.Add(b.finish(), first)
	f.Fuzz(func(t *testing.T, content []byte, first uint64) {
		b, ok := parseBlock(content, first)
		if !ok {
			return
		}
		var r base.Record
		p := place{}
		for i := range b.n {
			require.Equal(t, p, b.place(i))
			if b.record(p, []uint64{1, 2, 3}, &r) {
				b.search(r.Token, r.Key)
			}
			p = b.next(p)
		}
		b.search(first, nil)
		b.search(math.MaxUint64, nil)
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte{2, 0, 100, 200, 1, 100}, uint64(base.HeaderBytes+200), uint64(7))
	f.Fuzz(func(t *testing.T, b []byte, end, token uint64) {
		x, ok := decodeIndex(b, end)
		if !ok {
			return
		}
		defer x.free()
		lo, hi := x.blocks(token)
		if hi < lo {
			require.True(t, len(x.first) == 0 || token < x.first[0])
			return
		}
		require.True(t, lo >= 0 && hi < len(x.first) && x.first[hi] <= token)
	})
}

func FuzzFilter(f *testing.F) {
	f.Add(appendFilter(nil, newFilter([][]uint64{{1, 2, 3}}, 10)), uint64(1))
	f.Add(appendFilter(nil, filter{}), uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, token uint64) {
		if x, _, ok := decodeFilter(b); ok {
			x.mayContain(token)
			require.LessOrEqual(t, len(x.memory), len(b))
			x.free()
		}
	})
}

func FuzzProperties(f *testing.F) {
	f.Add(appendProperties(nil, Meta{ID: 1, Count: 3}, []uint64{1, 2, 3}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, actors, ok := decodeProperties(b); ok {
			again, same, ok := decodeProperties(appendProperties(nil, m, actors))
			require.True(t, ok)
			require.Equal(t, m, again)
			require.Equal(t, actors, same)
		}
	})
}
