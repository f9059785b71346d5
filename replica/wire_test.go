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
			Repair: rapid.Bool().Draw(t, "repair"), Digest: rapid.Bool().Draw(t, "digest"),
			Key: rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "key"),
		}
		got, err := replica.DecodeRead(q.AppendRead(nil))
		require.NoError(t, err)
		require.Equal(t, q, got)

		q.Digest = false // of a write means nothing, and is refused
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

func TestCausalRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		past := vclock.History{Floor: vclock.Dot{Stamp: rapid.Uint64Max(9).Draw(t, "floor"), Actor: 1}}
		for _, stamp := range rapid.SliceOfN(rapid.Uint64Max(99), 0, 5).Draw(t, "entries") {
			past = past.Add(vclock.Dot{Stamp: stamp, Actor: 1 + stamp%3})
		}
		seen := vclock.Version{Past: past, Own: vclock.Dot{Stamp: 100, Actor: 4}}
		q := replica.CausalRequest{
			Request: replica.Request{To: 1, Epoch: 2, Stamp: 3, Key: []byte("key")},
			Level:   rapid.Byte().Draw(t, "level"), Sole: rapid.Bool().Draw(t, "sole"), Sloppy: rapid.Bool().Draw(t, "sloppy"), Deadline: rapid.Int64().Draw(t, "deadline"),
			Seen: seen, Value: rapid.SliceOf(rapid.Byte()).Draw(t, "value"),
		}
		if len(q.Value) == 0 {
			q.Tombstone = rapid.Bool().Draw(t, "tombstone")
		}
		if rapid.Bool().Draw(t, "mutates") {
			q.Tombstone, q.Sole, q.Value = false, false, nil
			q.Mutation, q.Base = rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(t, "mutation"), drawRecord(t)
		}
		head, err := q.AppendHead(nil)
		require.NoError(t, err)
		got, err := replica.DecodeCausal(append(head, q.Body()...))
		require.NoError(t, err)
		require.True(t, bytes.Equal(q.Body(), got.Body()) && q.Seen.Equal(got.Seen))
		require.Equal(t, q.Sloppy, got.Sloppy)
		require.Equal(t, q.Mutation, got.Mutation)
		require.Equal(t, q.Base.Dot, got.Base.Dot)
		again, err := got.AppendHead(nil)
		require.NoError(t, err)
		require.Equal(t, head, again)

		p := replica.CausalReply{
			Reply: replica.Reply{Stamp: 4, Epoch: 5}, Fault: replica.Fault(rapid.ByteMax(20).Draw(t, "fault")), Unknown: rapid.Bool().Draw(t, "unknown"),
			Required: 2, Received: 1, Alive: 3, Version: seen, Text: "why",
		}
		if p.Fault == replica.NoFault || p.Fault == replica.FaultConflict {
			p.Held, p.Text = drawRecord(t), ""
		}
		head, err = p.AppendHead(nil)
		require.NoError(t, err)
		back, err := replica.DecodeCausalReply(append(head, p.Held.Value...))
		require.NoError(t, err)
		require.Equal(t, p.Fault, back.Fault)
		require.Equal(t, p.Text, back.Text)
		require.True(t, back.Version.Equal(seen) && bytes.Equal(back.Held.Value, p.Held.Value))
		again, err = back.AppendHead(nil)
		require.NoError(t, err)
		require.Equal(t, head, again)

		p = replica.CausalReply{Reply: replica.Reply{Status: replica.NotReady, Stamp: 4, Epoch: 5}}
		head, err = p.AppendHead(nil)
		require.NoError(t, err)
		back, err = replica.DecodeCausalReply(head)
		require.NoError(t, err)
		require.Equal(t, p, back)
	})
}

// TestCausalLimit: a version that the form cannot say is refused.
func TestCausalLimit(t *testing.T) {
	var past vclock.History
	for actor := range uint64(3100) {
		past.V = append(past.V, vclock.Dot{Stamp: 1, Actor: actor + 1})
	}
	q := replica.CausalRequest{Request: replica.Request{Key: []byte("k")}, Seen: vclock.Version{Past: past}}
	_, err := q.AppendHead(nil)
	require.ErrorIs(t, err, replica.ErrTooLarge)
	p := replica.CausalReply{Version: q.Seen}
	_, err = p.AppendHead(nil)
	require.ErrorIs(t, err, replica.ErrTooLarge)
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
	c := replica.CausalRequest{Request: replica.Request{Key: []byte("key")}, Sole: true}
	head, _ := c.AppendHead(nil)
	f.Add(append(head, "value"...))
	c = replica.CausalRequest{Request: replica.Request{Key: []byte("key")}, Mutation: []byte("mutation"), Base: q.Record}
	head, _ = c.AppendHead(nil)
	f.Add(append(head, "value"...))
	a := replica.CausalReply{Held: q.Record}
	head, _ = a.AppendHead(nil)
	f.Add(append(head, "value"...))
	e := replica.ExplainReply{Owner: true, Horizon: replica.Horizon{Promised: 2, Recorded: 1}, Missed: []replica.Missed{{Owner: 3, Hint: true}, {Owner: 4, Mark: true}}}
	f.Add(e.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := replica.DecodeCausal(b); err == nil {
			enc, err := q.AppendHead(nil)
			require.NoError(t, err)
			require.Equal(t, b, append(enc, q.Body()...))
		}
		if p, err := replica.DecodeCausalReply(b); err == nil {
			enc, err := p.AppendHead(nil)
			require.NoError(t, err)
			require.Equal(t, b, append(enc, p.Held.Value...))
		}
		if p, err := replica.DecodeExplainReply(b); err == nil && p.Status == replica.OK {
			require.Equal(t, b, p.Append(nil))
		}
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
