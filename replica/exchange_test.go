package replica_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/kvstore/merkle"
	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// TestExchangeRoundTrip: messages come back as they were sent.
func TestExchangeRoundTrip(t *testing.T) {
	dot := func(t *rapid.T) vclock.Dot {
		return vclock.Dot{Stamp: rapid.Uint64Range(1, 9).Draw(t, "stamp"), Actor: rapid.Uint64().Draw(t, "actor")}
	}
	rapid.Check(t, func(t *rapid.T) {
		floors := rapid.SliceOfN(rapid.Custom(dot), 1, 20).Draw(t, "floors")
		o := replica.OpenExchange{To: 1, Epoch: 2, Stamp: 3, From: 4, Routine: rapid.Bool().Draw(t, "routine"),
			Rest: rapid.Bool().Draw(t, "rest"), Patient: rapid.Bool().Draw(t, "patient"),
			Range: merkle.Range{Lo: 5, Hi: 6}, Cut: 7, Count: 8, Floors: replica.FloorRuns(floors), Partitions: rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(t, "bits")}
		got, err := replica.DecodeOpenExchange(o.Append(nil))
		require.NoError(t, err)
		require.Equal(t, o, got)

		opened := replica.ExchangeOpened{Reply: replica.Reply{Stamp: 1}, Session: 2, Root: merkle.Sum([]byte("x")), Shape: merkle.NewShape(0, 99, 50), Floors: o.Floors, Lost: []byte{}}
		if rapid.Bool().Draw(t, "lost") {
			opened.Lost = o.Partitions
		}
		reply, err := replica.DecodeExchangeOpened(opened.Append(nil))
		require.NoError(t, err)
		require.Equal(t, opened, reply)

		other := rapid.SliceOfN(rapid.Custom(dot), 0, 20).Draw(t, "other")
		lower := append([]vclock.Dot(nil), floors...)
		replica.LowerFloors(lower, replica.FloorRuns(other))
		for p := range floors {
			want := vclock.Dot{}
			if p < len(other) {
				want = other[p]
				if floors[p].Less(want) {
					want = floors[p]
				}
			}
			require.Equal(t, want, lower[p])
		}

		m := replica.ExchangeMissing{Answered: 3, Records: rapid.SliceOfN(rapid.Custom(drawKeyRecord), 1, 4).Draw(t, "records"), Wanted: [][]byte{{1}, {2, 3}}}
		missing, err := replica.DecodeExchangeMissing(m.Append(nil))
		require.NoError(t, err)
		require.Equal(t, m, missing)
	})
}

func FuzzDecodeExchange(f *testing.F) {
	f.Add((&replica.OpenExchange{Range: merkle.Range{Hi: 1}}).Append(nil))
	f.Add((&replica.ExchangeMissing{Wanted: [][]byte{{1}}}).Append(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		if o, err := replica.DecodeOpenExchange(data); err == nil {
			require.Equal(t, data, o.Append(nil))
		}
		_, _ = replica.DecodeExchangeOpened(data)
		_, _ = replica.DecodeExchangeMissing(data)
		_, _ = replica.DecodeTokenVersions(data)
	})
}

// TestTokenVersions: whatever two sides hold at a token, after one comparison and the
// moves that it asks for both hold the join of both.
func TestTokenVersions(t *testing.T) {
	keys := [][]byte{[]byte("a"), []byte("b"), []byte("c")}
	rapid.Check(t, func(t *rapid.T) {
		draw := func(side string) map[string]replica.Record {
			held := map[string]replica.Record{}
			for _, key := range keys {
				stamp := rapid.Uint64Range(0, 3).Draw(t, side)
				if stamp == 0 {
					continue
				}
				r := replica.Record{Dot: vclock.Dot{Stamp: stamp, Actor: 1}}
				if rapid.Bool().Draw(t, "causal") { // two writers that have not seen each other
					actor := rapid.Uint64Range(2, 3).Draw(t, "actor")
					s := vclock.Set{}.Write(vclock.History{}, vclock.Sibling{Dot: vclock.Dot{Stamp: stamp, Actor: actor}, Value: []byte{byte(actor)}})
					r = replica.Record{Dot: s.Max(), Causal: true, Value: vclock.AppendSet(nil, s)}
				}
				held[string(key)] = r
			}
			return held
		}
		here, there := draw("here"), draw("there")
		item := replica.TokenVersions{Token: 5}
		var own []replica.KeyRecord
		for _, key := range keys {
			if r, ok := here[string(key)]; ok {
				kr := replica.KeyRecord{Key: key, Record: r}
				item.Keys, item.Versions = append(item.Keys, key), append(item.Versions, kr.Version())
			}
			if r, ok := there[string(key)]; ok {
				own = append(own, replica.KeyRecord{Key: key, Record: r})
			}
		}
		items, err := replica.DecodeTokenVersions(replica.AppendTokenVersions(nil, &item))
		require.NoError(t, err)
		send, want := items[0].Compare(own)
		join := func(at map[string]replica.Record, key string, r replica.Record) {
			joined, err := replica.Join(at[key], r)
			require.NoError(t, err)
			at[key] = joined
		}
		for _, i := range send {
			join(here, string(own[i].Key), own[i].Record)
		}
		for _, key := range want {
			join(there, string(key), here[string(key)])
		}
		for _, key := range keys {
			require.True(t, here[string(key)].Same(there[string(key)]), "%s: %v and %v", key, here[string(key)], there[string(key)])
		}
	})
}

// TestRota: needs come first; then every peer has its turn, however many are down or
// fail; what was read delays what follows.
func TestRota(t *testing.T) {
	now := time.Unix(1000, 0)
	r := replica.NewRota(now, rand.New(rand.NewPCG(1, 1)))
	shared := func(uint64) []uint32 { return []uint32{0, 1, 2} }
	next := func(alive ...uint64) (replica.ExchangeWork, bool) {
		now = r.Turn()
		return r.Next(now, alive, shared)
	}
	_, ok := r.Next(now, []uint64{1}, shared)
	require.False(t, ok, "not at once")
	_, ok = next()
	require.False(t, ok, "nobody is alive")
	seen := map[uint64]int{}
	for range 30 {
		w, ok := next(1, 2, 3)
		require.True(t, ok)
		require.True(t, w.Routine)
		seen[w.Peer]++
		if w.Peer == 3 {
			r.Failed(now, w)
		} else {
			r.Done(now, w, nil, true, 99, 10)
		}
	}
	require.InDelta(t, 10, seen[1], 3)
	require.InDelta(t, 10, seen[2], 3)
	require.NotZero(t, seen[3])

	cut, _ := next(1, 2)
	r.Done(now, cut, nil, false, 99, 10)
	require.Less(t, r.Turn().Sub(now), time.Second, "it was cut: there is more")
	on, _ := next(1, 2)
	require.Equal(t, replica.ExchangeWork{Peer: cut.Peer, Routine: true, From: 100}, on)
	r.Done(now, on, nil, true, 1<<40, 10)

	r.Need(1, []uint64{1, 2})
	var settled []uint32
	for range 2 {
		w, ok := next(1, 2, 3)
		require.True(t, ok)
		require.False(t, w.Routine)
		require.Equal(t, []uint32{1}, w.Partitions)
		settled = append(settled, r.Done(now, w, w.Partitions, true, 99, 0)...)
	}
	require.Equal(t, []uint32{1}, settled, "after both")

	w, _ := next(1)
	r.Done(now, w, nil, false, 49, 1_000_000)
	require.Greater(t, r.Turn().Sub(now), 10*time.Second)
	w, _ = next(1)
	require.Equal(t, uint64(50), w.From, "a range that was cut goes on")

	first, _ := next(1, 2)
	r.Done(now, first, nil, true, 1<<40, 10)
	put, _ := next(1, 2)
	require.True(t, r.PutOff(now, put))
	other, _ := next(1, 2)
	require.NotEqual(t, put.Peer, other.Peer, "the others come first")
	r.Done(now, other, nil, true, 1<<40, 10)
	for n := 1; ; n++ {
		w, _ = next(put.Peer)
		if !r.PutOff(now, w) {
			require.Equal(t, 12, n, "not for ever")
			break
		}
	}
	r.Done(now, w, nil, false, 99, 10)
	w, _ = next(put.Peer)
	require.False(t, r.PutOff(now, w), "nor between the pieces")
	r.Done(now, w, nil, true, 1<<40, 10)
	w, _ = next(put.Peer)
	require.True(t, r.PutOff(now, w))

	now = now.Add(25 * time.Hour)
	w, ok = r.Next(now, []uint64{1}, shared)
	require.True(t, ok)
	require.Equal(t, []uint32{0, 1, 2}, w.Partitions, "everything, once a day")
}

// TestRotaBalked: partitions in need that cannot be compared for now do not hold up what
// is routine with that peer, and are not forgotten.
func TestRotaBalked(t *testing.T) {
	now := time.Unix(1000, 0)
	r := replica.NewRota(now, rand.New(rand.NewPCG(1, 1)))
	r.Need(5, []uint64{1})
	next := func(after time.Duration) replica.ExchangeWork {
		now = now.Add(after)
		w, ok := r.Next(now, []uint64{1}, func(uint64) []uint32 { return nil })
		require.True(t, ok)
		return w
	}
	for range 3 {
		w := next(10 * time.Second)
		require.Equal(t, []uint32{5}, w.Partitions)
		r.Failed(now, w)
		w = next(10 * time.Second)
		require.True(t, w.Routine)
		require.Empty(t, r.Done(now, w, nil, true, 1<<40, 10))
	}
}

// TestRotaResumes: a partition in need that is larger than one comparison is compared
// piece by piece, one peer in need does not keep the others waiting, and what is noted
// meanwhile starts over.
func TestRotaResumes(t *testing.T) {
	now := time.Unix(1000, 0)
	r := replica.NewRota(now, rand.New(rand.NewPCG(1, 1)))
	shared := func(uint64) []uint32 { return nil }
	r.Need(5, []uint64{1, 2})
	next := func() replica.ExchangeWork {
		now = r.Turn()
		w, ok := r.Next(now, []uint64{1, 2}, shared)
		require.True(t, ok)
		require.False(t, w.Routine)
		return w
	}
	ends := map[uint64]uint64{}
	for range 6 {
		w := next()
		require.Equal(t, ends[w.Peer], w.From)
		end := w.From + 100
		ends[w.Peer] = end + 1
		require.Empty(t, r.Done(now, w, nil, false, end, 10))
	}
	require.Equal(t, map[uint64]uint64{1: 303, 2: 303}, ends)
	r.Need(3, []uint64{1})
	w := next()
	require.Equal(t, replica.ExchangeWork{Peer: 1, Partitions: []uint32{3, 5}}, w, "from the start")
	require.Equal(t, []uint32{3}, r.Done(now, w, []uint32{3}, false, 999, 10))
	w = next()
	require.Equal(t, replica.ExchangeWork{Peer: 2, From: 303, Partitions: []uint32{5}}, w)
	r.Failed(now, w)
	w = next()
	require.Equal(t, replica.ExchangeWork{Peer: 1, From: 1000, Partitions: []uint32{5}}, w)
	require.Empty(t, r.Done(now, w, []uint32{5}, true, 1<<40, 10))
	for w.Peer != 2 {
		now = now.Add(time.Second)
		if next, ok := r.Next(now, []uint64{1, 2}, shared); ok && !next.Routine {
			w = next
		}
	}
	require.Equal(t, uint64(303), w.From, "a failure loses nothing")
	require.Equal(t, []uint32{5}, r.Done(now, w, []uint32{5}, true, 1<<40, 10))
}

// TestRotaVerifies: everything is verified once a day with each peer, however often the
// node starts.
func TestRotaVerifies(t *testing.T) {
	const days = 100
	for _, uptime := range []time.Duration{time.Hour, 20 * time.Hour, days * 24 * time.Hour} {
		now := time.Unix(1e9, 0)
		verified := map[uint64]int{}
		for start := uint64(0); now.Sub(time.Unix(1e9, 0)) < days*24*time.Hour; start++ {
			r := replica.NewRota(now, rand.New(rand.NewPCG(start, 2)))
			for end := now.Add(uptime); now.Before(end); now = now.Add(time.Minute) {
				w, ok := r.Next(now, []uint64{1, 2}, func(uint64) []uint32 { return []uint32{3} })
				if !ok {
					continue // it has just begun
				}
				if !w.Routine {
					verified[w.Peer]++
				}
				r.Done(now, w, w.Partitions, true, math.MaxUint64, 0)
			}
		}
		for peer := uint64(1); peer <= 2; peer++ {
			require.InDelta(t, days, verified[peer], days/4, "peer %d, started every %v", peer, uptime)
		}
	}
}
