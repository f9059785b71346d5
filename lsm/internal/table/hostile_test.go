package table

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/vfs"
)

// Tables that no Writer makes, under right checksums.

// reseal makes checksums and hash of a table right and gives its Meta.
func reseal(t *testing.T, b []byte) Meta {
	t.Helper()
	repair(b)
	at := len(b) - footerBytes
	binary.LittleEndian.PutUint64(b[at+24:], xxhash.Sum64(b[:at]))
	repair(b)
	m, _, _, err := readMeta(readOnly{b: b}, testID)
	require.NoError(t, err)
	return m
}

// smallBlock gives the content of a block, its first token and its records.
func smallBlock() (content []byte, first uint64, n int) {
	var b blockWriter
	var d dictionary
	recs := everyFeature()[2:20]
	for i := range recs {
		b.add(&recs[i], &d)
	}
	first = b.tokens[0]
	return b.finish(), first, len(recs)
}

func TestHostileColumns(t *testing.T) {
	content, first, n := smallBlock()
	columns := len(content) - tailBytes - columnBytes*n
	for at := columns; at < len(content); at++ {
		for v := range 256 {
			bad := bytes.Clone(content)
			bad[at] = byte(v)
			b, ok := parseBlock(bad, first)
			if !ok {
				continue
			}
			var r base.Record
			for i := range b.n {
				b.record(b.place(i), []uint64{1, 2, 3}, &r)
				b.search(r.Token, r.Key)
			}
		}
	}
}

// Bodies may not start where their column cannot say it.
func TestBlockTooLong(t *testing.T) {
	var b blockWriter
	var d dictionary
	for i := range 4 {
		b.add(&base.Record{Token: uint64(i), Kind: base.Value, Value: make([]byte, 30_000)}, &d)
	}
	long, ok := parseBlock(b.finish(), 0)
	require.True(t, ok)
	var r base.Record
	require.True(t, long.record(long.place(2), []uint64{0}, &r))
	require.False(t, long.record(long.place(3), []uint64{0}, &r))
}

func TestSlotOfAnotherToken(t *testing.T) {
	f, m := build(t, WriterOptions{Compression: None}, halfRandom(20, 1))
	b := bytesOf(t, f)
	r, err := Open(readOnly{b: b}, m)
	require.NoError(t, err)
	end := int(r.index.offset[1]) - blockTrailerBytes - tailBytes
	slots := end - 20*columnBytes
	b[slots+2*10] ^= 1
	m = reseal(t, b)
	r, err = Open(readOnly{b: b}, m)
	require.NoError(t, err)
	it := r.Iter(0, math.MaxUint64)
	for it.Next() {
	}
	require.ErrorIs(t, it.Close(), base.ErrCorrupt)
}

func TestVerifyChecksTheFilter(t *testing.T) {
	f, m := build(t, WriterOptions{}, halfRandom(20, 1))
	b := bytesOf(t, f)
	r, err := Open(f, m)
	require.NoError(t, err)
	clear(b[r.foot.filter+filterHeadBytes : r.foot.index])
	r, err = Open(readOnly{b: b}, reseal(t, b))
	require.NoError(t, err)
	require.ErrorContains(t, r.Verify(nil), "a filter that admits every record")
}

// hostile builds a table with a Writer that is meddled with before the last
// record.
func hostile(t *testing.T, recs []base.Record, meddle func(*Writer)) *Reader {
	t.Helper()
	f, err := vfs.NewMem(1).Create("f")
	require.NoError(t, err)
	w := NewWriter(f, testID, WriterOptions{})
	for i := range recs {
		if i == len(recs)-1 {
			meddle(w)
		}
		require.NoError(t, w.Add(&recs[i]))
	}
	m, err := w.Finish()
	require.NoError(t, err)
	r, err := Open(f, m)
	require.NoError(t, err)
	return r
}

func TestVerifyChecksTheOrder(t *testing.T) {
	rec := func(key string) base.Record { return base.Record{Token: 5, Key: []byte(key), Kind: base.Value} }
	r := hostile(t, []base.Record{rec("b"), rec("a")}, func(w *Writer) { w.lastKey = nil })
	require.ErrorContains(t, r.Verify(nil), "records in order")
}

func TestVerifyChecksTheFirstToken(t *testing.T) {
	r := hostile(t, halfRandom(20, 1), func(w *Writer) { w.block.tokens[0]-- })
	require.ErrorContains(t, r.Verify(nil), "the first token of the index")
}

func TestVerifyChecksTheCounts(t *testing.T) {
	r := hostile(t, halfRandom(20, 1), func(w *Writer) { w.meta.Tombstones++ })
	require.ErrorIs(t, r.Verify(nil), base.ErrCorrupt)
}

// A finished table survives the harshest power cut once its directory is synced.
func TestFinishedTableIsDurable(t *testing.T) {
	mem := vfs.NewMem(1)
	name := base.TableName(testID)
	f, err := mem.Create(name)
	require.NoError(t, err)
	recs := halfRandom(5000, 1)
	w := NewWriter(f, testID, WriterOptions{})
	for i := range recs {
		require.NoError(t, w.Add(&recs[i]))
	}
	m, err := w.Finish()
	require.NoError(t, err)
	require.NoError(t, mem.SyncDir(""))
	f, err = mem.Strict().Open(name)
	require.NoError(t, err)
	r, err := Open(f, m)
	require.NoError(t, err)
	requireEqual(t, recs, r)
}
