package replica_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/kvstore/replica"
)

func drawKeyRecord(t *rapid.T) replica.KeyRecord {
	r := drawRecord(t)
	if r.Value == nil {
		r.Value = []byte{}
	}
	return replica.KeyRecord{Key: rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "key"), Record: r}
}

// TestBatchRoundTrip: batches, hints and their requests come back as they were
// sent, and every cut of them is refused.
func TestBatchRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := replica.Batch{To: 1, Epoch: 2, Stamp: 3, Session: 4, Exchanged: rapid.Bool().Draw(t, "exchanged"), Counted: rapid.Bool().Draw(t, "counted"),
			Records: rapid.SliceOfN(rapid.Custom(drawKeyRecord), 1, 5).Draw(t, "records")}
		bytes := b.Append(nil)
		size := 35
		for i := range b.Records {
			size += b.Records[i].Size()
		}
		require.Len(t, bytes, size)
		got, err := replica.DecodeBatch(bytes)
		require.NoError(t, err)
		require.Equal(t, b, got)
		for i := range bytes {
			_, err := replica.DecodeBatch(bytes[:i])
			require.ErrorIs(t, err, replica.ErrMalformed)
		}

		h := replica.Hint{Target: rapid.Uint64().Draw(t, "target"), Epoch: 7, Counted: b.Counted, KeyRecord: b.Records[0]}
		hint, err := replica.DecodeHint(h.StoreKey(), h.StoreValue())
		require.NoError(t, err)
		require.Equal(t, h, hint)
		m := replica.Mark{Target: h.Target, Partition: rapid.Uint32().Draw(t, "partition")}
		mark, err := replica.DecodeMark(m.StoreKey())
		require.NoError(t, err)
		require.Equal(t, m, mark)
		_, err = replica.DecodeMark(h.StoreKey())
		require.Error(t, err)
		_, err = replica.DecodeHint(m.StoreKey(), h.StoreValue())
		require.Error(t, err)

		q := replica.HintRequest{Targets: []uint64{1, h.Target}, Counted: b.Counted, Request: replica.Request{To: 4, Epoch: 5, Stamp: 6, Key: h.Key, Record: h.Record}}
		bytes = append(q.AppendHead(nil), h.Value...)
		ask, err := replica.DecodeHintRequest(bytes)
		require.NoError(t, err)
		require.Equal(t, q, ask)

		p := replica.BatchReply{Reply: replica.Reply{Stamp: 1, Epoch: 2}, Credit: replica.Credit{Bytes: 9, After: 17 * time.Millisecond},
			Statuses: []replica.Status{replica.OK, replica.Behind}}
		reply, err := replica.DecodeBatchReply(p.Append(nil), 2)
		require.NoError(t, err)
		require.Equal(t, p, reply)
		_, err = replica.DecodeBatchReply(p.Append(nil), 3)
		require.ErrorIs(t, err, replica.ErrMalformed)
	})
}

func FuzzDecodeBatch(f *testing.F) {
	b := replica.Batch{To: 1, Records: []replica.KeyRecord{{Key: []byte("k"), Record: replica.Record{Value: []byte("v")}}}}
	b.Records[0].Dot.Stamp = 1
	f.Add(b.Append(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		if b, err := replica.DecodeBatch(data); err == nil {
			require.Equal(t, data, b.Append(nil))
		}
		_, _ = replica.DecodeHintRequest(data)
		_, _ = replica.DecodeNeeds(data)
		_, _ = replica.DecodeBatchReply(data, 1)
	})
}
