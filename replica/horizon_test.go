package replica_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

func TestJudge(t *testing.T) {
	dot := func(stamp uint64) vclock.Dot { return vclock.Dot{Stamp: stamp, Actor: 1} }
	h := replica.Horizon{Promised: 20, Recorded: 10}
	for _, tt := range []struct {
		from   replica.Source
		lo, hi uint64
		gone   bool
		want   replica.Judgement
	}{
		{replica.Fresh, 21, 21, false, replica.Take},
		{replica.Fresh, 20, 20, false, replica.Refuse},
		{replica.Fresh, 20, 20, true, replica.Refuse},
		{replica.Fresh, 5, 5, false, replica.Refuse},
		{replica.Fresh, 5, 21, false, replica.Reread}, // an old sibling
		{replica.Fresh, 21, 22, false, replica.Take},  // siblings
		{replica.Fresh, 10, 10, true, replica.Refuse}, // it would be stored nowhere
		{replica.WrittenBack, 21, 21, false, replica.Take},
		{replica.WrittenBack, 20, 20, false, replica.Reread},
		{replica.WrittenBack, 5, 21, false, replica.Reread},
		{replica.WrittenBack, 10, 10, true, replica.Ignore},
		{replica.Exchanged, 5, 5, false, replica.Take},
		{replica.Exchanged, 15, 15, true, replica.Take},
		{replica.Exchanged, 10, 10, true, replica.Ignore},
	} {
		require.Equal(t, tt.want, h.Judge(tt.from, dot(tt.lo), dot(tt.hi), tt.gone), "%+v", tt)
	}
	require.True(t, h.Covers(dot(10)))
	require.False(t, h.Covers(dot(11)))
	require.Equal(t, replica.Take, replica.Horizon{}.Judge(replica.Fresh, dot(1), dot(1), true), "no horizon yet")
}

func TestRoundStepRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := replica.RoundStep{Step: byte(rapid.IntRange(1, 3).Draw(t, "step")), To: 1, Epoch: 2, Stamp: 3, Round: 4, Horizon: 5,
			Owners: rapid.SliceOfN(rapid.Uint64(), 1, 5).Draw(t, "owners"), Partitions: rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(t, "bits")}
		b := r.Append(nil)
		got, err := replica.DecodeRoundStep(b)
		require.NoError(t, err)
		require.Equal(t, r, got)
		_, err = replica.DecodeRoundStep(b[:41])
		require.ErrorIs(t, err, replica.ErrMalformed)
	})
}

// TestCoveredTombstone: an owner whose horizon covers the tombstone that others have
// counts as holding it; one that never had it, or a value, does not.
func TestCoveredTombstone(t *testing.T) {
	tomb := replica.Record{Dot: vclock.Dot{Stamp: 10}, Tombstone: true}
	for _, tt := range []struct {
		rec      replica.Record
		recorded uint64
		holds    bool
	}{
		{tomb, 10, true}, {tomb, 9, false}, {replica.Record{Dot: tomb.Dot, Value: []byte("v")}, 10, false},
	} {
		r := replica.NewRead(replica.Need{Count: 2}, 3)
		r.Answer(0, tt.rec)
		r.Absent(1, tt.recorded)
		require.Equal(t, tt.holds, r.Holds(1))
		require.Equal(t, tt.holds, r.Agreed())
		require.Equal(t, !tt.holds, r.Stale(1))
	}
}
