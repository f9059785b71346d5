package lsm

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/manifest"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// mess does something to the tree that must not change what it holds.
func mess(t testing.TB, r *rand.Rand, tree *Tree, o *Options) *Tree {
	switch r.IntN(12) {
	case 0:
		require.NoError(t, tree.Compact(context.Background()))
	case 1:
		require.NoError(t, tree.Close())
		return open(t, o)
	case 2, 3, 4:
		require.NoError(t, tree.Flush())
	}
	return tree
}

// TestAnyOrder applies one set of records in different orders, some of them
// several times, over different flushes, compactions and reopenings: every tree
// ends up the same (invariant I2), and a full compaction makes the same bytes of it.
func TestAnyOrder(t *testing.T) {
	runs := sized[uint64](500, 12, 4)
	for seed := range runs {
		from := newWriter(seed, 5, 30)
		var records []Record
		for range 150 {
			if r := from.record(); r.Max.Actor != LocalActor { // those come in order
				records = append(records, r)
			}
		}
		want := model{}.with(records)
		// After Compact: the same whatever the history.
		var tables []manifest.Table
		var files [][]byte
		for order := range uint64(2) {
			r := rand.New(rand.NewPCG(seed, order))
			all := append(slices.Clone(records), records[:r.IntN(len(records))]...)
			r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			disk := vfs.NewMem(seed)
			o := small(disk)
			o.Sync = []SyncPolicy{SyncAlways, SyncNever}[r.IntN(2)]
			tree := open(t, o)
			for len(all) > 0 {
				n := min(1+r.IntN(8), len(all))
				require.NoError(t, tree.Apply(slices.Clone(all[:n])))
				all = all[n:]
				tree = mess(t, r, tree, o)
			}
			want.require(t, tree)
			require.NoError(t, tree.Compact(context.Background()))
			want.require(t, tree)
			var found []manifest.Table
			var contents [][]byte
			for f := range tree.version.Load().tables() {
				same := f.Table
				same.ID, same.Run, same.Hash = 0, 0, 0
				found = append(found, same)
				contents = append(contents, numberless(contentOf(t, disk, f.name())))
			}
			if order == 0 {
				tables, files = found, contents
			}
			require.Equal(t, tables, found)
			require.Equal(t, len(files), len(contents))
			for i := range files {
				require.True(t, bytes.Equal(files[i], contents[i]), "seed %d, table %d", seed, i)
			}
			require.NoError(t, tree.Close())
		}
	}
}

// numberless clears the number of a table in its bytes, and the checksums, which
// depend on it: they verify, or the tree would not have been read.
func numberless(b []byte) []byte {
	offset := func(at int) int { return int(binary.LittleEndian.Uint64(b[at:])) }
	footer := len(b) - 40
	index, properties := offset(footer+8), offset(footer+16)
	ends := []int{base.HeaderBytes, index, properties, footer, footer + 36}
	s := b[index:]
	uvarint := func() int {
		v, n := binary.Uvarint(s)
		s = s[n:]
		return int(v)
	}
	end := base.HeaderBytes
	for range uvarint() {
		uvarint() // the first token
		end += uvarint()
		ends = append(ends, end)
	}
	for _, end := range ends {
		clear(b[end-4 : end])
	}
	clear(b[16:24])
	clear(b[properties:][:8])
	clear(b[footer+24:][:8]) // the hash of all before it
	return b
}

// TestPurge lets a horizon follow behind records that arrive in any order, in a
// tree that flushes and compacts at random. What a reader sees must stay that of
// the join of everything, although tombstones vanish (invariant I5). The space
// is that of a search over models of the rules.
func TestPurge(t *testing.T) {
	runs := sized[uint64](2000, 20, 5)
	var purged uint64
	for seed := range runs {
		r := rand.New(rand.NewPCG(seed, 2))
		from := newWriter(seed, 3, 10)
		var horizon atomic.Uint64 // the stamp; records above it may still arrive
		o := small(vfs.NewMem(seed))
		// Any tables may be compacted at any time, alone or together.
		o.pick = randomPick(seed)
		o.maxTableBytes = 1 // a table for each token
		o.Horizon = func(uint64) vclock.Dot { return vclock.Dot{Stamp: horizon.Load(), Actor: math.MaxUint64} }
		tree := open(t, o)
		m := model{}
		var pending []Record
		arrive := func(rec Record) {
			rec = straggle(rec, m[string(rec.Key)], horizon.Load())
			if rec.Kind == 0 {
				return
			}
			b := []Record{rec}
			m = m.with(b)
			require.NoError(t, tree.Apply(b))
		}
		for range 120 {
			rec := from.record()
			if rec.Max.Actor != LocalActor {
				pending = append(pending, rec)
			}
			if n := len(pending); n > 0 && r.IntN(2) == 0 {
				i := r.IntN(n)
				arrive(pending[i])
				pending = slices.Delete(pending, i, i+1)
			}
			if r.IntN(10) == 0 {
				h := horizon.Load() + uint64(r.IntN(60))
				pending = slices.DeleteFunc(pending, func(rec Record) bool {
					if rec.Min.Stamp <= h {
						arrive(rec)
					}
					return rec.Min.Stamp <= h
				})
				horizon.Store(max(horizon.Load(), h))
			}
			purged += tree.stats.purged.Swap(0)
			kick(tree.compactKick)
			tree = mess(t, r, tree, o)
			requireLive(t, m, tree, seed)
		}
		require.NoError(t, tree.Close())
	}
	require.Positive(t, purged)
	t.Logf("%d records purged", purged)
}

// straggle does what a replica does with a record that holds dots behind the
// horizon: those that are not alive here were superseded. Here is what it holds.
func straggle(r Record, here vclock.Set, horizon uint64) Record {
	if r.Min.Stamp > horizon {
		return r
	}
	s := setOf(&r)
	s.Siblings = slices.DeleteFunc(slices.Clone(s.Siblings), func(b vclock.Sibling) bool {
		return b.Dot.Stamp <= horizon && !slices.ContainsFunc(here.Siblings, func(c vclock.Sibling) bool { return c.Dot == b.Dot })
	})
	if len(s.Siblings) == 0 {
		return Record{}
	}
	return Record{Token: r.Token, Key: r.Key, Kind: Causal, Value: vclock.AppendSet(nil, s)}
}

func requireLive(t testing.TB, m model, tree *Tree, seed uint64) {
	t.Helper()
	live := func(s vclock.Set) string {
		out := ""
		for _, b := range s.Siblings {
			if !b.Tombstone && (b.Deadline == 0 || b.Deadline > 1<<40) {
				out += fmt.Sprintf("%v=%s ", b.Dot, b.Value)
			}
		}
		return out
	}
	for k, s := range m {
		r, ok, err := tree.Read([]byte(k))
		require.NoError(t, err)
		got := vclock.Set{}
		if ok {
			got = setOf(&r)
		}
		require.Equal(t, live(s), live(got), "seed %d, key %q", seed, k)
	}
}

// TestJoinTooLarge joins versions that no table could hold together: the same one
// stays whatever the order.
func TestJoinTooLarge(t *testing.T) {
	tree := open(t, small(vfs.NewMem(1)))
	large := func(actor uint64) Record {
		b := vclock.Sibling{Dot: vclock.Dot{Stamp: 5, Actor: actor}, Value: make([]byte, MaxValueBytes/2)}
		r := Record{Token: 1, Key: key(1), Kind: Causal, Value: vclock.AppendSet(nil, vclock.Set{}.Write(vclock.History{}, b))}
		require.NoError(t, tree.normalize(&r))
		return r
	}
	a, b := large(1), large(2)
	for _, r := range []Record{tree.join(a, b), tree.join(b, a)} {
		require.LessOrEqual(t, len(r.Value), MaxValueBytes)
		require.Equal(t, b.Max, r.Max)
	}
	require.Equal(t, uint64(2), tree.stats.joinLimits.Load())
	require.NoError(t, tree.Close())
}
