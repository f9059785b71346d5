package transport

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func encodeMessage(m message) []byte {
	switch m.kind {
	case kindOneWay:
		return append(appendOneWay(nil, m.op), m.body...)
	case kindCall:
		return append(appendCall(nil, m.op, m.remaining, m.id), m.body...)
	case kindReply:
		return append(appendReply(nil, m.id), m.body...)
	case kindLeave:
		return appendLeave(nil)
	default:
		return appendFail(nil, m.id, m.op, string(m.body))
	}
}

func TestMessage(t *testing.T) {
	for _, m := range []message{
		{kind: kindOneWay, op: 200, body: []byte("body")},
		{kind: kindCall, op: 1, remaining: 1500 * time.Microsecond, id: 1 << 60, body: []byte{}},
		{kind: kindReply, id: 9, body: []byte("body")},
		{kind: kindFail, id: 9, op: 240, body: []byte("text")},
		{kind: kindLeave},
	} {
		b := encodeMessage(m)
		got, err := decodeMessage(b)
		require.NoError(t, err)
		require.Equal(t, m, got)
		for n := range len(b) - len(m.body) {
			_, err := decodeMessage(b[:n])
			require.ErrorIs(t, err, ErrCorrupt)
		}
	}
	got, err := decodeMessage(appendCall(nil, 1, 1000*time.Hour, 1))
	require.NoError(t, err)
	require.Equal(t, maxRemaining, got.remaining)
	require.Len(t, appendFail(nil, 1, 1, strings.Repeat("x", 5000)), failHeader+maxFailText)
	_, err = decodeMessage([]byte{99, 0, 0})
	require.ErrorIs(t, err, ErrCorrupt)
}

func FuzzMessage(f *testing.F) {
	f.Add(encodeMessage(message{kind: kindOneWay, op: 1, body: []byte("b")}))
	f.Add(encodeMessage(message{kind: kindCall, op: 1, id: 2, remaining: time.Second}))
	f.Add(encodeMessage(message{kind: kindReply, id: 3, body: []byte("b")}))
	f.Add(encodeMessage(message{kind: kindLeave}))
	f.Add(encodeMessage(message{kind: kindFail, id: 4, op: 5, body: []byte("no")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMessage(b)
		if err != nil || m.kind == kindFail && len(m.body) > maxFailText || m.remaining > maxRemaining {
			return
		}
		if again := encodeMessage(m); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}
