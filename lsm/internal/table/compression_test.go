package table

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

func zstdFrame(t testing.TB, content []byte, o ...zstd.EOption) []byte {
	e, err := zstd.NewWriter(nil, o...)
	require.NoError(t, err)
	return e.EncodeAll(content, nil)
}

// Blocks that claim more than they hold, or hold more than they claim, are
// malformed, and cost no more memory than a block may.
func TestHostileCompression(t *testing.T) {
	text := bytes.Repeat([]byte("some text "), 100)
	frame := zstdFrame(t, text)
	var streamed bytes.Buffer
	e, err := zstd.NewWriter(&streamed)
	require.NoError(t, err)
	_, err = e.Write(text)
	require.NoError(t, err)
	require.NoError(t, e.Flush()) // the size is not known any more
	require.NoError(t, e.Close())
	skippable := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 0x184d2a50), 0)

	for name, c := range map[string]struct {
		kind   byte
		stored []byte
	}{
		"s2, empty":               {storedS2, nil},
		"s2, beyond a block":      {storedS2, binary.AppendUvarint(nil, maxBlockBytes+1)},
		"s2, claims a block":      {storedS2, binary.AppendUvarint(nil, maxBlockBytes)},
		"s2, cut":                 {storedS2, s2.Encode(nil, text)[:20]},
		"zstd, empty":             {storedZstd, nil},
		"zstd, no frame":          {storedZstd, []byte("no frame at all")},
		"zstd, cut":               {storedZstd, frame[:len(frame)-5]},
		"zstd, of unknown size":   {storedZstd, streamed.Bytes()},
		"zstd, two frames":        {storedZstd, append(bytes.Clone(frame), frame...)},
		"zstd, a skippable frame": {storedZstd, append(skippable, frame...)},
		"zstd, beyond a block":    {storedZstd, zstdFrame(t, make([]byte, maxBlockBytes+1))},
	} {
		_, memory, known, ok := decompress(c.stored, c.kind, nil)
		require.True(t, known, name)
		require.False(t, ok, name)
		require.LessOrEqual(t, cap(memory), maxBlockBytes, name)
	}
	_, _, known, _ := decompress(frame, storedZstd+1, nil)
	require.False(t, known)
	got, _, _, ok := decompress(frame, storedZstd, nil)
	require.True(t, ok)
	require.Equal(t, text, got)
}

// Every bit flipped: the checksum of a block catches it, and without one a decoder
// gives other bytes or an error, and no more of them than declared.
func TestZstdFlips(t *testing.T) {
	content := make([]byte, 4000)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		content[i] = "abcdefgh"[rng.IntN(8)]
	}
	stored, kind, _ := Zstd.compress(content, nil)
	require.Equal(t, byte(storedZstd), kind)
	var memory []byte
	for bit := range 8 * len(stored) {
		bad := bytes.Clone(stored)
		bad[bit/8] ^= 1 << (bit % 8)
		var got []byte
		got, memory, _, _ = decompress(bad, kind, memory)
		require.LessOrEqual(t, len(got), cap(memory))
		require.LessOrEqual(t, cap(memory), maxBlockBytes)
	}
}

func FuzzDecompress(f *testing.F) {
	text := bytes.Repeat([]byte("some text "), 100)
	for _, c := range []Compression{S2, None, Zstd} {
		stored, kind, _ := c.compress(text, nil)
		f.Add(stored, kind)
	}
	f.Fuzz(func(t *testing.T, stored []byte, kind byte) {
		content, memory, known, ok := decompress(stored, kind, nil)
		require.LessOrEqual(t, cap(memory), maxBlockBytes)
		if ok {
			require.True(t, known && kind <= storedZstd)
			require.LessOrEqual(t, len(content), maxBlockBytes)
		}
	})
}
