package lsm

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/offheap"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// Twins are two trees that are told the same, one of them with a cache. Whatever
// the cache answers must be what the other finds.
type twins struct {
	r       *rand.Rand
	from    *writer
	options [2]*Options
	tree    [2]*Tree // with and without a cache
	now     atomic.Int64
	horizon atomic.Uint64
	during  atomic.Pointer[func()] // runs in the middle of the next read of a table, once
	skip    int                    // but after so many reads
	overlap int                    // how often it did
}

func newTwins(seed uint64) (*twins, error) {
	w := &twins{r: rand.New(rand.NewPCG(seed, 4)), from: newWriter(seed, 3, 300)}
	policy := []SyncPolicy{SyncAlways, SyncNever}[w.r.IntN(2)]
	for i := range w.tree {
		disk := vfs.NewMem(seed)
		o := small(disk)
		o.CacheBytes = [2]int64{1 << 20, -1}[i]
		o.Sync = policy
		o.Now = func() time.Time { return time.UnixMilli(w.now.Load()) }
		o.Horizon = func(uint64) vclock.Dot { return vclock.Dot{Stamp: w.horizon.Load(), Actor: math.MaxUint64} }
		o.pick = neverPick
		if i == 0 {
			o.FS = vfs.Faulty(disk, w.interrupt)
		}
		w.options[i] = o
	}
	return w, w.open()
}

func (w *twins) open() error {
	for i, o := range w.options {
		var err error
		if w.tree[i], err = Open("db", o); err != nil {
			return err
		}
	}
	return nil
}

// interrupt runs in the goroutine of the read, which holds its version already.
func (w *twins) interrupt(op vfs.Op) error {
	if op.Kind != vfs.OpRead || !strings.HasSuffix(op.Name, ".table") {
		return nil
	}
	if f := w.during.Load(); f != nil {
		if w.skip--; w.skip < 0 {
			w.during.Store(nil)
			w.overlap++
			(*f)()
		}
	}
	return nil
}

// both does the same to both trees.
func (w *twins) both(f func(tree *Tree) error) {
	for _, tree := range w.tree {
		if err := f(tree); err != nil {
			panic(err)
		}
	}
}

// disturb does something that may happen at any time.
func (w *twins) disturb() {
	for again := true; again; again = w.r.IntN(2) == 0 {
		switch k := w.r.IntN(14); {
		case k < 6:
			batch := w.from.batch()
			w.both(func(t *Tree) error { return t.Apply(slices.Clone(batch)) })
		case k < 9:
			w.both((*Tree).Flush)
		case k < 11:
			w.both(func(t *Tree) error { return t.Compact(context.Background()) })
		case k == 11:
			lo, hi := w.r.Uint64(), w.r.Uint64()
			w.both(func(t *Tree) error { return t.DropRange(min(lo, hi), max(lo, hi)) })
		case k == 12:
			batch := w.from.batch()
			slices.SortFunc(batch, func(a, b Record) int { return a.Compare(b.Token, b.Key) })
			batch = slices.CompactFunc(batch, func(a, b Record) bool { return a.Compare(b.Token, b.Key) == 0 })
			w.both(func(t *Tree) error { return t.Ingest(slices.Values(slices.Clone(batch))) })
		default:
			w.now.Store(int64(w.from.stamp) - 10 + int64(w.r.IntN(20)))
			if h := w.from.stamp; h > 30 && w.r.IntN(2) == 0 {
				// A horizon's milliseconds are those of deadlines, too.
				w.horizon.Store(max(w.horizon.Load(), h+100))
			}
		}
	}
}

// answers gives all that a tree says of a key.
func answers(t *Tree, k []byte) string {
	v, ok, err := t.Get(k)
	out := fmt.Sprintf("get %q %v %v; ", v, ok, err)
	r, ok, err := t.Read(k)
	out += fmt.Sprintf("read %v %v %v", r, ok, err)
	if m, found, certain := t.ReadMemory(Token(k), k, nil); certain {
		if n := fmt.Sprintf("read %v %v %v", m, found, nil); !strings.HasSuffix(out, n) && found {
			out += "; but in memory " + n
		}
	}
	return out
}

// step does one thing and says what was wrong with it.
func (w *twins) step() string {
	if w.r.IntN(3) == 0 {
		w.disturb()
		return ""
	}
	k := fmt.Appendf(nil, "%s-%03d", []string{"own", "any"}[w.r.IntN(2)], w.r.IntN(w.from.keys))
	before := answers(w.tree[1], k)
	if w.r.IntN(4) > 0 {
		if got := answers(w.tree[0], k); got != before {
			return fmt.Sprintf("key %s:\n%s\nwant\n%s", k, got, before)
		}
		return ""
	}
	w.skip = w.r.IntN(3)
	during := func() {
		w.disturb()
		if w.r.IntN(2) == 0 {
			w.both(func(t *Tree) error { return t.Compact(context.Background()) })
		}
	}
	w.during.Store(&during)
	r, ok, err := w.tree[0].Read(k)
	w.during.Store(nil)
	after := answers(w.tree[1], k)
	if got := fmt.Sprintf("read %v %v %v", r, ok, err); !strings.Contains(before, got) && !strings.Contains(after, got) {
		return fmt.Sprintf("key %s:\n%s\nwant\n%s\nor\n%s", k, got, before, after)
	}
	if got := answers(w.tree[0], k); got != after {
		return fmt.Sprintf("key %s after:\n%s\nwant\n%s", k, got, after)
	}
	return ""
}

// run gives what went wrong, or nothing.
func (w *twins) run(t testing.TB) (fault string) {
	for range 300 {
		// Under a lazy policy the log may hold records of memtables that were
		// flushed before, and Open brings back what was purged meanwhile.
		if !w.options[0].Sync.lazy && w.r.IntN(100) == 0 {
			w.both((*Tree).Close)
			require.NoError(t, w.open())
		}
		if fault = w.step(); fault != "" {
			break
		}
	}
	return fault
}

// TestCachedTwin compares all answers at random interleavings: records in any
// order, flushes, compactions that purge, deadlines, and all of it in the middle
// of reads too.
func TestCachedTwin(t *testing.T) {
	runs := sized[uint64](1000, 30, 6)
	var total Metrics
	overlap := 0
	for seed := range runs {
		w, err := newTwins(seed)
		require.NoError(t, err)
		if fault := w.run(t); fault != "" {
			t.Fatalf("seed %d: %s", seed, fault)
		}
		m := w.tree[0].Metrics()
		total.CacheHits += m.CacheHits
		total.CacheDropped += m.CacheDropped
		total.Purged += m.Purged
		overlap += w.overlap
		w.both((*Tree).Close)
	}
	t.Logf("%d hits, %d fills dropped, %d purged, %d reads disturbed", total.CacheHits, total.CacheDropped, total.Purged, overlap)
	require.Positive(t, total.CacheHits)
	require.Positive(t, total.CacheDropped)
	require.Positive(t, total.Purged)
	require.Zero(t, offheap.Live())
}

// TestCacheDefences: each rule is needed. Without it some run gives a wrong answer.
func TestCacheDefences(t *testing.T) {
	for name, off := range map[string]*bool{
		"write-through":   &defences.WriteThrough,
		"fill-generation": &defences.FillGeneration,
		"fill-hold":       &defences.FillHold,
		"forget-purged":   &defences.ForgetPurged,
	} {
		t.Run(name, func(t *testing.T) {
			defer func() { *off = true }()
			*off = false
			for seed := range uint64(500) {
				w, err := newTwins(seed)
				require.NoError(t, err)
				fault := w.run(t)
				w.both((*Tree).Close)
				if fault != "" {
					t.Logf("seed %d: %s", seed, fault)
					return
				}
			}
			t.Fatal("nobody noticed")
		})
	}
}

// TestCacheShowsSynced holds a sync up, and then lets it fail: a write is in the
// cache when it is synced and not before, and a copy stays what it was.
func TestCacheShowsSynced(t *testing.T) {
	reached, verdict := make(chan struct{}), make(chan error)
	var armed atomic.Bool
	o := small(vfs.Faulty(vfs.NewMem(1), func(op vfs.Op) error {
		if op.Kind.Syncs() && strings.HasSuffix(op.Name, ".log") && armed.Load() {
			reached <- struct{}{}
			return <-verdict
		}
		return nil
	}))
	tree := open(t, o)
	require.NoError(t, tree.Put(key(1), []byte("old")))
	require.NoError(t, tree.Flush())
	requireGet(t, tree, key(1), "old")
	require.Equal(t, 1, tree.Metrics().CacheRecords)
	armed.Store(true)
	want := "old"
	for _, result := range []error{nil, vfs.ErrInjected} {
		done := make(chan error)
		next := want + ", newer"
		go func() { done <- tree.Put(key(1), []byte(next)) }()
		<-reached
		requireGet(t, tree, key(1), want)
		verdict <- result
		if err := <-done; result == nil {
			require.NoError(t, err)
			want = next
		} else {
			require.ErrorIs(t, err, ErrUncertain)
		}
		requireGet(t, tree, key(1), want)
		token := Token(key(1))
		r, ok := tree.cache.Get(token, key(1), nil)
		require.True(t, ok)
		require.Equal(t, want, string(r.Value))
	}
	armed.Store(false)
	require.ErrorIs(t, tree.Close(), ErrReadOnly)
}

// TestReadMemoryOfCache: what is in the cache needs no disk, deleted keys too, and
// what is not known to be absent is not said to be.
func TestReadMemoryOfCache(t *testing.T) {
	var reads atomic.Int64
	o := small(vfs.Faulty(vfs.NewMem(1), func(op vfs.Op) error {
		if op.Kind == vfs.OpRead {
			reads.Add(1)
		}
		return nil
	}))
	o.BitsPerKey = -1 // a table may hold anything
	o.pick = neverPick
	tree := open(t, o)
	defer tree.Close()
	require.NoError(t, tree.Put(key(1), []byte("value")))
	require.NoError(t, tree.Put(key(2), []byte("value")))
	require.NoError(t, tree.Put(key(3), []byte("value")))
	require.NoError(t, tree.Flush())
	require.NoError(t, tree.Delete(key(2)))
	require.NoError(t, tree.Flush())
	for i, want := range map[int]Kind{1: Value, 2: Tombstone} {
		k := key(i)
		_, _, certain := tree.ReadMemory(Token(k), k, nil)
		require.False(t, certain)
		_, _, err := tree.Get(k)
		require.NoError(t, err)
		before := reads.Load()
		r, found, certain := tree.ReadMemory(Token(k), k, nil)
		require.True(t, found && certain)
		require.Equal(t, want, r.Kind)
		require.Equal(t, before, reads.Load())
	}
	unsure := 0
	for i := 4; i < 50; i++ {
		absent := key(i)
		_, _, before := tree.ReadMemory(Token(absent), absent, nil)
		_, ok, err := tree.Get(absent)
		require.NoError(t, err)
		require.False(t, ok)
		_, _, after := tree.ReadMemory(Token(absent), absent, nil)
		require.Equal(t, before, after, "absence is not cached")
		if !after {
			unsure++
		}
	}
	require.Positive(t, unsure)
}

// TestCacheOfDamage: copies of a table that is set aside go with it, although they
// were right: what the tree answers must not depend on what was read before.
func TestCacheOfDamage(t *testing.T) {
	disk, c := damagedDisk(t, 60)
	o := isolating(disk)
	o.pick = neverPick // a merge would meet the damage before the scrub
	tree := open(t, o)
	defer tree.Close()
	c.whole(t, "before", tree)
	require.NoError(t, disk.Corrupt(filesOf(t, disk, "db", ".table")[1], 50, 4))
	for k, want := range c { // from the cache; a scan would meet the damage
		requireGet(t, tree, []byte(k), want)
	}
	require.ErrorIs(t, tree.Scrub(context.Background()), ErrCorrupt)
	for c.truthful(t, "set aside", tree) == 0 { // perhaps in the background
		runtime.Gosched()
	}
}

// TestManyPurged purges more keys than are remembered one by one.
func TestManyPurged(t *testing.T) {
	s := nothingStale()
	for i := range uint64(maxStaleTokens) {
		s.add(i, 5, 6)
	}
	require.Len(t, s.tokens, maxStaleTokens)
	require.Greater(t, s.lo, s.hi)
	s.add(1, 5, 6)
	s.add(2, 5, 6)
	require.Equal(t, stale{lo: 5, hi: 6}, s)
}

// TestChangeBelow forgets what is stale, and nothing else.
func TestChangeBelow(t *testing.T) {
	o := small(vfs.NewMem(1))
	o.pick = neverPick
	tree := open(t, o)
	defer tree.Close()
	for i := range 100 {
		require.NoError(t, tree.Put(key(i), []byte("value")))
	}
	require.NoError(t, tree.Flush())
	held := func(i int) bool {
		_, ok := tree.cache.Get(Token(key(i)), key(i), nil)
		return ok
	}
	const lo, hi = math.MaxUint64 / 4, math.MaxUint64 / 2
	for name, c := range map[string]struct {
		s     stale
		stale func(i int) bool
	}{
		"nothing": {nothingStale(), func(int) bool { return false }},
		"tokens":  {stale{1, 0, []uint64{Token(key(5)), Token(key(7))}}, func(i int) bool { return i == 5 || i == 7 }},
		"a range": {stale{lo, hi, nil}, func(i int) bool { return lo <= Token(key(i)) && Token(key(i)) <= hi }},
	} {
		for i := range 100 {
			requireGet(t, tree, key(i), "value")
			require.True(t, held(i))
		}
		require.NoError(t, tree.changeBelow(c.s, func() error { return nil }))
		for i := range 100 {
			require.Equal(t, !c.stale(i), held(i), name)
		}
	}
}
