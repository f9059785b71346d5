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
	require.Equal(t, replica.Take, replica.Horizon{}.Judge(replica.Fresh, dot(1), dot(1), true), "no horizon yet")
}

// TestGone: a record may be forgotten when its highest dot, and the deadlines of all
// values in it, are behind the horizon.
func TestGone(t *testing.T) {
	dot := func(ms uint64) vclock.Dot { return vclock.Dot{Stamp: ms << 16, Actor: 1} }
	value := func(ms uint64, deadline int64) vclock.Sibling {
		return vclock.Sibling{Dot: dot(ms), Deadline: deadline, Value: []byte("v")}
	}
	tomb := func(ms uint64) vclock.Sibling { return vclock.Sibling{Dot: dot(ms), Tombstone: true} }
	set := func(siblings ...vclock.Sibling) vclock.Set {
		s := vclock.Set{}
		for i, b := range siblings {
			b.Dot.Actor = uint64(i + 1)
			s = s.Write(vclock.History{}, b)
		}
		return s
	}
	const horizon = 100 << 16
	for name, tt := range map[string]struct {
		vclock.Set
		gone bool
	}{
		"value": {vclock.Plain(value(50, 0)), false}, "tombstone": {vclock.Plain(tomb(50)), true}, "new tombstone": {vclock.Plain(tomb(101)), false},
		"expired": {vclock.Plain(value(50, 99)), true}, "expires": {vclock.Plain(value(50, 100)), false}, "new and expired": {vclock.Plain(value(101, 60)), false},
		"tombstones": {set(tomb(50), tomb(60)), true}, "tombstone and value": {set(tomb(50), value(60, 0)), false},
		"both expired": {set(value(50, 70), value(60, 80)), true}, "one expired": {set(value(50, 70), value(60, 100)), false},
		"expired and tombstone": {set(value(50, 70), tomb(60)), true}, "a new one": {set(value(50, 70), tomb(101)), false},
		"superseded": {set(value(50, 0)).Write(vclock.History{Floor: dot(50)}, tomb(60)), true},
	} {
		require.Equal(t, tt.gone, replica.FromSet(tt.Set).Gone(horizon), name)
		require.False(t, replica.FromSet(tt.Set).Gone(0), name)
	}
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
	}
}
