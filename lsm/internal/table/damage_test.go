package table

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// readOnly is a file in memory, for tests that open many.
type readOnly struct {
	vfs.File
	b []byte
}

func (f readOnly) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(f.b).ReadAt(p, off)
}
func (f readOnly) Size() (int64, error) { return int64(len(f.b)), nil }
func (f readOnly) Close() error         { return nil }

// everyFeature gives records that use all there is in the format. The fixtures
// hold them: do not change them.
func everyFeature() []base.Record {
	var recs []base.Record
	for i := range 40 {
		key := binary.BigEndian.AppendUint32([]byte("key-"), uint32(i*i))
		dot := vclock.Dot{Stamp: 1_760_000_000_000<<16 + uint64(i*i)<<12, Actor: uint64(i%10) << 40}
		r := base.Record{Token: base.Token(key), Key: key, Min: dot, Max: dot, Kind: base.Kind(i%3 + 1)}
		switch r.Kind {
		case base.Causal:
			r.Min = vclock.Dot{Stamp: dot.Stamp - 77, Actor: 3}
			fallthrough
		case base.Value:
			r.Value = bytes.Repeat(key, i%7)
		}
		if i%4 == 0 {
			r.Deadline = 1_760_000_600_000 + int64(i)
		}
		if i%11 == 0 {
			r.Token = base.SystemToken
		}
		recs = append(recs, r)
	}
	recs = append(recs, base.Record{Token: 12345, Kind: base.Value}, base.Record{Token: 12345, Key: []byte("large"), Kind: base.Value, Value: make([]byte, 5000)})
	return sortRecords(recs)
}

// inspect reads all that is in a table and compares it with want. It gives the
// first error, of which every kind must be told to be damage.
func inspect(t testing.TB, f vfs.File, m Meta, want []base.Record) error {
	t.Helper()
	r, err := Open(f, m)
	if err != nil {
		return err
	}
	defer r.free() // f is the caller's
	n := 0
	it := r.Iter(0, math.MaxUint64)
	for it.Next() {
		requireSame(t, want[n:n+1], []base.Record{*it.Record()})
		n++
	}
	first := it.Close()
	if first == nil {
		require.Equal(t, len(want), n)
	}
	var s Scratch
	for i := range want {
		if !r.MayContain(want[i].Token) {
			require.Fail(t, "a filter that hides a record was opened")
		}
		got, ok, err := r.Get(want[i].Token, want[i].Key, &s)
		if err != nil {
			first = errors.Join(first, err)
			continue
		}
		require.True(t, ok, "damage looks like absence")
		requireSame(t, want[i:i+1], []base.Record{got})
	}
	err = r.Verify(nil)
	if first != nil {
		require.Error(t, err, "Verify finds what reads find")
	}
	return err
}

// Every bit flipped and every truncation is found (S4), and never a wrong
// record given out.
func TestEveryBitAndEveryLength(t *testing.T) {
	recs := everyFeature()[2:16]
	for _, o := range []WriterOptions{{BlockBytes: 256}, {BlockBytes: 256, Compression: None}, {BlockBytes: 256, Compression: Zstd}} {
		f, m := build(t, o, recs)
		good := bytesOf(t, f)
		require.NoError(t, inspect(t, readOnly{b: good}, m, recs))
		bad := bytes.Clone(good)
		for bit := range 8 * len(good) {
			bad[bit/8] ^= 1 << (bit % 8)
			err := inspect(t, readOnly{b: bad}, m, recs)
			require.ErrorIs(t, err, base.ErrCorrupt, "bit %d", bit)
			bad[bit/8] ^= 1 << (bit % 8)
		}
		for n := range good {
			_, err := Open(readOnly{b: good[:n]}, m)
			require.ErrorIs(t, err, base.ErrCorrupt, "cut at %d", n)
		}
		_, err := Open(readOnly{b: append(bytes.Clone(good), 0)}, m)
		require.ErrorIs(t, err, base.ErrCorrupt)
	}
}

// A block in the place of another, a table under another number, a table other
// than that of the manifest (S5).
func TestMisplaced(t *testing.T) {
	recs := halfRandom(500, 1)
	f, m := build(t, WriterOptions{Compression: None}, recs)
	b := bytesOf(t, f)
	r, err := Open(readOnly{b: b}, m)
	require.NoError(t, err)
	x, swapped := r.index, false
	for i := range x.first {
		for j := range i {
			if n := x.offset[i+1] - x.offset[i]; n == x.offset[j+1]-x.offset[j] && !swapped {
				swapped = true
				copy(b[x.offset[i]:], bytes.Clone(b[x.offset[j]:x.offset[j]+n]))
				_, _, err := r.Get(x.first[i], nil, new(Scratch))
				require.ErrorIs(t, err, base.ErrCorrupt)
				var c *base.CorruptError
				require.ErrorAs(t, err, &c)
				require.Equal(t, base.TableName(testID), c.File)
				require.Equal(t, int64(x.offset[i]), c.Offset)
			}
		}
	}
	require.True(t, swapped)

	b = bytesOf(t, f)
	other := m
	other.ID++
	_, err = Open(readOnly{b: b}, other)
	require.ErrorIs(t, err, base.ErrCorrupt)
	other = m
	other.Hash++
	_, err = Open(readOnly{b: b}, other)
	require.ErrorIs(t, err, base.ErrCorrupt)
}

// A read error of the disk is not taken for damage, nor for absence.
func TestReadErrors(t *testing.T) {
	recs := halfRandom(500, 1)
	mem := vfs.NewMem(1)
	fail := false
	fsys := vfs.Faulty(mem, func(op vfs.Op) error {
		if fail && op.Kind == vfs.OpRead {
			return vfs.ErrInjected
		}
		return nil
	})
	f, err := fsys.Create("f")
	require.NoError(t, err)
	w := NewWriter(f, 1, WriterOptions{})
	for i := range recs {
		require.NoError(t, w.Add(&recs[i]))
	}
	m, err := w.Finish()
	require.NoError(t, err)
	r, err := Open(f, m)
	require.NoError(t, err)

	fail = true
	_, _, err = r.Get(recs[0].Token, recs[0].Key, new(Scratch))
	require.ErrorIs(t, err, vfs.ErrInjected)
	it := r.Iter(0, math.MaxUint64)
	require.False(t, it.Next())
	require.ErrorIs(t, it.Close(), vfs.ErrInjected)
	require.ErrorIs(t, r.Verify(nil), vfs.ErrInjected)
	_, err = Open(f, m)
	require.ErrorIs(t, err, vfs.ErrInjected)
	require.NotErrorIs(t, err, base.ErrCorrupt)
}

func TestVerifyPaceCanStop(t *testing.T) {
	r := open(t, WriterOptions{}, halfRandom(10_000, 1))
	read := 0
	require.NoError(t, r.Verify(func(n int) error { read += n; return nil }))
	require.Equal(t, r.Meta().Bytes, uint64(read+footerBytes))
	require.ErrorIs(t, r.Verify(func(int) error { return io.ErrClosedPipe }), io.ErrClosedPipe)
}

func TestNewerVersionIsIncompatible(t *testing.T) {
	f, m := build(t, WriterOptions{}, everyFeature())
	good := bytesOf(t, f)
	foot, err := readFooter(f, testID)
	require.NoError(t, err)

	header := bytes.Clone(good)
	copy(header, base.AppendHeader(nil, base.TableMagic, base.Header{Version: formatVersion + 1, Number: testID}))
	_, err = Open(readOnly{b: header}, m)
	require.ErrorIs(t, err, base.ErrIncompatible)

	scheme := bytes.Clone(good)
	scheme[foot.filter] = 9
	repair(scheme)
	_, err = Open(readOnly{b: scheme}, m)
	require.ErrorIs(t, err, base.ErrIncompatible)

	r, err := Open(readOnly{b: good}, m)
	require.NoError(t, err)
	newer := bytes.Clone(good)
	newer[r.index.offset[1]-blockTrailerBytes] = storedZstd + 1
	repair(newer)
	r, err = Open(readOnly{b: newer}, m)
	require.NoError(t, err)
	_, _, err = r.Get(m.MinToken, nil, new(Scratch))
	require.ErrorIs(t, err, base.ErrIncompatible)
}

// repair makes all checksums of a table right, as far as its parts can be found.
func repair(b []byte) {
	at := len(b) - footerBytes
	if at < base.HeaderBytes {
		return
	}
	sum := func(from, to uint64) {
		if from+4 <= to && to <= uint64(at) {
			binary.LittleEndian.PutUint32(b[to-4:], base.Checksum(testID, int64(from), b[from:to-4]))
		}
	}
	var bounds [3]uint64
	for i := range bounds {
		bounds[i] = binary.LittleEndian.Uint64(b[at+8*i:])
	}
	sum(bounds[0], bounds[1])
	sum(bounds[1], bounds[2])
	sum(bounds[2], uint64(at))
	if bounds[1] <= bounds[2] && bounds[2] <= uint64(at) && bounds[2]-bounds[1] >= 4 {
		if x, ok := decodeIndex(b[bounds[1]:bounds[2]-4], bounds[0]); ok {
			for i := range x.first {
				sum(x.offset[i], x.offset[i+1])
			}
			x.free()
		}
	}
	binary.LittleEndian.PutUint32(b[28:], base.Checksum(binary.LittleEndian.Uint64(b[16:]), 0, b[:28]))
	binary.LittleEndian.PutUint32(b[at+32:], base.Checksum(testID, int64(at), b[at:at+32]))
	copy(b[at+36:], footerMagic)
}
