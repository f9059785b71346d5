package lsm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// ordered gives plain records of the content in the order of tokens and keys.
func (c content) ordered(stamp uint64) []Record {
	var all []Record
	for k, v := range c {
		d := vclock.Dot{Stamp: stamp, Actor: 9}
		all = append(all, Record{Token: Token([]byte(k)), Key: []byte(k), Min: d, Max: d, Kind: Value, Value: []byte(v)})
	}
	slices.SortFunc(all, func(a, b Record) int { return a.Compare(b.Token, b.Key) })
	return all
}

func (c content) without(lo, hi uint64) content {
	left := content{}
	for k, v := range c {
		if token := Token([]byte(k)); token < lo || hi < token {
			left[k] = v
		}
	}
	return left
}

// exactly requires that the tree has these keys and no others.
func (c content) exactly(t testing.TB, at string, tree *Tree) {
	t.Helper()
	require.Equal(t, "", c.diff(tree), at)
	for k, want := range c {
		got, ok, err := tree.Get([]byte(k))
		require.NoError(t, err, at)
		require.True(t, ok && want == string(got), "%s: get of %s", at, k)
	}
}

func (c content) diff(tree *Tree) string {
	seen := content{}
	for r, err := range tree.Scan(0, math.MaxUint64) {
		if err != nil {
			return err.Error()
		}
		seen[string(r.Key)] = string(r.Value)
	}
	if maps.Equal(c, seen) {
		return ""
	}
	return fmt.Sprintf("%d keys, want %d", len(seen), len(c))
}

const quarter = uint64(1) << 62

// TestDropRange tries every fault while a range is dropped that takes one slice
// and half of the other, from tables, memtable and log.
func TestDropRange(t *testing.T) {
	disk, c := damagedDisk(t, 60)
	x := ordeal{
		disk: disk, options: small,
		act: func(tree *Tree) error { return tree.DropRange(quarter, math.MaxUint64) },
		check: func(t testing.TB, at string, tree *Tree, done bool) {
			left := c.without(quarter, math.MaxUint64)
			if !done && left.diff(tree) != "" {
				left = c // not at all
			}
			left.exactly(t, at, tree)
		},
	}
	x.run(t)
}

// TestIngest tries every fault while records come in past the log.
func TestIngest(t *testing.T) {
	disk, c := damagedDisk(t, 60)
	more := content{}
	for i := 150; i < 250; i++ {
		more[string(key(i))] = "ingested"
	}
	x := ordeal{
		disk: disk, options: small,
		act: func(tree *Tree) error { return tree.Ingest(slices.Values(more.ordered(math.MaxUint64 >> 1))) },
		check: func(t testing.TB, at string, tree *Tree, done bool) {
			whole := c.plus(more)
			if !done && whole.diff(tree) != "" {
				whole = c
			}
			whole.exactly(t, at, tree)
		},
	}
	x.run(t)
}

func TestIngestRefuses(t *testing.T) {
	disk := vfs.NewMem(1)
	tree := open(t, small(disk))
	c := fill(t, tree, 0, 10)
	good := c.ordered(1 << 60)
	last := good[len(good)-1]
	for what, bad := range map[string][]Record{
		"order":  {good[1], good[0]},
		"twice":  {good[0], good[0]},
		"no key": {{Kind: Value, Min: last.Min, Max: last.Max}},
		"no dot": {good[0], {Token: last.Token, Key: last.Key, Kind: Value}},
	} {
		require.ErrorIs(t, tree.Ingest(slices.Values(bad)), ErrInvalid, what)
	}
	require.NoError(t, tree.Ingest(slices.Values([]Record(nil))))
	require.ErrorIs(t, tree.DropRange(2, 1), ErrInvalid)
	require.Empty(t, filesOf(t, disk, "db", ".table"), "what was refused leaves nothing")
	c.exactly(t, "", tree)
	require.NoError(t, tree.Close())
	require.ErrorIs(t, tree.Ingest(slices.Values(good)), ErrClosed)
	require.ErrorIs(t, tree.DropRange(0, 1), ErrClosed)
}

// TestCloseDuringIngest closes the tree between two records.
func TestCloseDuringIngest(t *testing.T) {
	disk := vfs.NewMem(1)
	tree := open(t, small(disk))
	closed := make(chan error, 1)
	records := fill(t, tree, 0, 50).ordered(1 << 60)
	err := tree.Ingest(func(yield func(Record) bool) {
		for i, r := range records {
			if i == 20 {
				go func() { closed <- tree.Close() }()
				<-tree.ending
			}
			if !yield(r) {
				return
			}
		}
	})
	require.ErrorIs(t, err, ErrClosed)
	require.NoError(t, <-closed)
	require.Empty(t, filesOf(t, disk, "db", ".table"))
}

// TestDropAndRefill compares with a model: batches, sorted runs and dropped ranges
// at random, with flushes, compactions and reopenings in between.
func TestDropAndRefill(t *testing.T) {
	rounds := sized(300, 12, 4)
	for seed := range uint64(rounds) {
		random := rand.New(rand.NewPCG(seed, 3))
		disk := vfs.NewMem(seed)
		o := small(disk)
		if seed%3 == 0 {
			o.CacheBytes = -1
		}
		tree := open(t, o)
		from := newWriter(seed, 40, 30)
		m := model{}
		for range 150 {
			switch random.IntN(12) {
			case 0:
				lo := random.Uint64()
				hi := lo + random.Uint64()>>random.IntN(4)
				if hi < lo {
					hi = math.MaxUint64
				}
				require.NoError(t, tree.DropRange(lo, hi))
				m = maps.Clone(m)
				maps.DeleteFunc(m, func(k string, _ vclock.Set) bool { return base.Span{Lo: lo, Hi: hi}.Contains(Token([]byte(k))) })
			case 1:
				b := from.run()
				require.NoError(t, tree.Ingest(slices.Values(b)))
				m = m.with(b)
			case 2:
				require.NoError(t, tree.Flush())
			case 3:
				require.NoError(t, tree.Compact(context.Background()))
				require.Empty(t, tree.manifest.State().Dropped, "a full compaction leaves nothing to hide")
			case 4:
				require.NoError(t, tree.Close())
				tree = open(t, o)
			default:
				b := from.batch()
				require.NoError(t, tree.Apply(b))
				m = m.with(b)
			}
			m.require(t, tree)
		}
		require.NoError(t, tree.Close())
	}
}

// run gives records of other actors in order, one of each key.
func (w *writer) run() []Record {
	byKey := map[string]Record{}
	for range 15 {
		if r := w.record(); string(r.Key[:3]) != "own" {
			byKey[string(r.Key)] = r
		}
	}
	all := slices.Collect(maps.Values(byKey))
	slices.SortFunc(all, func(a, b Record) int { return a.Compare(b.Token, b.Key) })
	return all
}

// TestDropIsAtomic scans, compacts and writes outside of the range while ranges
// are dropped and filled again: a scan sees all keys of the range or none.
func TestDropIsAtomic(t *testing.T) {
	tree := open(t, small(vfs.NewMem(1)))
	inside, outside := content{}, content{}
	for i := range 400 {
		if k := string(key(i)); Token([]byte(k)) < 2*quarter {
			inside[k] = "v"
		} else {
			outside[k] = "v"
		}
	}
	require.NoError(t, tree.Apply(outside.ordered(1)))
	var stop atomic.Bool
	var wg sync.WaitGroup
	run := func(f func() error) {
		wg.Go(func() {
			for !stop.Load() {
				if err := f(); err != nil && !errors.Is(err, ErrOverloaded) {
					t.Error(err)
					return
				}
			}
		})
	}
	scans := atomic.Int64{}
	run(func() error {
		n := 0
		for r, err := range tree.Scan(0, math.MaxUint64) {
			if err != nil {
				return err
			}
			if Token(r.Key) < 2*quarter {
				n++
			}
		}
		scans.Add(1)
		if n != 0 && n != len(inside) {
			return fmt.Errorf("a scan saw %d of %d keys", n, len(inside))
		}
		return nil
	})
	run(func() error { return tree.Compact(context.Background()) })
	stamp := uint64(2)
	run(func() error { return tree.Put(key(1_000_000), []byte("other")) })
	for scans.Load() < 60 {
		stamp++
		require.NoError(t, tree.Ingest(slices.Values(inside.ordered(stamp))))
		require.NoError(t, tree.DropRange(0, 2*quarter-1))
	}
	stop.Store(true)
	wg.Wait()
	require.NoError(t, tree.Close())
}
