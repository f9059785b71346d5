package vclock

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// example is a set with every feature of the encoding.
func example() Set {
	s := Plain(Sibling{Dot: Dot{5, 1}, Value: []byte("plain")})
	s = s.Write(History{}, Sibling{Dot: Dot{6, 3}, Tombstone: true})
	return s.Write(History{}, Sibling{Dot: Dot{7, 2}, Deadline: 1000, Value: []byte("ttl")})
}

// TestEncodingIsPinned spells one encoding out, byte by byte.
func TestEncodingIsPinned(t *testing.T) {
	want := strings.Join([]string{
		"01", "02", // format, actors
		"0000000000000005" + "0000000000000001", // floor
		"0000000000000007" + "0000000000000002", // V
		"0000000000000006" + "0000000000000003",
		"03", // siblings
		"0000000000000007" + "0000000000000002", "02", "00000000000003e8", "03", hex.EncodeToString([]byte("ttl")),
		"0000000000000006" + "0000000000000003", "01", "00",
		"0000000000000005" + "0000000000000001", "00", "05", hex.EncodeToString([]byte("plain")),
	}, "")
	require.Equal(t, want, hex.EncodeToString(AppendSet(nil, example())))
	require.Equal(t, []byte("x\x01\x00"), AppendHistory([]byte("x"), History{})[:3])
}

// TestDecodersRefuse changes the example in every way that must be noticed.
func TestDecodersRefuse(t *testing.T) {
	good := AppendSet(nil, example())
	refuse := func(name string, b []byte, target error) {
		t.Helper()
		_, err := DecodeSet(b)
		require.ErrorIs(t, err, target, name)
		_, err = JoinEncoded(b, good)
		require.ErrorIs(t, err, target, name)
		_, err = JoinEncoded(good, b)
		require.ErrorIs(t, err, target, name)
		if name != "sibling outside" {
			_, _, err = EncodedDots(b)
			require.ErrorIs(t, err, target, name)
		}
	}
	for i := range good {
		refuse("cut", good[:i], ErrMalformed)
	}
	refuse("trailing", append(bytes.Clone(good), 0), ErrMalformed)
	plain := AppendSet(nil, Plain(Sibling{Dot: Dot{1, 1}}))
	refuse("trailing plain", append(bytes.Clone(plain), 0), ErrMalformed)
	_, err := JoinEncoded(append(bytes.Clone(plain), 0), plain)
	require.ErrorIs(t, err, ErrMalformed)

	set := func(s Set) []byte { return AppendSet(nil, s) }
	patched := func(at int, b ...byte) []byte {
		c := bytes.Clone(good)
		copy(c[at:], b)
		return c
	}
	const firstSibling = 2 + 3*dotBytes + 1
	refuse("format", patched(0, 2), ErrMalformed)
	refuse("flags", patched(firstSibling+dotBytes, 6), ErrMalformed)
	refuse("empty deadline", patched(firstSibling+dotBytes+1, make([]byte, 8)...), ErrMalformed)
	refuse("long number", append([]byte{1, 0x82, 0}, good[2:]...), ErrMalformed)
	refuse("endless number", append([]byte{1}, bytes.Repeat([]byte{0xff}, 30)...), ErrMalformed)
	refuse("actors out of order", set(Set{History: History{V: []Dot{{7, 2}, {8, 1}}}}), ErrMalformed)
	refuse("actor twice", set(Set{History: History{V: []Dot{{7, 2}, {8, 2}}}}), ErrMalformed)
	refuse("entry at the floor", set(Set{History: History{Floor: Dot{7, 2}, V: []Dot{{7, 2}}}}), ErrMalformed)
	refuse("entry below the floor", set(Set{History: History{Floor: Dot{7, 2}, V: []Dot{{7, 1}}}}), ErrMalformed)
	floor := History{Floor: Dot{7, 2}}
	refuse("sibling outside", set(Set{floor, []Sibling{{Dot: Dot{7, 3}}}}), ErrMalformed)
	refuse("siblings out of order", set(Set{floor, []Sibling{{Dot: Dot{6, 3}}, {Dot: Dot{6, 4}}}}), ErrMalformed)
	refuse("sibling twice", set(Set{floor, []Sibling{{Dot: Dot{6, 3}}, {Dot: Dot{6, 3}}}}), ErrMalformed)
	refuse("sibling without a dot", set(Set{floor, []Sibling{{}}}), ErrMalformed)

	_, err = DecodeHistory(append(AppendHistory(nil, floor), 0))
	require.ErrorIs(t, err, ErrMalformed)
	_, err = DecodeHistory(nil)
	require.EqualError(t, err, "vclock: malformed encoding: truncated at byte 0 of 0")
}

// TestHugeCountsAllocateNothing: a count that the bytes left cannot hold is
// refused before any memory is taken for it (invariant I9).
func TestHugeCountsAllocateNothing(t *testing.T) {
	history := AppendHistory(nil, History{})
	for _, count := range []uint64{2, MaxActors, 1 << 40, math.MaxUint64} {
		actors := append(binary.AppendUvarint([]byte{format}, count), make([]byte, 40)...)
		siblings := append(binary.AppendUvarint(bytes.Clone(history), count), make([]byte, 20)...)
		for _, b := range [][]byte{actors, siblings} {
			_, err := DecodeSet(b)
			require.ErrorIs(t, err, ErrMalformed)
			// The error, its text, and their like; nothing of the size claimed.
			require.Less(t, testing.AllocsPerRun(10, func() { _, _ = DecodeSet(b) }), 8.0)
		}
	}
}

// TestLimits tries both limits, and one beyond.
func TestLimits(t *testing.T) {
	var s Set
	for i := range uint64(MaxActors) {
		s.V = append(s.V, Dot{1, i + 1})
		s.Siblings = append(s.Siblings, Sibling{Dot: Dot{1, MaxActors - i}})
	}
	full := AppendSet(nil, s)
	got, err := DecodeSet(full)
	require.NoError(t, err)
	require.True(t, s.Equal(got))

	actor := Set{History: History{}.Add(Dot{1, MaxActors + 1})}
	sibling := Set{History{Floor: Dot{1, 0}}, []Sibling{{Dot: Dot{1, 0}}}}
	for _, more := range []Set{actor, sibling} {
		_, err = JoinEncoded(full, AppendSet(nil, more))
		require.ErrorIs(t, err, ErrLimit)
	}

	j := AppendSet(nil, Join(s, actor))
	_, err = DecodeSet(j)
	require.ErrorIs(t, err, ErrLimit)
	_, _, err = EncodedDots(j)
	require.ErrorIs(t, err, ErrLimit)

	s.History = History{Floor: Dot{2, 0}}
	s.Siblings = append([]Sibling{{Dot: Dot{2, 0}}}, s.Siblings...)
	_, err = DecodeSet(AppendSet(nil, s))
	require.ErrorIs(t, err, ErrLimit)
}

func TestEncodingRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSet(t)
		b := AppendSet(nil, s)
		got, err := DecodeSet(b)
		require.NoError(t, err)
		require.True(t, s.Equal(got))
		require.Equal(t, b, AppendSet(nil, got))

		h, err := DecodeHistory(AppendHistory(nil, s.History))
		require.NoError(t, err)
		require.True(t, s.History.Equal(h))

		lo, hi, err := EncodedDots(b)
		require.NoError(t, err)
		require.Equal(t, s.Min(), lo)
		require.Equal(t, s.Max(), hi)
	})
}

// TestValuesAliasTheInput, but appending to one does not touch the next.
func TestValuesAliasTheInput(t *testing.T) {
	b := AppendSet(nil, example())
	s, err := DecodeSet(b)
	require.NoError(t, err)
	_ = append(s.Siblings[0].Value, 0xff)
	require.Equal(t, AppendSet(nil, example()), b)
	b[len(b)-1] = 'X'
	require.Equal(t, "plaiX", string(s.Siblings[2].Value))
}

// FuzzDecode: what a decoder takes has one encoding only, and joining it obeys
// the laws; what it refuses, it refuses without a panic.
func FuzzDecode(f *testing.F) {
	f.Add(AppendSet(nil, example()), AppendSet(nil, Plain(Sibling{Dot: Dot{6, 1}, Value: []byte("v")})))
	f.Add(AppendSet(nil, Set{}), AppendSet(nil, Set{}.Write(History{}, Sibling{Dot: Dot{9, 9}})))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		x, err := DecodeSet(a)
		if err != nil {
			_, _ = JoinEncoded(a, b)
			_, _, _ = EncodedDots(a)
			_ = new(Version).UnmarshalText(a)
			_, _ = DecodeHistory(a)
			return
		}
		require.Empty(t, structure(x))
		require.Equal(t, a, AppendSet(nil, x))
		lo, hi, err := EncodedDots(a)
		require.NoError(t, err)
		require.Equal(t, x.Min(), lo)
		require.Equal(t, x.Max(), hi)

		y, err := DecodeSet(b)
		if err != nil {
			_, err = JoinEncoded(a, b)
			require.Error(t, err)
			return
		}
		j := Join(x, y)
		require.Empty(t, structure(j))
		require.True(t, j.Equal(Join(y, x)))
		require.True(t, j.Equal(Join(j, x)))
		e, err := JoinEncoded(a, b)
		require.NoError(t, err)
		require.Equal(t, AppendSet(nil, j), e)
	})
}
