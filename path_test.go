package kvstore_test

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
)

// openThree opens three nodes on loopback sockets and real disks.
func openThree(t testing.TB, configure func(*kvstore.Options)) []*kvstore.DB {
	t.Helper()
	var dbs []*kvstore.DB
	var seeds []string
	for i := range 3 {
		o := &kvstore.Options{NodeID: fmt.Sprint("n", i), Listen: "127.0.0.1:0", Seeds: seeds, GossipInterval: 50 * time.Millisecond,
			MaxRequest: time.Minute} // for a disk that others keep busy
		if configure != nil {
			configure(o)
		}
		db := open(t, t.TempDir(), o)
		if i == 0 {
			s, err := db.Status(ctx)
			require.NoError(t, err)
			seeds = []string{s.Members[0].Addr}
		}
		dbs = append(dbs, db)
	}
	ready(t, dbs...)
	return dbs
}

// counters sums what the nodes did.
func counters(dbs []*kvstore.DB) (socketWrites, systemCalls uint64) {
	for _, db := range dbs {
		m := db.Metrics()
		socketWrites += m.Transport.Writes
		systemCalls += m.Transport.Writes + m.Transport.Reads + m.Engine.Groups + m.Engine.Syncs
	}
	return socketWrites, systemCalls
}

// each runs op n times in all from 64 callers spread over the nodes.
func each(t testing.TB, dbs []*kvstore.DB, n int, op func(db *kvstore.DB, i int) error) {
	t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for caller := range 64 {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				if err := op(dbs[caller%len(dbs)], i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestPathCost bounds what one synced put at Quorum costs three nodes together:
// socket writes, system calls for data (network and log), and allocations. These
// do not depend on how fast the machine is, only on how much is batched.
func TestPathCost(t *testing.T) {
	dbs := openThree(t, nil)
	value := make([]byte, 100)
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("key-%012d", i)
	}
	put := func(db *kvstore.DB, i int) error {
		_, err := db.Put(ctx, keys[i%len(keys)], value, kvstore.Quorum)
		return err
	}
	each(t, dbs, 5000, put) // pools fill
	const n = 20000
	writes, calls := counters(dbs)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	each(t, dbs, n, put)
	runtime.ReadMemStats(&after)
	writes2, calls2 := counters(dbs)
	perPut := func(d uint64) float64 { return float64(d) / n }
	t.Logf("per put: %.2f socket writes, %.2f system calls, %.2f allocations",
		perPut(writes2-writes), perPut(calls2-calls), perPut(after.Mallocs-before.Mallocs))
	if raceEnabled {
		return // goroutines run in another rhythm, and pools drop what they hold
	}
	require.Less(t, perPut(after.Mallocs-before.Mallocs), 6.0)
	require.Less(t, perPut(writes2-writes), 0.7)
	require.Less(t, perPut(calls2-calls), 3.0)
}

func BenchmarkPutQuorum(b *testing.B) {
	dbs := openThree(b, nil)
	value := make([]byte, 100)
	b.ReportAllocs()
	b.ResetTimer()
	each(b, dbs, b.N, func(db *kvstore.DB, i int) error {
		_, err := db.Put(ctx, fmt.Sprintf("key-%012d", i%100_000), value, kvstore.Quorum)
		return err
	})
}

func BenchmarkGetQuorum(b *testing.B) {
	dbs := openThree(b, nil)
	value := make([]byte, 100)
	each(b, dbs, 100_000, func(db *kvstore.DB, i int) error {
		_, err := db.Put(ctx, fmt.Sprintf("key-%012d", i%100_000), value, kvstore.All)
		return err
	})
	b.ReportAllocs()
	b.ResetTimer()
	each(b, dbs, b.N, func(db *kvstore.DB, i int) error {
		_, err := db.Get(ctx, fmt.Sprintf("key-%012d", i%100_000), kvstore.Quorum)
		return err
	})
}
