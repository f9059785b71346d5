package table

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

const testID = 7

func sortRecords(recs []base.Record) []base.Record {
	slices.SortFunc(recs, func(a, b base.Record) int { return a.Compare(b.Token, b.Key) })
	return slices.CompactFunc(recs, func(a, b base.Record) bool { return a.Compare(b.Token, b.Key) == 0 })
}

// build writes a table into a file of its own.
func build(t testing.TB, o WriterOptions, recs []base.Record) (vfs.File, Meta) {
	t.Helper()
	f, err := vfs.NewMem(1).Create(base.TableName(testID))
	require.NoError(t, err)
	w := NewWriter(f, testID, o)
	for i := range recs {
		require.NoError(t, w.Add(&recs[i]))
	}
	m, err := w.Finish()
	require.NoError(t, err)
	return f, m
}

func open(t testing.TB, o WriterOptions, recs []base.Record) *Reader {
	t.Helper()
	f, m := build(t, o, recs)
	r, err := Open(f, m)
	require.NoError(t, err)
	return r
}

func bytesOf(t testing.TB, f vfs.File) []byte {
	t.Helper()
	size, err := f.Size()
	require.NoError(t, err)
	b := make([]byte, size)
	_, err = f.ReadAt(b, 0)
	require.NoError(t, err)
	return b
}

func clone(r *base.Record) base.Record {
	c := *r
	c.Key, c.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	return c
}

// collect gives copies of the records with tokens from lo to hi.
func collect(t testing.TB, r *Reader, lo, hi uint64) []base.Record {
	t.Helper()
	var out []base.Record
	it := r.Iter(lo, hi)
	for it.Next() {
		out = append(out, clone(it.Record()))
	}
	require.NoError(t, it.Close())
	require.False(t, it.Next())
	return out
}

// requireEqual compares a table with the records it was built from.
func requireEqual(t testing.TB, want []base.Record, r *Reader) {
	t.Helper()
	requireSame(t, want, collect(t, r, 0, math.MaxUint64))
	var s Scratch
	for i := range want {
		require.True(t, r.MayContain(want[i].Token))
		got, ok, err := r.Get(want[i].Token, want[i].Key, &s)
		require.NoError(t, err)
		require.True(t, ok, "token %x key %x", want[i].Token, want[i].Key)
		requireSame(t, want[i:i+1], []base.Record{got})
	}
	require.NoError(t, r.Verify(nil))
}

func requireSame(t testing.TB, want, got []base.Record) {
	t.Helper()
	require.Equal(t, len(want), len(got))
	for i := range want {
		a, b := want[i], got[i]
		if a.Token != b.Token || !bytes.Equal(a.Key, b.Key) || !bytes.Equal(a.Value, b.Value) ||
			a.Min != b.Min || a.Max != b.Max || a.Kind != b.Kind || a.Deadline != b.Deadline {
			require.Equal(t, a, b)
		}
	}
}

// tokenGenerator draws the tokens of one table: those of the keys, all equal,
// dense, in clusters with gaps, or at the extremes.
func tokenGenerator(t *rapid.T) func(key []byte) uint64 {
	shape := rapid.SampledFrom([]string{"hash", "equal", "dense", "clusters", "extremes", "any"}).Draw(t, "shape")
	from := rapid.Uint64().Draw(t, "from")
	return func(key []byte) uint64 {
		switch shape {
		case "hash":
			return base.Token(key)
		case "equal":
			return from
		case "dense":
			return from + rapid.Uint64Range(0, 50).Draw(t, "token")
		case "clusters":
			return rapid.Uint64Range(0, 5).Draw(t, "cluster")<<60 + rapid.Uint64Range(0, 1000).Draw(t, "token")
		case "extremes":
			return rapid.SampledFrom([]uint64{0, 1, 2, 1 << 63, math.MaxUint64 - 1, math.MaxUint64}).Draw(t, "token")
		}
		return rapid.Uint64().Draw(t, "token")
	}
}

func drawRecords(t *rapid.T) []base.Record {
	token := tokenGenerator(t)
	value := rapid.OneOf(
		rapid.SliceOfN(rapid.Byte(), 0, 20),
		rapid.Map(rapid.IntRange(0, 9000), func(n int) []byte { return bytes.Repeat([]byte("ab"), n/2) }),
	)
	dot := rapid.Custom(func(t *rapid.T) vclock.Dot {
		return vclock.Dot{Stamp: rapid.Uint64().Draw(t, "stamp"), Actor: rapid.Uint64Range(0, 9).Draw(t, "actor")}
	})
	return sortRecords(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) base.Record {
		r := base.Record{Key: rapid.SliceOfN(rapid.ByteRange('a', 'd'), 0, 6).Draw(t, "key"), Kind: base.Kind(rapid.IntRange(1, 3).Draw(t, "kind"))}
		r.Token = token(r.Key)
		r.Max = dot.Draw(t, "max")
		r.Min = r.Max
		if r.Kind == base.Causal {
			r.Min = dot.Draw(t, "min")
		}
		r.Deadline = rapid.OneOf(rapid.Just(int64(0)), rapid.Int64()).Draw(t, "deadline")
		r.Value = value.Draw(t, "value")
		return r
	}), 0, 120).Draw(t, "records"))
}

func TestRoundTripProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		recs := drawRecords(t)
		o := WriterOptions{
			Compression: rapid.SampledFrom([]Compression{S2, None, Zstd}).Draw(t, "compression"),
			BlockBytes:  rapid.SampledFrom([]int{0, 1, 300, 1 << 20}).Draw(t, "block"),
			BitsPerKey:  rapid.SampledFrom([]float64{0, -1, 3.5, 64}).Draw(t, "bits"),
		}
		f, err := vfs.NewMem(1).Create("f")
		require.NoError(t, err)
		w := NewWriter(f, testID, o)
		for i := range recs {
			require.NoError(t, w.Add(&recs[i]))
		}
		m, err := w.Finish()
		require.NoError(t, err)
		alone, _, _, err := readMeta(f, testID)
		require.NoError(t, err)
		require.Equal(t, m, alone)
		r, err := Open(f, m)
		require.NoError(t, err)

		all := func(lo, hi uint64) (out []base.Record) {
			it := r.Iter(lo, hi)
			for it.Next() {
				out = append(out, clone(it.Record()))
			}
			require.NoError(t, it.Close())
			return out
		}
		same := func(want, got []base.Record) {
			require.Equal(t, len(want), len(got))
			for i := range want {
				want := want[i]
				if len(want.Key) == 0 {
					want.Key = got[i].Key
				}
				if len(want.Value) == 0 {
					want.Value = got[i].Value
				}
				require.Equal(t, want, got[i])
			}
		}
		same(recs, all(0, math.MaxUint64))
		require.NoError(t, r.Verify(nil))
		var s Scratch
		for i := range recs {
			require.True(t, r.MayContain(recs[i].Token))
			got, ok, err := r.Get(recs[i].Token, recs[i].Key, &s)
			require.NoError(t, err)
			require.True(t, ok)
			same(recs[i:i+1], []base.Record{got})
		}

		// Absent keys and ranges, half of them beside what is there.
		near := []uint64{0, math.MaxUint64}
		for _, rec := range recs {
			near = append(near, rec.Token-1, rec.Token, rec.Token+1)
		}
		bound := rapid.OneOf(rapid.Uint64(), rapid.SampledFrom(near))
		lo, hi := bound.Draw(t, "lo"), bound.Draw(t, "hi")
		var want []base.Record
		for _, rec := range recs {
			if rec.Token >= lo && rec.Token <= hi {
				want = append(want, rec)
			}
		}
		same(want, all(lo, hi))
		key := rapid.SliceOfN(rapid.ByteRange('a', 'd'), 0, 6).Draw(t, "key")
		_, expected := slices.BinarySearchFunc(recs, lo, func(r base.Record, token uint64) int { return r.Compare(token, key) })
		_, ok, err := r.Get(lo, key, &s)
		require.NoError(t, err)
		require.Equal(t, expected, ok)
	})
}

// halfRandom gives n records of 16-byte keys and 100-byte values, whose second
// half repeats the first, stamped as one second of writes of one actor.
func halfRandom(n int, actors uint64) []base.Record {
	rng := rand.New(rand.NewPCG(1, 2))
	now := uint64(1_760_000_000_000)
	recs := make([]base.Record, n)
	for i := range recs {
		r := &recs[i]
		r.Key = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, rng.Uint64()), rng.Uint64())
		for range 6 {
			r.Value = binary.LittleEndian.AppendUint64(r.Value, rng.Uint64())
		}
		r.Value = append(r.Value, byte(i), byte(i>>8))
		r.Value = append(r.Value, r.Value...)
		r.Token, r.Kind = base.Token(r.Key), base.Value
		r.Max = vclock.Dot{Stamp: (now+uint64(i*1000/n))<<16 | uint64(i%(n/1000+1)), Actor: 0x1234567890abcdef * (1 + rng.Uint64N(actors))}
		r.Min = r.Max
	}
	return sortRecords(recs)
}

func TestManyBlocks(t *testing.T) {
	recs := halfRandom(20_000, 3)
	for _, o := range []WriterOptions{{}, {Compression: None}, {BlockBytes: 512}, {Compression: Zstd}} {
		r := open(t, o, recs)
		requireEqual(t, recs, r)
		require.Equal(t, uint64(len(recs)), r.Meta().Count)
		require.Equal(t, recs[0].Token, r.Meta().MinToken)
		require.Equal(t, recs[len(recs)-1].Token, r.Meta().MaxToken)
		require.Positive(t, r.MemoryBytes())
	}
}

// One token over many blocks, between others: records are found by key.
func TestOneTokenOverManyBlocks(t *testing.T) {
	var recs []base.Record
	for i := range 3000 {
		r := base.Record{Key: binary.BigEndian.AppendUint32(nil, uint32(2*i)), Kind: base.Value, Value: []byte("some value"), Token: 1 << 40}
		switch {
		case i < 200:
			r.Token = uint64(i)
		case i > 2800:
			r.Token = 1<<40 + uint64(i)
		}
		recs = append(recs, r)
	}
	r := open(t, WriterOptions{BlockBytes: 256}, recs)
	requireEqual(t, recs, r)
	var s Scratch
	for i := range 3000 {
		_, ok, err := r.Get(1<<40, binary.BigEndian.AppendUint32(nil, uint32(2*i+1)), &s)
		require.NoError(t, err)
		require.False(t, ok)
	}
	require.Len(t, collect(t, r, 1<<40, 1<<40), 2601)
}

func TestLargeRecords(t *testing.T) {
	noise := make([]byte, 3<<20)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	var recs []base.Record
	for i, n := range []int{0, 10, 4000, 5000, 70_000, 1 << 20, 3 << 20, 10, 100} {
		recs = append(recs,
			base.Record{Token: uint64(3 * i), Key: []byte("noise"), Kind: base.Value, Value: noise[:n]},
			base.Record{Token: uint64(3*i + 1), Key: []byte("zeros"), Kind: base.Value, Value: make([]byte, n)},
			base.Record{Token: uint64(3*i + 2), Key: noise[:min(n, base.MaxKeyBytes)], Kind: base.Tombstone})
	}
	for _, o := range []WriterOptions{{}, {Compression: None}, {BlockBytes: 32 << 10}, {Compression: Zstd}} {
		r := open(t, o, recs)
		requireEqual(t, recs, r)
		var s Scratch
		_, ok, err := r.Get(3*6, []byte("noise"), &s)
		require.True(t, ok && err == nil)
		_, ok, err = r.Get(0, []byte("noise"), &s)
		require.True(t, ok && err == nil)
		require.LessOrEqual(t, cap(s.stored), scratchBytes, "the memory of the large record is let go")
	}
}

func TestManyActors(t *testing.T) {
	var recs []base.Record
	for i := range maxActors + 1000 {
		recs = append(recs, base.Record{Token: uint64(i), Kind: base.Tombstone, Max: vclock.Dot{Stamp: 1, Actor: uint64(i) << 8}})
		recs[i].Min = recs[i].Max
	}
	r := open(t, WriterOptions{}, recs)
	require.Len(t, r.actors, maxActors)
	requireEqual(t, recs, r)
}

func TestMetaCounts(t *testing.T) {
	d := func(n uint64) vclock.Dot { return vclock.Dot{Stamp: n, Actor: 1} }
	r := open(t, WriterOptions{}, []base.Record{
		{Token: 3, Key: []byte("a"), Kind: base.Tombstone, Min: d(9), Max: d(9)},
		{Token: 5, Key: []byte("bc"), Kind: base.Value, Min: d(7), Max: d(7), Deadline: -5, Value: []byte("v")},
		{Token: 6, Key: []byte("d"), Kind: base.Causal, Min: d(2), Max: d(8), Deadline: -9, Value: []byte("set")},
	})
	m := r.Meta()
	m.Bytes, m.Hash = 0, 0
	require.Equal(t, Meta{ID: testID, Count: 3, Tombstones: 1, Expiring: 2, RawBytes: 8, MinToken: 3, MaxToken: 6,
		MinDot: d(2), MaxDot: d(9), MaxDeadline: -5}, m)
}

func TestEmptyTable(t *testing.T) {
	r := open(t, WriterOptions{}, nil)
	require.Zero(t, r.Meta().Count)
	requireEqual(t, nil, r)
	_, ok, err := r.Get(0, nil, new(Scratch))
	require.NoError(t, err)
	require.False(t, ok)
}

func TestWriterRefuses(t *testing.T) {
	rec := func(token uint64, key string) *base.Record {
		return &base.Record{Token: token, Key: []byte(key), Kind: base.Value}
	}
	for name, bad := range map[string]*base.Record{
		"lower token":  rec(4, "b"),
		"lower key":    rec(5, "a"),
		"equal":        rec(5, "b"),
		"no kind":      {Token: 6},
		"large key":    {Token: 6, Key: make([]byte, base.MaxKeyBytes+1), Kind: base.Value},
		"large value":  {Token: 6, Value: make([]byte, base.MaxValueBytes+1), Kind: base.Value},
		"unknown kind": {Token: 6, Kind: 4},
	} {
		f, err := vfs.NewMem(1).Create("f")
		require.NoError(t, err)
		w := NewWriter(f, 1, WriterOptions{})
		require.NoError(t, w.Add(rec(5, "b")))
		err = w.Add(bad)
		require.Error(t, err, name)
		require.Equal(t, err, w.Add(rec(7, "")), "an error is final")
		_, again := w.Finish()
		require.Equal(t, err, again)
	}
}

// Every write and sync that fails is reported, and nothing is acknowledged.
func TestWriterReportsEveryFailure(t *testing.T) {
	recs := halfRandom(10_000, 1)
	run := func(hook vfs.Hook) error {
		f, err := vfs.Faulty(vfs.NewMem(1), hook).Create("f")
		require.NoError(t, err)
		w := NewWriter(f, testID, WriterOptions{})
		for i := range recs {
			if err := w.Add(&recs[i]); err != nil {
				return err
			}
		}
		_, err = w.Finish()
		return err
	}
	matched := func(k vfs.Kind) bool { return k == vfs.OpWrite || k == vfs.OpSync }
	var tally vfs.Tally
	require.NoError(t, run(tally.Note))
	n := tally.Count(matched)
	require.Greater(t, n, 4)
	for i := range n {
		require.ErrorIs(t, run(vfs.Nth(i, matched, func(vfs.Op) error { return vfs.ErrInjected })), vfs.ErrInjected)
	}
}

func TestEstimatedSize(t *testing.T) {
	recs := halfRandom(30_000, 1)
	f, err := vfs.NewMem(1).Create("f")
	require.NoError(t, err)
	w := NewWriter(f, testID, WriterOptions{})
	for i := range recs {
		require.NoError(t, w.Add(&recs[i]))
	}
	estimate := w.EstimatedSize()
	m, err := w.Finish()
	require.NoError(t, err)
	require.InEpsilon(t, m.Bytes, estimate, 0.01)
}

// The size of an entry: a figure of the format, so that no change lets it grow
// unnoticed.
func TestBytesPerEntry(t *testing.T) {
	const n = 100_000
	for _, c := range []struct {
		actors uint64
		limit  float64
	}{{1, 82}, {3, 83}} {
		_, m := build(t, WriterOptions{}, halfRandom(n, c.actors))
		per := float64(m.Bytes) / n
		t.Logf("%d actors: %.1f bytes an entry", c.actors, per)
		require.Less(t, per, c.limit)
	}
}

func TestGetDoesNotAllocate(t *testing.T) {
	recs := halfRandom(10_000, 1)
	for _, o := range []WriterOptions{{}, {Compression: None}, {Compression: Zstd}} {
		r := open(t, o, recs)
		var s Scratch
		get := func(i int) {
			rec := &recs[i%len(recs)]
			if _, ok, err := r.Get(rec.Token, rec.Key, &s); !ok || err != nil || !r.MayContain(rec.Token) {
				t.Fatal(ok, err)
			}
		}
		get(0)
		i := 0
		require.Zero(t, testing.AllocsPerRun(1000, func() { get(i); i += 7 }))
	}
}

func TestIndexAgainstLinearSearch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		token := tokenGenerator(t)
		first := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) uint64 { return token([]byte{byte(rapid.Uint8().Draw(t, "key"))}) }), 0, 200).Draw(t, "first")
		slices.Sort(first)
		x := newIndex(len(first))
		defer x.free()
		copy(x.first, first)
		x.orient()
		asked := append([]uint64{0, math.MaxUint64, rapid.Uint64().Draw(t, "ask")}, first...)
		for _, f := range first {
			asked = append(asked, f-1, f+1)
		}
		for _, ask := range asked {
			// A block holds the token if it starts at or below it and the next
			// one starts at or above it.
			lo, hi := 0, -1
			for i := range first {
				if first[i] <= ask {
					hi = i
				}
			}
			for lo < hi && first[lo+1] < ask {
				lo++
			}
			gotLo, gotHi := x.blocks(ask)
			require.Equal(t, hi, gotHi)
			if hi >= 0 {
				require.Equal(t, lo, gotLo)
			}
		}
	})
}
