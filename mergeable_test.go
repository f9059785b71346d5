package kvstore_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/crdt"
	"example.com/kvstore/kvtest"
)

// TestMergeable: counters, sets and maps on one node, from nothing through Delete to
// nothing.
func TestMergeable(t *testing.T) {
	db := open(t, "", nil)
	ready(t, db)
	n := db.Counter("n")
	require.Equal(t, int64(0), value(t, n))
	require.NoError(t, n.Add(ctx, 5))
	require.NoError(t, n.Add(ctx, -7, kvstore.RequestID("r"), kvstore.All))
	require.NoError(t, n.Add(ctx, -7, kvstore.RequestID("r")))
	require.Equal(t, int64(-2), value(t, n))
	require.NoError(t, db.Delete(ctx, "n"))
	require.Equal(t, int64(0), value(t, n))
	require.NoError(t, n.Add(ctx, 1))
	require.Equal(t, int64(1), value(t, n))

	require.NoError(t, kvstore.Forget(db, "n"))
	require.NoError(t, n.Add(ctx, 2))
	require.Equal(t, int64(2), value(t, n), "what was deleted and forgotten stays away")

	s := db.Set("s")
	require.Empty(t, elements(t, s))
	require.NoError(t, s.Update(ctx, []string{"b", "a", "c"}, []string{"a", "z"}))
	require.NoError(t, s.Remove(ctx, "b"))
	require.NoError(t, s.Add(ctx, ""))
	require.Equal(t, []string{"", "a", "c"}, elements(t, s))
	there, err := s.Contains(ctx, "c", kvstore.One)
	require.NoError(t, err)
	require.True(t, there)

	m := db.Map("m")
	require.NoError(t, m.Counter("x").Add(ctx, 3))
	require.NoError(t, m.Set("x").Add(ctx, "e"))
	_, err = m.Register("x").Value(ctx)
	require.ErrorIs(t, err, kvstore.ErrNotFound)
	require.NoError(t, m.Register("x").Put(ctx, []byte("v")))
	require.NoError(t, m.Register("x").Put(ctx, []byte("w")))
	v, err := m.Register("x").Value(ctx)
	require.NoError(t, err)
	require.Equal(t, "w", string(v))
	require.NoError(t, m.Remove(ctx, crdt.Field{Name: "x", Kind: crdt.CounterKind}))
	require.Equal(t, int64(0), value(t, m.Counter("x")))
	state, err := m.State(ctx)
	require.NoError(t, err)
	require.Equal(t, []crdt.Field{{Name: "x", Kind: crdt.SetKind}, {Name: "x", Kind: crdt.RegisterKind}}, state.Fields())
	require.Equal(t, []string{"e"}, elements(t, m.Set("x")))
}

// TestMergeableErrors: what is refused leaves nothing behind, and says what it met.
func TestMergeableErrors(t *testing.T) {
	dbs := openThree(t, func(o *kvstore.Options) { o.MaxValueBytes = 1000 })
	// Whoever is asked, the first owner answers.
	for i, db := range dbs {
		key := func(s string) string { return fmt.Sprint(s, i) }
		refused := func(err, is error) {
			t.Helper()
			require.ErrorIs(t, err, is)
			require.Equal(t, kvstore.NotApplied, kvstore.OutcomeOf(err))
			require.False(t, kvstore.Retryable(err))
		}
		_, err := db.Put(ctx, key("plain"), []byte("text"))
		require.NoError(t, err)
		require.NoError(t, db.Counter(key("n")).Add(ctx, math.MaxInt64))
		require.NoError(t, db.Set(key("s")).Add(ctx, "e"))

		refused(db.Counter(key("plain")).Add(ctx, 1), kvstore.ErrWrongType)
		refused(db.Set(key("n")).Add(ctx, "e"), kvstore.ErrWrongType)
		refused(db.Map(key("s")).Counter("n").Add(ctx, 1), kvstore.ErrWrongType)
		_, err = db.Counter(key("plain")).Value(ctx)
		refused(err, kvstore.ErrWrongType)
		_, err = db.Set(key("n")).Elements(ctx)
		refused(err, kvstore.ErrWrongType)
		require.ErrorContains(t, err, "a counter, not a set")

		refused(db.Counter(key("n")).Add(ctx, 1), kvstore.ErrOverflow)
		require.Equal(t, int64(math.MaxInt64), value(t, db.Counter(key("n"))))
		refused(db.Set(key("s")).Add(ctx, strings.Repeat("x", crdt.MaxNameBytes+1)), kvstore.ErrInvalid)
		refused(db.Set(key("s")).Add(ctx, strings.Repeat("x", 1000)), kvstore.ErrValueTooLarge)
		refused(db.Set(key("s")).Update(ctx, nil, []string{strings.Repeat("x", 1000)}), kvstore.ErrValueTooLarge)
		refused(db.Map(key("m")).Register("r").Put(ctx, make([]byte, 1000)), kvstore.ErrValueTooLarge)
		refused(db.Counter(key("n")).Add(ctx, 1, kvstore.RequestID(strings.Repeat("x", crdt.MaxRequestBytes+1))), kvstore.ErrInvalid)
		refused(db.Map(key("m")).Remove(ctx, crdt.Field{Name: "f"}), kvstore.ErrInvalid)
		refused(db.Counter("").Add(ctx, 1), kvstore.ErrInvalid)
		require.Equal(t, []string{"e"}, elements(t, db.Set(key("s"))))

		// A plain Put replaces a counter, like any value; Delete makes room for one.
		_, err = db.Put(ctx, key("n"), []byte("text"))
		require.NoError(t, err)
		refused(db.Counter(key("n")).Add(ctx, -1), kvstore.ErrWrongType)
		require.NoError(t, db.Delete(ctx, key("n")))
		require.NoError(t, db.Counter(key("n")).Add(ctx, -1))
		require.Equal(t, int64(-1), value(t, db.Counter(key("n"))))
	}
}

// TestMergeableTogether: many callers through all nodes; everything counts, and reads
// of whatever kind show it.
func TestMergeableTogether(t *testing.T) {
	dbs := openThree(t, func(o *kvstore.Options) {
		o.Conflicts = kvstore.MergeFunc(func(a, b []byte) []byte { panic("called for what merges by itself") })
	})
	const callers, each = 6, 20
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			s := kvstore.WithSession(ctx)
			for i := range each {
				db := dbs[(caller+i)%3]
				for _, err := range []error{
					db.Counter("n").Add(s, 1),
					db.Map("m").Counter("n").Add(s, 1, kvstore.RequestID(fmt.Sprint(caller, i))),
					db.Set("s").Update(s, []string{fmt.Sprint(caller, " ", i)}, []string{fmt.Sprint(caller, " ", i-1)}),
				} {
					if err != nil {
						t.Error(err)
					}
				}
				if all, err := db.Set("s").Contains(s, fmt.Sprint(caller, " ", i), kvstore.One); err != nil || !all {
					t.Error("a session does not see what it added", err)
				}
			}
		})
	}
	wg.Wait()
	keys := []string{"m", "n", "s"}
	for _, db := range dbs {
		require.Equal(t, int64(callers*each), value(t, db.Counter("n")))
		require.Equal(t, int64(callers*each), value(t, db.Map("m").Counter("n")))
		require.Len(t, elements(t, db.Set("s")), callers)
		many, err := db.GetMany(ctx, keys)
		require.NoError(t, err)
		i := 0
		for it, err := range db.Scan(ctx) {
			require.NoError(t, err)
			require.Contains(t, keys, it.Key)
			s, err := crdt.Decode(it.Value)
			require.NoError(t, err)
			require.NotZero(t, s.Kind())
			i++
		}
		require.Equal(t, len(keys), i)
		for _, it := range many {
			s, err := crdt.Decode(it.Value)
			require.NoError(t, err)
			if it.Key == "n" {
				n, err := s.Count()
				require.NoError(t, err)
				require.Equal(t, int64(callers*each), n)
			}
		}
	}
}

// TestMergeableLaws: the merge of encoded values is fit for replicas, as a merge function
// of an application has to be.
func TestMergeableLaws(t *testing.T) {
	db := open(t, "", nil)
	ready(t, db)
	var pool [][]byte
	draw := rand.New(rand.NewPCG(1, 1))
	for i := range 60 {
		key := fmt.Sprint(i % 3)
		require.NoError(t, db.Set(key).Update(ctx, []string{fmt.Sprint(draw.IntN(4))}, []string{fmt.Sprint(draw.IntN(4))}))
		it, err := db.Get(ctx, key)
		require.NoError(t, err)
		pool = append(pool, it.Value)
	}
	kvtest.CheckMerge(t, func(a, b []byte) []byte {
		m, err := crdt.MergeEncoded(a, b)
		if err != nil {
			panic(err)
		}
		return m
	}, func(r *rand.Rand) []byte { return pool[r.IntN(len(pool))] })
}

func value(t testing.TB, c kvstore.Counter, opts ...kvstore.GetOption) int64 {
	t.Helper()
	n, err := c.Value(ctx, opts...)
	require.NoError(t, err)
	return n
}

func elements(t testing.TB, s kvstore.Set, opts ...kvstore.GetOption) []string {
	t.Helper()
	all, err := s.Elements(ctx, opts...)
	require.NoError(t, err)
	return all
}

// errGone says that a node went down during a call: whether it did anything is not known.
var errGone = errors.New("the node crashed")

// try makes a call of a node that may be down, or crash before it answers.
func try(c *kvtest.Cluster, node int, call func(db *kvstore.DB) error) error {
	db := c.Node(node).DB()
	if db == nil {
		return kvtest.ErrDown
	}
	err := call(db)
	if c.Node(node).DB() != db {
		return errGone
	}
	return err
}

// insist reads from a node, again where messages are lost.
func insist[T any](c *kvtest.Cluster, node int, read func(db *kvstore.DB) (T, error)) T {
	c.T.Helper()
	for deadline := c.Now() + time.Minute; ; time.Sleep(100 * time.Millisecond) {
		v, err := read(c.Node(node).DB())
		if err == nil {
			return v
		}
		require.True(c.T, kvstore.Retryable(err) && c.Now() < deadline, "%v", err)
	}
}

// mergeableStorm has clients change things through all nodes while a storm rages,
// as do says, and once more each what did not succeed, until it does.
func mergeableStorm(t *testing.T, seed uint64, d time.Duration, set func(*kvstore.Options), clients int, do func(c *kvtest.Cluster, client, i int, draw *rand.Rand) (call func(db *kvstore.DB) error), check func(c *kvtest.Cluster)) {
	o := &kvtest.Options{Nodes: 3 + int(seed%3), Loss: []float64{0, 0.02, 0.1}[seed%3], Duplicate: 0.02, Configure: func(_ int, o *kvstore.Options) {
		o.MaxRequest, o.MemoryBytes = 2*time.Second, 1<<20
		if set != nil {
			set(o)
		}
	}}
	simulate(t, seed, o, func(c *kvtest.Cluster) {
		c.Ready()
		waitMembers(c, o.Nodes)
		var wg sync.WaitGroup
		over := make(chan struct{})
		for client := range clients {
			wg.Go(func() {
				draw := rand.New(rand.NewPCG(c.Seed, uint64(client)))
				pause := func() { time.Sleep(time.Duration(draw.ExpFloat64() * float64(100*time.Millisecond))) }
				for i := 0; ; i++ {
					select {
					case <-over:
						return
					default:
					}
					pause()
					call := do(c, client, i, draw)
					for try(c, draw.IntN(o.Nodes), call) != nil {
						pause()
					}
				}
			})
		}
		c.Storm(d)
		close(over)
		wg.Wait()
		c.Settle()
		check(c)
	})
}
