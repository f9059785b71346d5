package replica_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

func drawMany(t *rapid.T) []replica.KeyRecord {
	records := make([]replica.KeyRecord, rapid.IntRange(1, 5).Draw(t, "records"))
	for i := range records {
		records[i] = replica.KeyRecord{Key: rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "key"), Record: drawRecord(t)}
	}
	return records
}

// TestManyRoundTrip: what is decoded encodes to the same bytes again, and nothing
// shorter decodes.
func TestManyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := replica.ManyRequest{To: 1, Epoch: 2, Stamp: 3, Records: drawMany(t)}
		b := q.AppendRead(nil)
		got, err := replica.DecodeReadMany(b)
		require.NoError(t, err)
		require.Equal(t, b, got.AppendRead(nil))
		_, err = replica.DecodeReadMany(b[:len(b)-1])
		require.ErrorIs(t, err, replica.ErrMalformed)

		b = q.AppendWrite(nil)
		got, err = replica.DecodeWriteMany(b)
		require.NoError(t, err)
		require.Equal(t, b, got.AppendWrite(nil))
		_, err = replica.DecodeWriteMany(append(b, 0))
		require.ErrorIs(t, err, replica.ErrMalformed)

		p := replica.ManyReply{Reply: replica.Reply{Stamp: 4, Epoch: 5}}
		for _, r := range q.Records {
			a := replica.ManyAnswer{Status: replica.Superseded, Dot: vclock.Dot{Stamp: 7, Actor: 8}}
			if rapid.Bool().Draw(t, "read") {
				a = replica.ManyAnswer{Record: r.Record}
			}
			p.Answers = append(p.Answers, a)
		}
		b = p.Append(nil)
		back, err := replica.DecodeManyReply(b, len(p.Answers))
		require.NoError(t, err)
		require.Equal(t, b, back.Append(nil))
		_, err = replica.DecodeManyReply(b, len(p.Answers)+1)
		require.ErrorIs(t, err, replica.ErrMalformed)

		s := replica.ScanRequest{To: 1, Lo: 5, Hi: 9, After: q.Records[0].Key, Prefix: []byte("p")}
		b = s.Append(nil)
		s, err = replica.DecodeScan(b)
		require.NoError(t, err)
		require.Equal(t, b, s.Append(nil))

		page := replica.ScanReply{More: true, Last: q.Records[0].Key, Records: q.Records}
		b = page.Append(nil)
		page, err = replica.DecodeScanReply(b)
		require.NoError(t, err)
		require.Equal(t, b, page.Append(nil))
		_, err = replica.DecodeScanReply(b[:len(b)-1])
		require.ErrorIs(t, err, replica.ErrMalformed)
	})
}

// FuzzDecodeMany: bytes from a peer never panic, and what decodes encodes back to
// the same bytes.
func FuzzDecodeMany(f *testing.F) {
	q := replica.ManyRequest{Epoch: 3, Records: []replica.KeyRecord{{Key: []byte("key"), Record: replica.Record{Dot: vclock.Dot{Stamp: 1}, Value: []byte("value")}}}}
	f.Add(q.AppendRead(nil))
	f.Add(q.AppendWrite(nil))
	p := replica.ManyReply{Answers: []replica.ManyAnswer{{Record: q.Records[0].Record}}}
	f.Add(p.Append(nil))
	s := replica.ScanRequest{After: []byte("a"), Prefix: []byte("b")}
	f.Add(s.Append(nil))
	page := replica.ScanReply{Records: q.Records}
	f.Add(page.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := replica.DecodeReadMany(b); err == nil {
			require.Equal(t, b, q.AppendRead(nil))
		}
		if q, err := replica.DecodeWriteMany(b); err == nil {
			require.Equal(t, b, q.AppendWrite(nil))
		}
		if p, err := replica.DecodeManyReply(b, 1); err == nil && p.Status == replica.OK {
			require.Equal(t, b, p.Append(nil))
		}
		if s, err := replica.DecodeScan(b); err == nil {
			require.Equal(t, b, s.Append(nil))
		}
		if p, err := replica.DecodeScanReply(b); err == nil && p.Status == replica.OK {
			require.Equal(t, b, p.Append(nil))
		}
	})
}
