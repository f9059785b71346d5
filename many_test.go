package kvstore_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/ring"
)

// TestBatchOrder: the writes of a batch to one key take effect in their order, however
// they are sent.
func TestBatchOrder(t *testing.T) {
	const keys = 30
	never := kvstore.Replaces(kvstore.Version{})
	for name, tt := range map[string]struct {
		resolver kvstore.Resolver
		session  bool
		fill     func(b *kvstore.Batch, key string)
		want     []string
	}{
		"causal delete last": {kvstore.KeepSiblings, false, func(b *kvstore.Batch, key string) { b.Put(key, []byte("a")); b.Delete(key) }, nil},
		"causal put last":    {kvstore.KeepSiblings, false, func(b *kvstore.Batch, key string) { b.Put(key, []byte("a")); b.Delete(key); b.Put(key, []byte("b")) }, []string{"b"}},
		"plain put last":     {kvstore.LastWriterWins, false, func(b *kvstore.Batch, key string) { b.Put(key, []byte("a"), never); b.Put(key, []byte("b")) }, []string{"b"}},
		"plain put first":    {kvstore.LastWriterWins, false, func(b *kvstore.Batch, key string) { b.Put(key, []byte("a")); b.Put(key, []byte("b"), never) }, []string{"b", "a"}},
		"session":            {kvstore.LastWriterWins, true, func(b *kvstore.Batch, key string) { b.Put(key, []byte("a")); b.Delete(key); b.Put(key, []byte("b")) }, []string{"b"}},
	} {
		t.Run(name, func(t *testing.T) {
			db := open(t, "", &kvstore.Options{Conflicts: tt.resolver})
			ready(t, db)
			ctx := ctx
			if tt.session {
				ctx = kvstore.WithSession(ctx)
			}
			var b kvstore.Batch
			for i := range keys {
				tt.fill(&b, fmt.Sprint("key", i))
			}
			require.NoError(t, db.Apply(ctx, &b))
			for i := range keys {
				it, err := db.Get(ctx, fmt.Sprint("key", i))
				require.Equal(t, tt.want == nil, errors.Is(err, kvstore.ErrNotFound))
				require.Equal(t, tt.want, values(it))
			}
		})
	}
}

// TestBatches: what Apply wrote GetMany reads, in the order of the keys, and it is
// what single calls see; both take one message to each node.
func TestBatches(t *testing.T) {
	dbs := openThree(t, nil)
	want := map[string]string{}
	draw := rand.New(rand.NewPCG(1, 1))
	var b kvstore.Batch
	for round := range 5 {
		b.Reset()
		for range 300 {
			key := fmt.Sprint("key", draw.IntN(500))
			if draw.IntN(4) == 0 {
				b.Delete(key)
				delete(want, key)
				continue
			}
			value := []byte(fmt.Sprint("value", draw.IntN(1000)))
			b.Put(key, value)
			want[key] = string(value)
			value[0] = '?' // copied
		}
		require.Equal(t, 300, b.Len())
		restamps, before := dbs[round%3].Metrics().Restamps, served(dbs)
		require.NoError(t, dbs[round%3].Apply(ctx, &b, kvstore.All)) // nothing is on its way when messages are counted
		for i, n := range served(dbs) {
			want := before[i] + 1
			if i == round%3 {
				want-- // its own share needs none
			}
			require.Equal(t, want, n, "messages to node %d", i)
		}
		require.Equal(t, restamps, dbs[round%3].Metrics().Restamps, "none was sent again")
		var keys []string
		for i := range 500 {
			keys = append(keys, fmt.Sprint("key", (i*7)%500))
		}
		before = served(dbs)
		items, err := dbs[(round+1)%3].GetMany(ctx, keys)
		require.NoError(t, err)
		for i, n := range served(dbs) {
			require.LessOrEqual(t, n, before[i]+1, "messages to node %d", i)
		}
		require.Len(t, items, len(keys))
		for i, it := range items {
			require.Equal(t, keys[i], it.Key)
			value, ok := want[it.Key]
			require.Equal(t, ok, it.Found(), it.Key)
			require.Equal(t, value, string(it.Value))
		}
		for i := range 20 {
			it, err := dbs[(round+2)%3].Get(ctx, keys[i])
			require.Equal(t, it.Found(), err == nil)
			require.Equal(t, want[keys[i]], string(it.Value))
		}
	}
	require.NoError(t, dbs[0].Apply(ctx, &kvstore.Batch{}))
	items, err := dbs[0].GetMany(ctx, nil)
	require.NoError(t, err)
	require.Empty(t, items)
}

// served counts the messages that read or wrote many keys, by the node that got them.
func served(dbs []*kvstore.DB) (n []uint64) {
	for _, db := range dbs {
		n = append(n, db.Metrics().ServedBatches)
	}
	return n
}

// TestBatchErrors: each key fails by itself, and the error tells which.
func TestBatchErrors(t *testing.T) {
	db := open(t, "", nil)
	ready(t, db)
	var b kvstore.Batch
	b.Put("good", []byte("1"))
	b.Put("", []byte("2"))
	b.Put("level", []byte("3"), kvstore.AtLeast(2))
	b.Put("large", make([]byte, 2<<20))
	b.Put("short", []byte("4"), kvstore.TTL(time.Microsecond))
	b.Put("twice", []byte("first"))
	b.Delete("good, too", kvstore.One)
	b.Put("twice", []byte("last"))
	b.Put("causal", []byte("5"), kvstore.Replaces(kvstore.Version{}))
	err := db.Apply(ctx, &b)
	var e *kvstore.BatchError
	require.ErrorAs(t, err, &e)
	require.ErrorIs(t, err, kvstore.ErrValueTooLarge)
	require.Equal(t, kvstore.Unknown, kvstore.OutcomeOf(err), "some were applied")
	require.Equal(t, 9, e.Of)
	var failed []int
	for _, f := range e.Failed {
		failed = append(failed, f.Index)
		require.Equal(t, kvstore.NotApplied, kvstore.OutcomeOf(f.Err))
	}
	require.Equal(t, []int{1, 2, 3, 4}, failed)
	require.Equal(t, "level", e.Failed[1].Key)
	items, err := db.GetMany(ctx, []string{"good", "", "twice", "causal", "none"})
	require.ErrorIs(t, err, kvstore.ErrInvalid)
	require.ErrorAs(t, err, &e)
	require.Len(t, e.Failed, 1)
	require.Equal(t, []string{"1", "", "last", "5", ""}, []string{string(items[0].Value), string(items[1].Value), string(items[2].Value), string(items[3].Value), string(items[4].Value)})

	b.Reset()
	for range kvstore.MaxBatch + 1 {
		b.Put("k", nil)
	}
	err = db.Apply(ctx, &b)
	require.ErrorIs(t, err, kvstore.ErrInvalid)
	require.Equal(t, kvstore.NotApplied, kvstore.OutcomeOf(err))
	_, err = db.GetMany(ctx, make([]string, kvstore.MaxBatch+1))
	require.ErrorIs(t, err, kvstore.ErrInvalid)
	b.Reset()
	for range 9 {
		b.Put("k", make([]byte, 1<<20))
	}
	require.ErrorIs(t, db.Apply(ctx, &b), kvstore.ErrInvalid)
}

// TestScan gives each key once, in the order of tokens, in parts, over a restart.
func TestScan(t *testing.T) {
	disk := vfs.NewMem(1)
	o := &kvstore.Options{FS: disk, MemoryBytes: 1 << 20}
	db, err := kvstore.Open("/node", o)
	require.NoError(t, err)
	ready(t, db)
	want := map[string]bool{}
	for i := range 3000 {
		key := fmt.Sprintf("%c/%d", 'a'+i%3, i)
		_, err := db.Put(ctx, key, fmt.Append(nil, i))
		require.NoError(t, err)
		if want[key] = true; i%5 == 0 {
			require.NoError(t, db.Delete(ctx, key))
			delete(want, key)
		}
	}
	var cursor kvstore.Cursor
	var got []string
	for part := 0; ; part++ {
		n := 0
		for it, err := range db.Scan(ctx, cursor) {
			require.NoError(t, err)
			require.True(t, it.Found())
			got = append(got, it.Key)
			cursor = it.Cursor()
			if n++; n == 500 {
				break
			}
		}
		if n == 0 {
			break
		}
		require.NoError(t, db.Close())
		db, err = kvstore.Open("/node", o)
		require.NoError(t, err)
		ready(t, db)
	}
	defer db.Close()
	require.Len(t, got, len(want))
	for i, key := range got {
		require.True(t, want[key])
		require.True(t, i == 0 || ring.Token(got[i-1]) <= ring.Token(key))
		delete(want, key)
	}
	n := 0
	for it, err := range db.Scan(ctx, kvstore.Prefix("b/"), kvstore.One) {
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(it.Key, "b/"))
		n++
	}
	require.Equal(t, 800, n)
	for _, err := range db.Scan(ctx, kvstore.AtLeast(3)) {
		require.ErrorIs(t, err, kvstore.ErrInvalid)
	}
}

// TestSimScan: a scan through any node gives all that was acknowledged, while one
// owner is away, and what a quorum has when owners differ.
func TestSimScan(t *testing.T) {
	few(t, 3, func(t *testing.T, seed uint64) {
		simulate(t, seed, &kvtest.Options{Nodes: 4}, func(c *kvtest.Cluster) {
			waitMembers(c, 4)
			c.Settle()
			for i := range 100 {
				put(c, i%4, fmt.Sprint("key", i), i)
			}
			c.Partition([]int{0})
			time.Sleep(20 * time.Second)
			for i := range 50 {
				put(c, 1+i%3, fmt.Sprint("key", i), 1000+i)
			}
			scan := func(node int) {
				got := map[string]string{}
				for it, err := range c.Node(node).Scan(ctx) {
					require.NoError(c.T, err)
					require.NotContains(c.T, got, it.Key)
					got[it.Key] = string(it.Value)
				}
				require.Len(c.T, got, 100)
				for i := range 100 {
					key, id := fmt.Sprint("key", i), i
					if i < 50 {
						id += 1000
					}
					require.Equal(c.T, string(check.Value(key, id, 80)), got[key])
				}
			}
			scan(2)
			var failed error
			for _, err := range c.Node(0).Scan(ctx) {
				failed = err
			}
			require.ErrorIs(c.T, failed, kvstore.ErrUnavailable)
			c.Heal()
			c.Settle()
			for i := range 4 {
				scan(i)
			}
			c.Crash(3)
			scan(1)
			c.Restart(3)
			c.Check()
		})
	})
}

// TestSimScanRestarts: a scan in parts, through one node after the other, while the node
// that scans or another one crashes or is closed in the middle of a part, and starts
// again. It gives each key once, in the order of tokens, though values change meanwhile.
func TestSimScanRestarts(t *testing.T) {
	few(t, 3, func(t *testing.T, seed uint64) {
		simulate(t, seed, nil, func(c *kvtest.Cluster) {
			waitMembers(c, 3)
			c.Settle()
			const keys = 3000 // several pages
			want := map[string]bool{}
			for i := range keys {
				key := fmt.Sprint("key", i)
				put(c, i%3, key, i)
				if want[key] = true; i%5 == 0 {
					require.NoError(c.T, c.Node(i%3).Delete(ctx, key))
					delete(want, key)
				}
			}
			var cursor kvstore.Cursor
			var got []string
			failed := 0
			for part := 0; ; part++ {
				n, down := 0, (part+part/3)%3 // the one that scans at times
				for it, err := range c.Node(part%3).Scan(ctx, cursor) {
					if err != nil {
						require.Equal(c.T, part%3, down, "%v", err)
						failed++
						break
					}
					got = append(got, it.Key)
					cursor = it.Cursor()
					if n++; n == 50 {
						if part%2 == 0 {
							c.Crash(down)
						} else {
							c.Stop(down)
						}
					}
					if n == 400 && down != part%3 {
						break
					}
				}
				if n == 0 {
					break
				}
				if !c.Node(down).Runs() {
					c.Restart(down)
				}
				c.Settle()
				put(c, part%3, got[0], keys+part)
				put(c, part%3, got[len(got)-1], keys+part)
			}
			require.NotZero(c.T, failed)
			require.Len(c.T, got, len(want))
			for i, key := range got {
				require.True(c.T, want[key], "%s is deleted, or comes again", key)
				require.True(c.T, i == 0 || ring.Token(got[i-1]) <= ring.Token(key))
				delete(want, key)
			}
			c.Check()
		})
	})
}

// TestSimBatches: batches and reads of many keys through all nodes while a storm
// rages. Of the keys that a client writes alone, by batches only, the last
// acknowledged value is there at the end, or a later one whose outcome is unknown;
// and what was read is judged like single reads.
func TestSimBatches(t *testing.T) {
	var total atomic.Int64
	kvtest.Seeds(t, 8, func(t *testing.T, seed uint64) {
		o := &kvtest.Options{Loss: []float64{0, 0.05}[seed%2], Duplicate: 0.02, Configure: func(_ int, o *kvstore.Options) { o.MaxRequest = time.Second }}
		simulate(t, seed, o, func(c *kvtest.Cluster) {
			c.Ready()
			const keys = 8
			var clients sync.WaitGroup
			over := make(chan struct{})
			leave := sync.OnceFunc(func() { close(over); clients.Wait() })
			defer leave()
			var may [4][keys]map[string]bool // what a key may hold at the end
			for client := range may {
				for k := range keys {
					may[client][k] = map[string]bool{"": true}
				}
				clients.Go(func() {
					draw := rand.New(rand.NewPCG(seed, uint64(client)))
					ctx := kvtest.WithClient(ctx, client)
					for i := 0; ; i++ {
						select {
						case <-over:
							return
						case <-time.After(time.Duration(draw.ExpFloat64() * float64(20*time.Millisecond))):
						}
						node := c.Node(draw.IntN(3))
						var some []string
						for k := range keys {
							some = append(some, fmt.Sprintf("c%dk%d", (client+draw.IntN(2))%4, k))
						}
						if draw.IntN(3) == 0 {
							_, _ = node.GetMany(ctx, some)
							continue
						}
						var b kvstore.Batch
						var index []int
						for k := range keys {
							if draw.IntN(2) == 0 {
								key := fmt.Sprintf("c%dk%d", client, k)
								b.Put(key, check.Value(key, i, 60))
								index = append(index, k)
							}
						}
						err := node.Apply(ctx, &b)
						for n, k := range index {
							value := string(check.Value(fmt.Sprintf("c%dk%d", client, k), i, 60))
							switch e := batchError(err, n); {
							case e == nil:
								may[client][k] = map[string]bool{value: true}
								total.Add(1)
							case kvstore.OutcomeOf(e) == kvstore.Unknown:
								may[client][k][value] = true
							}
						}
					}
				})
			}
			c.Storm(6 * time.Second)
			leave()
			c.Check()
			for client := range may {
				for k := range keys {
					it, err := c.Node(0).Get(ctx, fmt.Sprintf("c%dk%d", client, k))
					for try := 0; try < 20 && kvstore.Retryable(err); try++ { // messages are lost still
						it, err = c.Node(0).Get(ctx, fmt.Sprintf("c%dk%d", client, k))
					}
					require.True(c.T, err == nil || errors.Is(err, kvstore.ErrNotFound), "%v", err)
					require.True(c.T, may[client][k][string(it.Value)], "c%dk%d: %.40s of %v", client, k, it.Value, may[client][k])
				}
			}
		})
	})
	t.Log(total.Load(), "writes acknowledged")
	require.True(t, testing.Short() || total.Load() > 0)
}

// batchError is the error of the i-th operation.
func batchError(err error, i int) error {
	var e *kvstore.BatchError
	if !errors.As(err, &e) {
		return err
	}
	for _, f := range e.Failed {
		if f.Index == i {
			return f.Err
		}
	}
	return nil
}

// TestOptionsCostNothing: a call with constant options allocates no more than one
// without.
func TestOptionsCostNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("pools drop what they hold under the race detector")
	}
	db := open(t, "", nil)
	ready(t, db)
	value := []byte("value")
	_, err := db.Put(ctx, "k", value)
	require.NoError(t, err)
	get := func(opts ...kvstore.GetOption) func() {
		return func() { _, _ = db.Get(ctx, "k", opts...) }
	}
	bare := testing.AllocsPerRun(500, get())
	with := testing.AllocsPerRun(500, func() { _, _ = db.Get(ctx, "k", kvstore.One) })
	require.LessOrEqual(t, with, bare)
	bare = testing.AllocsPerRun(500, func() { _, _ = db.Put(ctx, "k", value) })
	with = testing.AllocsPerRun(500, func() { _, _ = db.Put(ctx, "k", value, kvstore.One, kvstore.TTL(time.Hour)) })
	require.LessOrEqual(t, with, bare)
}
