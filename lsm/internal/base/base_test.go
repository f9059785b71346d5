package base

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/kvstore/vclock"
)

func TestToken(t *testing.T) {
	// The published test vectors of xxHash64 with seed 0.
	require.Equal(t, uint64(0xef46db3751d8e999), Token(nil))
	require.Equal(t, uint64(0x44bc2cf5ad770999), Token([]byte("abc")))
	require.Equal(t, xxhash.Sum64String("key"), Token([]byte("key")))
	require.Equal(t, uint64(math.MaxUint64), uint64(SystemToken))
	require.Equal(t, uint64(math.MaxUint32)<<32, uint64(FirstSystemToken))
}

func TestChecksumIsCRC32COfPlaceAndContent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		file, off := rapid.Uint64().Draw(t, "file"), rapid.Int64().Draw(t, "off")
		content := rapid.SliceOf(rapid.Byte()).Draw(t, "content")
		plain := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, file), uint64(off))
		plain = append(plain, content...)
		require.Equal(t, crc32.Checksum(plain, crc32.MakeTable(crc32.Castagnoli)), Checksum(file, off, content))
		n := rapid.IntRange(0, len(content)).Draw(t, "n")
		require.Equal(t, Checksum(file, off, content), Extend(Checksum(file, off, content[:n]), content[n:]))
	})
}

func TestChecksumDoesNotAllocate(t *testing.T) {
	b := make([]byte, 100)
	require.Zero(t, testing.AllocsPerRun(100, func() { b[0] += byte(Checksum(1, 2, b)) }))
}

func TestHeader(t *testing.T) {
	const newest = 3
	good := AppendHeader(nil, TableMagic, Header{Version: 2, Number: 99})
	require.Len(t, good, HeaderBytes)
	h, err := DecodeHeader(good, TableMagic, newest, "f")
	require.NoError(t, err)
	require.Equal(t, Header{Version: 2, Number: 99}, h)

	_, err = DecodeHeader(good, LogMagic, newest, "f")
	require.ErrorIs(t, err, ErrCorrupt)
	for n := range HeaderBytes {
		_, err = DecodeHeader(good[:n], TableMagic, newest, "f")
		require.ErrorIs(t, err, ErrCorrupt)
	}
	for bit := range 8 * HeaderBytes {
		bad := append([]byte(nil), good...)
		bad[bit/8] ^= 1 << (bit % 8)
		_, err = DecodeHeader(bad, TableMagic, newest, "f")
		require.ErrorIs(t, err, ErrCorrupt, "damage is never taken for a newer version")
	}
	for _, h := range []Header{{Version: newest + 1}, {Version: 1, Cipher: 1}, {Version: 1, KeyID: 1}} {
		_, err = DecodeHeader(AppendHeader(nil, TableMagic, h), TableMagic, newest, "f")
		require.ErrorIs(t, err, ErrIncompatible)
		require.NotErrorIs(t, err, ErrCorrupt)
	}
	_, err = DecodeHeader(AppendHeader(nil, TableMagic, Header{}), TableMagic, newest, "f")
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestNames(t *testing.T) {
	for _, n := range []uint64{0, 1, 99_999_999, 100_000_000, math.MaxUint64} {
		got, ok := ParseTableName(TableName(n))
		require.True(t, ok)
		require.Equal(t, n, got)
		got, ok = ParseLogName(LogName(n))
		require.True(t, ok)
		require.Equal(t, n, got)
		_, ok = ParseLogName(TableName(n))
		require.False(t, ok)
	}
	for _, name := range []string{"", ".table", "1.table", "000000001.table", "+0000001.table", "0000000x.table", ManifestName, ManifestTmpName, LockName} {
		_, ok := ParseTableName(name)
		require.False(t, ok, name)
	}
}

func TestCorruptError(t *testing.T) {
	err := fmt.Errorf("wrapped: %w", Corrupt("00000001.table", 4096, uint32(0xabc), uint32(0xdef)))
	require.ErrorIs(t, err, ErrCorrupt)
	var c *CorruptError
	require.True(t, errors.As(err, &c))
	require.Equal(t, CorruptError{"00000001.table", 4096, "checksum 00000abc", "checksum 00000def"}, *c)
}

func drawRecord(t *rapid.T) Record {
	dot := rapid.Custom(func(t *rapid.T) vclock.Dot {
		return vclock.Dot{Stamp: rapid.Uint64().Draw(t, "stamp"), Actor: rapid.Uint64().Draw(t, "actor")}
	})
	r := Record{
		Token:    rapid.Uint64().Draw(t, "token"),
		Key:      rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "key"),
		Max:      dot.Draw(t, "max"),
		Kind:     Kind(rapid.IntRange(1, 3).Draw(t, "kind")),
		Deadline: rapid.OneOf(rapid.Just(int64(0)), rapid.Int64()).Draw(t, "deadline"),
		Value:    rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value"),
	}
	r.Min = r.Max
	if r.Kind == Causal {
		r.Min = dot.Draw(t, "min")
	}
	return r
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b []byte
		recs := rapid.SliceOfN(rapid.Custom(drawRecord), 1, 5).Draw(t, "records")
		for i := range recs {
			n := len(b)
			b = AppendRecord(b, &recs[i])
			require.Equal(t, EncodedLen(&recs[i]), len(b)-n)
		}
		for _, want := range recs {
			got, n, err := DecodeRecord(b)
			require.NoError(t, err)
			require.Equal(t, want, got)
			for cut := range n {
				_, _, err := DecodeRecord(b[:cut])
				require.Error(t, err)
			}
			b = b[n:]
		}
		require.Empty(t, b)
	})
}

func TestRecordLimits(t *testing.T) {
	for _, r := range []Record{
		{Kind: Value, Key: make([]byte, MaxKeyBytes)},
		{Kind: Value, Value: make([]byte, MaxValueBytes)},
	} {
		_, n, err := DecodeRecord(AppendRecord(nil, &r))
		require.NoError(t, err)
		require.Equal(t, EncodedLen(&r), n)
	}
	for _, r := range []Record{
		{Kind: Value, Key: make([]byte, MaxKeyBytes+1)},
		{Kind: Value, Value: make([]byte, MaxValueBytes+1)},
		{Kind: 0},
		{Kind: 4}, // wraps to no kind
	} {
		_, _, err := DecodeRecord(AppendRecord(nil, &r))
		require.Error(t, err)
	}
}

func TestCodingDoesNotAllocate(t *testing.T) {
	r := Record{Token: 1, Key: []byte("key"), Max: vclock.Dot{Stamp: 5, Actor: 6}, Kind: Value, Deadline: 4, Value: []byte("value")}
	b := make([]byte, 0, 200)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		b = AppendRecord(b[:0], &r)
		if _, _, err := DecodeRecord(b); err != nil {
			t.Fatal(err)
		}
	}))
}

func TestCompare(t *testing.T) {
	r := Record{Token: 5, Key: []byte("b")}
	require.Equal(t, -1, r.Compare(6, nil))
	require.Equal(t, 1, r.Compare(4, []byte("z")))
	require.Equal(t, -1, r.Compare(5, []byte("c")))
	require.Equal(t, 1, r.Compare(5, []byte("a")))
	require.Equal(t, 0, r.Compare(5, []byte("b")))
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(AppendRecord(nil, &Record{Kind: Value, Key: []byte("k"), Value: []byte("v")}))
	f.Add(AppendRecord(nil, &Record{Kind: Causal, Key: []byte("k"), Max: vclock.Dot{Stamp: 1}, Deadline: 7}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, n, err := DecodeRecord(b)
		if err != nil {
			return
		}
		again, m, err := DecodeRecord(AppendRecord(nil, &r))
		require.NoError(t, err)
		require.Equal(t, EncodedLen(&again), m)
		require.LessOrEqual(t, m, n)
		require.Equal(t, r, again)
	})
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add(AppendHeader(nil, TableMagic, Header{Version: 1, Number: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := DecodeHeader(b, TableMagic, 1, "f"); err == nil {
			require.Equal(t, Header{Version: 1, Number: h.Number}, h)
		}
	})
}
