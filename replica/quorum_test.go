package replica_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// answers that an owner may give to a write.
const (
	ack = iota
	superseded
	failed
	silent
	kinds
)

// TestWriteEnumerated runs every sequence of answers of up to four owners in
// every order, for every level, against a plain restatement of the rules.
func TestWriteEnumerated(t *testing.T) {
	cases := 0
	for owners := 1; owners <= 4; owners++ {
		for need := 1; need <= owners; need++ {
			permute(owners, func(order []int) {
				words(owners, kinds, func(kind []int) {
					cases++
					w := replica.NewWrite(replica.Need{Count: need}, owners)
					acks, fails, newer := 0, 0, false
					for n, i := range order {
						if kind[i] == silent {
							continue
						}
						switch kind[i] {
						case ack:
							w.Ack(i)
							acks++
						case superseded:
							w.Superseded(i, vclock.Dot{Stamp: uint64(100 + i), Actor: 1})
							fails++
							newer = true
						case failed:
							w.Fail(i)
							fails++
						}
						want := replica.Pending
						switch {
						case acks >= need:
							want = replica.Done
						case newer:
							want = replica.Restamp
						case owners-fails < need:
							want = replica.Impossible
						}
						require.Equal(t, want, w.Verdict(), "owners %d need %d order %v kinds %v after %d", owners, need, order, kind, n)
						require.Equal(t, acks, w.Acked())
					}
				})
			})
		}
	}
	t.Logf("%d sequences", cases)
}

// TestWriteAnswersOnce: what an owner says after its first answer changes
// nothing, as with a duplicated message.
func TestWriteAnswersOnce(t *testing.T) {
	w := replica.NewWrite(replica.Need{Count: 2}, 3)
	w.Ack(0)
	w.Ack(0)
	w.Fail(0)
	require.Equal(t, replica.Pending, w.Verdict())
	w.Fail(1)
	w.Ack(1)
	require.Equal(t, 1, w.Acked())
	w.Ack(2)
	require.Equal(t, replica.Done, w.Verdict())
}

// TestReadEnumerated: for every choice of records at four owners and every order
// of answers, the join, the holders and the stale owners are those of a plain
// restatement.
func TestReadEnumerated(t *testing.T) {
	const owners = 4
	record := func(stamp int) replica.Record {
		if stamp == 0 {
			return replica.Record{}
		}
		return replica.Record{Dot: vclock.Dot{Stamp: uint64(stamp), Actor: 7}, Value: fmt.Append(nil, stamp)}
	}
	for need := 1; need <= owners; need++ {
		permute(owners, func(order []int) {
			words(owners, 4, func(stamps []int) { // 3 is a failure
				r := replica.NewRead(replica.Need{Count: need}, owners)
				newest, answered, fails := 0, 0, 0
				for n, i := range order {
					if stamps[i] == 3 {
						r.Fail(i)
						fails++
					} else {
						r.Answer(i, record(stamps[i]))
						newest = max(newest, stamps[i])
						answered++
					}
					want := replica.Pending
					if answered >= need {
						want = replica.Done
					} else if owners-fails < need {
						want = replica.Impossible
					}
					require.Equal(t, want, r.Verdict())
					if answered == 0 {
						continue
					}
					require.Equal(t, record(newest).Dot, r.Joined().Dot)
					holders := 0
					for _, j := range order[:n+1] {
						holds := stamps[j] == newest
						require.Equal(t, holds, r.Holds(j), "order %v stamps %v", order, stamps)
						if holds {
							holders++
						}
					}
					require.Equal(t, holders, r.Holders())
					require.Equal(t, holders == answered, r.Agreed())
				}
			})
		})
	}
}

// TestGroups: a need of groups is met exactly when each group has its answers, for
// every set of answers and failures of 3 + 2 owners.
func TestGroups(t *testing.T) {
	need := replica.Need{Groups: []replica.Group{{Of: 0b00111, Count: 2}, {Of: 0b11000, Count: 2}}}
	require.Equal(t, 4, need.Total())
	require.False(t, need.None())
	words(5, kinds, func(kind []int) {
		w, r := replica.NewWrite(need, 5), replica.NewRead(need, 5)
		var acks, fails [2]int
		for i, k := range kind {
			switch k {
			case ack:
				w.Ack(i)
				r.Answer(i, replica.Record{})
				acks[i/3]++
			case failed:
				w.Fail(i)
				r.Fail(i)
				fails[i/3]++
			}
		}
		want := replica.Pending
		switch {
		case acks[0] >= 2 && acks[1] >= 2:
			want = replica.Done
		case fails[0] > 1 || fails[1] > 0:
			want = replica.Impossible
		}
		require.Equal(t, want, w.Verdict(), "%v", kind)
		require.Equal(t, want, r.Verdict(), "%v", kind)
	})
}

// TestReadDigests: for every choice of records at three owners, plain and causal,
// and of those that give a digest, a read that settles concludes what it would from
// the records themselves; and it settles unless a digest is of something that the
// full answers lack.
func TestReadDigests(t *testing.T) {
	var causal, other vclock.Set
	causal = causal.Write(vclock.History{}, vclock.Sibling{Dot: vclock.Dot{Stamp: 2, Actor: 9}, Value: []byte("c")})
	other = causal.Write(vclock.History{}, vclock.Sibling{Dot: vclock.Dot{Stamp: 4, Actor: 9}, Value: []byte("d")})
	records := []replica.Record{
		{},
		{Dot: vclock.Dot{Stamp: 1, Actor: 7}, Value: []byte("a")},
		{Dot: vclock.Dot{Stamp: 3, Actor: 7}, Value: []byte("b"), Deadline: 5},
		replica.FromSet(causal),
		replica.FromSet(other),
	}
	settled := 0
	words(3, len(records), func(held []int) {
		for mask := range 8 {
			full, some := replica.NewRead(replica.Need{Count: 3}, 3), replica.NewRead(replica.Need{Count: 3}, 3)
			known := replica.Record{}
			same := true
			for i, h := range held {
				full.Answer(i, records[h])
				if mask>>i&1 == 0 {
					some.Answer(i, records[h])
					known, _ = replica.Join(known, records[h])
				} else if records[h].Found() { // nobody gives a digest of nothing
					some.Answer(i, records[h].AsDigest())
				} else {
					some.Answer(i, records[h])
				}
			}
			for i, h := range held {
				if mask>>i&1 == 1 && records[h].Found() && !records[h].Same(known) && (records[h].Causal || known.Causal || known.Dot.Less(records[h].Dot)) {
					same = false
				}
			}
			require.Equal(t, replica.Done, some.Verdict())
			if !some.Settle() {
				require.False(t, same && mask != 7, "%v %03b", held, mask)
				continue
			}
			settled++
			require.True(t, full.Joined().Same(some.Joined()), "%v %03b", held, mask)
			require.Equal(t, full.Agreed(), some.Agreed(), "%v %03b", held, mask)
			for i := range 3 {
				require.Equal(t, full.Holds(i), some.Holds(i), "%v %03b owner %d", held, mask, i)
			}
		}
	})
	require.Greater(t, settled, 300)
}

func TestReadDamage(t *testing.T) {
	r := replica.NewRead(replica.Need{Count: 2}, 3)
	r.Damaged(0)
	r.Answer(1, replica.Record{Dot: vclock.Dot{Stamp: 1}})
	require.Equal(t, replica.Pending, r.Verdict())
	r.Answer(2, replica.Record{Dot: vclock.Dot{Stamp: 1}})
	require.Equal(t, replica.Done, r.Verdict())
	require.False(t, r.AllDamaged())

	r = replica.NewRead(replica.Need{Count: 1}, 2)
	r.Damaged(0)
	r.Answer(1, replica.Record{Causal: true, Dot: vclock.Dot{Stamp: 1}, Value: []byte("no set")})
	r.Answer(1, replica.Record{})
	require.Equal(t, replica.Done, r.Verdict(), "a lone causal record is not looked into")

	r = replica.NewRead(replica.Need{Count: 1}, 2)
	r.Damaged(0)
	r.Damaged(1)
	require.Equal(t, replica.Impossible, r.Verdict())
	require.True(t, r.AllDamaged())
}

// TestJoinPlainAndCausal: a causal record that saw the plain one supersedes it,
// one that did not becomes its sibling, in either order.
func TestJoinPlainAndCausal(t *testing.T) {
	plain := vclock.Sibling{Dot: vclock.Dot{Stamp: 5, Actor: 1}, Value: []byte("plain")}
	causal := vclock.Sibling{Dot: vclock.Dot{Stamp: 9, Actor: 2}, Value: []byte("causal")}
	a := replica.Record{Dot: plain.Dot, Value: plain.Value}
	for name, seen := range map[string]vclock.History{"saw": {Floor: plain.Dot}, "did not see": {}} {
		set := vclock.Set{}.Write(seen, causal)
		b := replica.Record{Causal: true, Dot: causal.Dot, Value: vclock.AppendSet(nil, set)}
		ab, err := replica.Join(a, b)
		require.NoError(t, err)
		ba, err := replica.Join(b, a)
		require.NoError(t, err)
		require.True(t, ab.Same(ba), name)
		got, err := vclock.DecodeSet(ab.Value)
		require.NoError(t, err)
		if name == "saw" {
			require.Len(t, got.Siblings, 1)
		} else {
			require.Len(t, got.Siblings, 2)
		}
	}
}

// permute calls f with every order of 0..n-1.
func permute(n int, f func([]int)) {
	order := make([]int, 0, n)
	var rec func(used int)
	rec = func(used int) {
		if len(order) == n {
			f(order)
			return
		}
		for i := range n {
			if used>>i&1 == 0 {
				order = append(order, i)
				rec(used | 1<<i)
				order = order[:len(order)-1]
			}
		}
	}
	rec(0)
}

// words calls f with every word of n letters out of k.
func words(n, k int, f func([]int)) {
	w := make([]int, n)
	for {
		f(w)
		i := 0
		for i < n && w[i] == k-1 {
			w[i] = 0
			i++
		}
		if i == n {
			return
		}
		w[i]++
	}
}
