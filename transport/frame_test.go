package transport

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

func frameOf(msg string) []byte {
	return appendFrame(nil, checksum([]byte(msg), nil), []byte(msg), nil)
}

func TestFrame(t *testing.T) {
	require.Equal(t, checksum([]byte("head body"), nil), checksum([]byte("head "), []byte("body")))
	f := append(frameOf("head body"), "rest"...)
	for n := range len(f) {
		msg, size, err := parseFrame(f[:n], 100)
		require.NoError(t, err)
		switch {
		case n < frameHeader:
			require.Nil(t, msg)
			require.Zero(t, size)
		case n < frameHeader+9:
			require.Nil(t, msg)
			require.Equal(t, frameHeader+9, size)
		default:
			require.Equal(t, "head body", string(msg))
			require.Equal(t, frameHeader+9, size)
			require.Equal(t, len(msg), cap(msg), "a handler cannot append into the next frame")
		}
	}
	_, _, err := parseFrame(f, 8)
	require.ErrorIs(t, err, ErrCorrupt)
	_, _, err = parseFrame(make([]byte, 100), 100)
	require.ErrorIs(t, err, ErrCorrupt, "zeros are no frames")
}

// No flipped bit in a frame gets through.
func TestFrameBits(t *testing.T) {
	good := frameOf("some message")
	for bit := range len(good) * 8 {
		f := bytes.Clone(good)
		f[bit/8] ^= 1 << (bit % 8)
		msg, _, err := parseFrame(append(f, make([]byte, 300)...), 300)
		require.True(t, err != nil || msg == nil, "bit %d", bit)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(frameOf("x"), 100)
	f.Add(append(frameOf("head body"), frameOf("another")...), 64<<10)
	f.Add([]byte{255, 255, 255, 255, 0, 0, 0, 0, 1}, 1<<30)
	f.Add(make([]byte, 20), 20)
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		if limit < 0 {
			return
		}
		if len(b) >= frameHeader { // get past the checksum
			if n := binary.LittleEndian.Uint32(b); uint64(n) <= uint64(len(b)-frameHeader) {
				binary.LittleEndian.PutUint32(b[4:], checksum(b[frameHeader:frameHeader+n], nil))
			}
		}
		msg, size, err := parseFrame(b, limit)
		if err != nil || msg == nil {
			return
		}
		if size != frameHeader+len(msg) || len(msg) > limit || size > len(b) {
			t.Fatalf("a message of %d bytes in a frame of %d", len(msg), size)
		}
		if again := appendFrame(nil, checksum(msg, nil), msg, nil); !bytes.Equal(again, b[:size]) {
			t.Fatal("encoding differs")
		}
		_, _ = decodeMessage(msg)
	})
}
