package replica_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

func drawRecord(t *rapid.T) replica.Record {
	return replica.Record{
		Dot:       vclock.Dot{Stamp: rapid.Uint64Min(1).Draw(t, "stamp"), Actor: rapid.Uint64().Draw(t, "actor")},
		Tombstone: rapid.Bool().Draw(t, "tombstone"),
		Causal:    rapid.Bool().Draw(t, "causal"),
		Deadline:  rapid.Int64().Draw(t, "deadline"),
		Value:     rapid.SliceOf(rapid.Byte()).Draw(t, "value"),
	}
}

func TestRequestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := replica.Request{
			To: rapid.Uint64().Draw(t, "to"), Epoch: rapid.Uint64().Draw(t, "epoch"), Stamp: rapid.Uint64().Draw(t, "clock"),
			Repair: rapid.Bool().Draw(t, "repair"),
			Key:    rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "key"),
		}
		got, err := replica.DecodeRead(q.AppendRead(nil))
		require.NoError(t, err)
		require.Equal(t, q, got)

		q.Record = drawRecord(t)
		got, err = replica.DecodeWrite(append(q.AppendWriteHead(nil), q.Record.Value...))
		require.NoError(t, err)
		require.True(t, bytes.Equal(q.Record.Value, got.Record.Value))
		q.Record.Value, got.Record.Value = nil, nil
		require.Equal(t, q, got)
	})
}

func TestReplyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := replica.Reply{
			Status: replica.Status(rapid.Byte().Draw(t, "status")), Stamp: rapid.Uint64().Draw(t, "clock"),
			Epoch: rapid.Uint64().Draw(t, "epoch"), Dot: vclock.Dot{Stamp: rapid.Uint64().Draw(t, "s"), Actor: rapid.Uint64().Draw(t, "a")},
		}
		got, err := replica.DecodeReply(p.AppendHead(nil))
		require.NoError(t, err)
		require.Equal(t, p, got)

		p.Record = drawRecord(t)
		got, err = replica.DecodeReply(append(p.AppendReadHead(nil), p.Record.Value...))
		require.NoError(t, err)
		require.True(t, bytes.Equal(p.Record.Value, got.Record.Value))
		p.Record.Value, got.Record.Value = nil, nil
		require.Equal(t, p, got)
	})
}

// FuzzDecode: bytes from a peer never panic, and what decodes encodes back to
// the same bytes.
func FuzzDecode(f *testing.F) {
	q := replica.Request{Epoch: 3, Stamp: 4, Key: []byte("key"), Record: replica.Record{Dot: vclock.Dot{Stamp: 1}, Value: []byte("value")}}
	f.Add(q.AppendRead(nil))
	f.Add(append(q.AppendWriteHead(nil), "value"...))
	p := replica.Reply{Status: replica.Superseded, Record: q.Record}
	f.Add(p.AppendHead(nil))
	f.Add(append(p.AppendReadHead(nil), "value"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := replica.DecodeRead(b); err == nil {
			require.Equal(t, b, q.AppendRead(nil))
		}
		if q, err := replica.DecodeWrite(b); err == nil {
			require.Equal(t, b, append(q.AppendWriteHead(nil), q.Record.Value...))
		}
		if p, err := replica.DecodeReply(b); err == nil {
			enc := p.AppendHead(nil)
			if len(b) > len(enc) {
				enc = append(p.AppendReadHead(nil), p.Record.Value...)
			}
			require.Equal(t, b, enc)
		}
	})
}
