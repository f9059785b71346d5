package kvstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/ring"
)

// causalCrowd lets n clients read, write and delete causally, and now and then
// plainly, until the returned function is called. Each remembers the last version
// it saw of each key.
func causalCrowd(c *kvtest.Cluster, n int, plain bool) (leave func()) {
	var clients sync.WaitGroup
	over := make(chan struct{})
	for client := range n {
		clients.Go(func() {
			draw := rand.New(rand.NewPCG(c.Seed, uint64(client)))
			ctx := kvtest.WithClient(ctx, client)
			versions := map[string]kvstore.Version{}
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				case <-time.After(time.Duration(draw.ExpFloat64() * float64(10*time.Millisecond))):
				}
				node := c.Node(draw.IntN(len(c.Nodes())))
				key := fmt.Sprint("key", draw.IntN(4))
				value := check.Value(key, client<<20|i, 40+draw.IntN(200))
				switch p := draw.IntN(100); {
				case p < 35:
					if it, err := node.Get(ctx, key); err == nil || errors.Is(err, kvstore.ErrNotFound) {
						versions[key] = it.Version
					}
				case p < 75:
					if v, err := node.Put(ctx, key, value, kvstore.Replaces(versions[key])); err == nil {
						versions[key] = v
					}
				case p < 82:
					_ = node.Delete(ctx, key, kvstore.Replaces(versions[key]))
				case p < 94:
					again := 0
					it, err := node.Update(ctx, key, func(kvstore.Item) ([]byte, error) {
						again++
						return check.Value(key, client<<20|i|again<<40, 60), nil
					})
					if err == nil {
						versions[key] = it.Version
					}
				case plain:
					if v, err := node.Put(ctx, key, value); err == nil {
						versions[key] = v
					}
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(over); clients.Wait() })
}

// causalStorm judges a history of causal writes under faults.
func causalStorm(t *testing.T, seed uint64, d time.Duration, set func(*kvstore.Options)) (violations []check.Violation) {
	r, plain := kvstore.KeepSiblings, false
	if seed%2 == 0 {
		r, plain = kvstore.LastWriterWins, true
	}
	o := &kvtest.Options{Nodes: 3 + int(seed%2), Loss: []float64{0, 0.02, 0.1}[seed%3], Duplicate: 0.02, Configure: func(_ int, o *kvstore.Options) {
		o.MaxRequest, o.Conflicts = 2*time.Second, r
		o.MemoryBytes = 1 << 20
		if set != nil {
			set(o)
		}
	}}
	simulate(t, seed, o, func(c *kvtest.Cluster) {
		c.Ready()
		leave := causalCrowd(c, 5, plain)
		defer leave()
		c.Storm(d)
		leave()
		violations = c.Violations()
	})
	return violations
}

// TestSimCausalMixed: causal writes, plain ones between them, and updates, through
// all nodes while a storm rages. No acknowledged value is lost unless somebody who
// had seen it wrote, none that was replaced is back, and reads go forward.
//
//	go test -run TestSimCausalMixed -seeds 1000
func TestSimCausalMixed(t *testing.T) {
	kvtest.Seeds(t, 16, func(t *testing.T, seed uint64) {
		for _, v := range causalStorm(t, seed, 8*time.Second, nil) {
			t.Error(v)
		}
	})
}

// TestSimCausalNotShadowed: a plain write is acknowledged by two nodes whose clocks
// are ahead; a causal one that begins afterwards at a third node, which has not
// heard of it, is not lost below it.
func TestSimCausalNotShadowed(t *testing.T) {
	for _, restamp := range []bool{true, false} {
		t.Run(fmt.Sprint("restamp ", restamp), func(t *testing.T) {
			defer func(d bool) { kvstore.Defences.Restamp = d }(kvstore.Defences.Restamp)
			kvstore.Defences.Restamp = restamp
			simulate(t, 1, nil, func(c *kvtest.Cluster) {
				c.Ready()
				c.Skew(0, -200*time.Millisecond)
				c.Skew(1, 200*time.Millisecond)
				c.Skew(2, 200*time.Millisecond)
				c.Cut(1, 0)
				c.Cut(2, 0)
				put(c, 1, "k", 1)
				c.Heal()
				time.Sleep(time.Millisecond)
				_, err := c.Node(0).Put(ctx, "k", check.Value("k", 2, 80), kvstore.Replaces(kvstore.Version{}))
				require.NoError(c.T, err)
				broken := len(c.Violations()) > 0
				require.Equal(c.T, !restamp, broken)
			})
		})
	}
}

// TestSimAlternateWriters: two clients write in turns, each with what its own last
// write gave it. There are never more siblings than clients, and one write that
// has seen both leaves one (C5).
func TestSimAlternateWriters(t *testing.T) {
	for _, spread := range []bool{false, true} {
		t.Run(fmt.Sprint("through all nodes ", spread), func(t *testing.T) {
			simulate(t, 1, &kvtest.Options{Nodes: 4}, func(c *kvtest.Cluster) {
				c.Ready()
				var versions [2]kvstore.Version
				for i := range 2000 {
					node := c.Node(0)
					if spread {
						node = c.Node(i % 4)
					}
					client := i % 2
					v, err := node.Put(kvtest.WithClient(ctx, client), "k", check.Value("k", i, 80), kvstore.Replaces(versions[client]))
					require.NoError(c.T, err)
					versions[client] = v
					if i%20 < 2 {
						it, err := c.Node((i+1)%4).Get(ctx, "k")
						require.NoError(c.T, err)
						require.LessOrEqual(c.T, len(it.Siblings()), 2)
					}
				}
				it, err := c.Node(1).Get(ctx, "k")
				require.NoError(c.T, err)
				require.Len(c.T, it.Siblings(), 2)
				_, err = c.Node(2).Put(ctx, "k", check.Value("k", 2001, 80), kvstore.Replaces(it.Version))
				require.NoError(c.T, err)
				it, err = c.Node(3).Get(ctx, "k")
				require.NoError(c.T, err)
				require.Nil(c.T, it.Siblings())
				c.Check()
			})
		})
	}
}

// TestSimTooManySiblings: blind writers make siblings up to the limit, one for
// each write that was acknowledged; beyond it they are refused, nothing is lost,
// and one write that has seen them all clears the way.
func TestSimTooManySiblings(t *testing.T) {
	o := &kvtest.Options{Configure: func(_ int, o *kvstore.Options) { o.Conflicts = kvstore.KeepSiblings }}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		c.Ready()
		acked, refused := map[string]bool{}, 0
		for round := range 3 {
			var mu sync.Mutex
			var writers sync.WaitGroup
			for w := range 50 {
				writers.Go(func() {
					id := round*50 + w
					_, err := c.Node(w%3).Put(kvtest.WithClient(ctx, w), "k", check.Value("k", id, 80))
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil:
						acked[string(check.Value("k", id, 80))] = true
					case errors.Is(err, kvstore.ErrTooManySiblings):
						require.Equal(c.T, kvstore.NotApplied, kvstore.OutcomeOf(err))
						require.False(c.T, kvstore.Retryable(err))
						refused++
					default:
						c.T.Error(err)
					}
				})
			}
			writers.Wait()
			it, err := c.Node(round).Get(ctx, "k")
			require.NoError(c.T, err)
			require.Len(c.T, it.Siblings(), len(acked))
			for _, s := range it.Siblings() {
				require.True(c.T, acked[string(s.Value)])
			}
			if round == 0 {
				require.Len(c.T, acked, 50)
			}
		}
		require.GreaterOrEqual(c.T, len(acked), kvstore.MaxSiblings)
		require.NotZero(c.T, refused)
		it, err := c.Node(0).Get(ctx, "k")
		require.NoError(c.T, err)
		_, err = c.Node(1).Put(ctx, "k", check.Value("k", 1000, 80), kvstore.Replaces(it.Version))
		require.NoError(c.T, err)
		_, err = c.Node(2).Put(ctx, "k", check.Value("k", 1001, 80))
		require.NoError(c.T, err)

		// Bytes count as well, but never against a value that stays alone.
		big := func(id int) []byte { return check.Value("big", id, 700<<10) }
		v, err := c.Node(0).Put(ctx, "big", big(1))
		require.NoError(c.T, err)
		_, err = c.Node(0).Put(ctx, "big", big(2))
		require.ErrorIs(c.T, err, kvstore.ErrTooManySiblings)
		_, err = c.Node(0).Put(ctx, "big", big(3), kvstore.Replaces(v))
		require.NoError(c.T, err)
		c.Check()
	})
}

// TestSimCounterReuse is kv679 (C3): a node that coordinated causal writes loses some of
// them: what its disk had not synced, the last records of its log, a table, a block of
// one, or all since an older copy of its directory. What it writes afterwards with no
// version, an old one or a fresh one, before anything is repaired, hides nothing that was
// acknowledged: also if the node does not know that it lost something. With the actor of
// its former life it does then; what the engine misses it does not take for nothing, so
// another owner coordinates.
func TestSimCounterReuse(t *testing.T) {
	const writes = 5
	type loss struct {
		name  string
		sync  kvstore.SyncPolicy
		table bool // all is in one before, and the engine knows that it misses something
		lose  func(c *kvtest.Cluster, old *vfs.Mem)
	}
	for _, loss := range []loss{
		{"what was not synced", kvstore.SyncNever, false, func(*kvtest.Cluster, *vfs.Mem) {}},
		{"the end of the log", kvstore.SyncAlways, false, func(c *kvtest.Cluster, _ *vfs.Mem) {
			name, off := find(c, 1, check.Value("k", 1+int(c.Seed/3)%(writes-1), 80))
			erase(c, 1, name, off, 1<<20)
		}},
		{"a table", kvstore.SyncAlways, true, func(c *kvtest.Cluster, _ *vfs.Mem) {
			name, _ := find(c, 1, check.Value("k", 1, 80))
			require.NoError(c.T, c.Node(1).Disk().Remove(name))
			require.NoError(c.T, c.Node(1).Disk().SyncDir(path.Dir(name)))
		}},
		{"a block", kvstore.SyncAlways, true, func(c *kvtest.Cluster, _ *vfs.Mem) {
			name, off := find(c, 1, check.Value("k", 1, 80))
			erase(c, 1, name, off&^4095, 4096)
		}},
		{"all since an older copy", kvstore.SyncAlways, false, func(c *kvtest.Cluster, old *vfs.Mem) { c.PutDisk(1, old) }},
	} {
		for _, tt := range []struct {
			name           string
			fresh, backups bool
		}{{"all defences", true, true}, {"fresh actors alone", true, false}, {"none", false, false}} {
			t.Run(loss.name+", "+tt.name, func(t *testing.T) {
				if !tt.backups {
					off(t, &kvstore.Defences.Lapse)
					off(t, &kvstore.Defences.OldCopy)
					off(t, &kvstore.Defences.Incomplete)
				}
				if !tt.fresh {
					off(t, &kvstore.Defences.FreshActors)
				}
				broken := 0
				for seed := uint64(1); seed <= 12; seed++ {
					o := &kvtest.Options{Configure: func(_ int, o *kvstore.Options) { o.Sync = loss.sync }}
					simulate(t, seed, o, func(c *kvtest.Cluster) {
						c.Ready()
						var stale kvstore.Version
						var old *vfs.Mem
						for id := range writes {
							v, err := c.Node(1).Put(ctx, "k", check.Value("k", id, 80), kvstore.Replaces(kvstore.Version{}))
							require.NoError(c.T, err)
							if id == 1 {
								stale, old = v, c.Node(1).Disk().CrashSynced()
							}
						}
						if loss.table {
							flush(c, 1)
						}
						c.Crash(1)
						loss.lose(c, old)
						c.Restart(1)
						c.Ready()
						seen := kvstore.Version{}
						switch seed % 3 {
						case 1:
							seen = stale
						case 2:
							it, err := c.Node(0).Get(ctx, "k")
							require.NoError(c.T, err)
							seen = it.Version
						}
						_, err := c.Node(1).Put(ctx, "k", check.Value("k", 100, 80), kvstore.Replaces(seen))
						require.NoError(c.T, err)
						violations := slices.DeleteFunc(c.Violations(), func(v check.Violation) bool { return !tt.backups && v.Rule != "K1" })
						if len(violations) > 0 {
							broken++
							require.False(c.T, tt.fresh || loss.table, "%v", violations[0])
						}
					})
				}
				require.Equal(t, !tt.fresh && !loss.table, broken > 0)
			})
		}
	}
}

// find gives the file of a node, and the place in it, where a value is.
func find(c *kvtest.Cluster, node int, value []byte) (name string, off int64) {
	c.T.Helper()
	dir := kvstore.DataDir("/node")
	names, err := c.Node(node).Disk().List(dir)
	require.NoError(c.T, err)
	for _, n := range names {
		if off := bytes.Index(read(c, c.Node(node).Disk(), path.Join(dir, n)), value); off >= 0 {
			return path.Join(dir, n), int64(off)
		}
	}
	c.T.Fatalf("node %d has %.20s in none of %v", node, value, names)
	return "", 0
}

// erase has zeros for n bytes of a file, or as many as there are.
func erase(c *kvtest.Cluster, node int, name string, off, n int64) {
	c.T.Helper()
	f, err := c.Node(node).Disk().OpenReadWrite(name)
	require.NoError(c.T, err)
	size, err := f.Size()
	require.NoError(c.T, err)
	_, err = f.WriteAt(make([]byte, min(n, size-off)), off)
	require.NoError(c.T, err)
	require.NoError(c.T, f.Sync())
	require.NoError(c.T, f.Close())
}

// TestSimCausalNoSpace: an owner whose volume is full sends nothing of a causal
// write that it could not store; another owner coordinates it (causal-chain). If it
// sent it all the same, its next ones would hide it.
func TestSimCausalNoSpace(t *testing.T) {
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprint("stored before it is sent ", first), func(t *testing.T) {
			defer func(d bool) { kvstore.Defences.SyncFirst = d }(kvstore.Defences.SyncFirst)
			kvstore.Defences.SyncFirst = first
			var s sick
			simulate(t, 1, &kvtest.Options{Configure: s.disk(1)}, func(c *kvtest.Cluster) {
				waitMembers(c, 3)
				c.Settle()
				write := func(id int) {
					_, err := c.Node(1).Put(ctx, "k", check.Value("k", id, 80), kvstore.Replaces(kvstore.Version{}))
					require.NoError(c.T, err)
				}
				write(0)
				s.full.Store(true)
				for id := 1; id < 5; id++ {
					write(id)
				}
				if first {
					require.NotZero(c.T, c.Node(1).DB().Metrics().Forwards)
				}
				s.full.Store(false)
				time.Sleep(time.Second)
				for id := 5; id < 10; id++ {
					write(id)
				}
				it, err := c.Node(0).Get(ctx, "k")
				require.NoError(c.T, err)
				require.Equal(c.T, first, len(it.Siblings()) == 10)
				require.Equal(c.T, first, len(c.Violations()) == 0)
			})
		})
	}
}

// TestSimCausalTurns: causal writes that come together at one coordinator take
// turns, or one would hide the other.
func TestSimCausalTurns(t *testing.T) {
	for _, turns := range []bool{true, false} {
		t.Run(fmt.Sprint("one after the other ", turns), func(t *testing.T) {
			defer func(d bool) { kvstore.Defences.KeyLocks = d }(kvstore.Defences.KeyLocks)
			kvstore.Defences.KeyLocks = turns
			simulate(t, 1, nil, func(c *kvtest.Cluster) {
				c.Ready()
				var writers sync.WaitGroup
				for w := range 20 {
					writers.Go(func() {
						_, err := c.Node(0).Put(kvtest.WithClient(ctx, w), "k", check.Value("k", w, 80), kvstore.Replaces(kvstore.Version{}))
						require.NoError(c.T, err)
					})
				}
				writers.Wait()
				require.Equal(c.T, turns, len(c.Violations()) == 0)
			})
		})
	}
}

// TestSimCoordinatorDies (C11): the coordinator of a write, plain or causal, an owner or
// not, or the owner that a causal write was handed to, loses its power in the place of
// the i-th message that it sends or change or sync of its disk, for every i, and when
// it has answered. What was acknowledged is there; what was not may be there, and once
// it was read at Quorum it stays.
func TestSimCoordinatorDies(t *testing.T) {
	for _, tt := range []struct {
		name            string
		causal          bool
		caller, crashes int // owners by their places; 3 is none
		least           int // steps
		unseen          bool
	}{
		{"plain, at an owner", false, 1, 1, 4, false}, // two messages, the log written and synced
		{"plain, elsewhere", false, 3, 3, 3, false},
		{"causal, at an owner", true, 1, 1, 4, false},
		{"causal, handed on", true, 3, 3, 1, true},
		{"causal, at the owner that has it from another node", true, 3, 0, 5, false}, // and the answer
	} {
		t.Run(tt.name, func(t *testing.T) {
			few(t, 3, func(t *testing.T, seed uint64) {
				steps, there := 0, 0
				for over := false; !over; steps++ {
					simulate(t, seed, &kvtest.Options{Nodes: 4}, func(c *kvtest.Cluster) {
						waitMembers(c, 4)
						c.Settle()
						key := keyOf(c.Node(0).DB(), "n0", "n1", "n2")
						nodes := append(ownersOf(c, key), 3)
						base := put(c, nodes[0], key, 0)
						var opts []kvstore.PutOption
						if tt.causal {
							opts = append(opts, kvstore.Replaces(base))
						}
						time.Sleep(time.Millisecond)
						off, done := c.CrashAt(nodes[tt.crashes], steps+1), make(chan struct{})
						var err error
						go func() {
							defer close(done)
							_, err = c.Node(nodes[tt.caller]).Put(ctx, key, check.Value(key, 1, 80), opts...)
						}()
						select {
						case <-off:
						case <-done:
							require.NoError(c.T, err)
							over = true
						}
						c.Crash(nodes[tt.crashes])
						<-done
						for range 3 {
							for i, n := range nodes {
								if i == tt.crashes {
									continue
								}
								it, e := c.Node(n).Get(ctx, key)
								require.NoError(c.T, e)
								if err != nil && string(it.Value) == string(check.Value(key, 1, 80)) {
									there++
								}
							}
						}
						c.Restart(nodes[tt.crashes])
						c.Check()
					})
				}
				t.Logf("%d steps; %d reads saw what was not acknowledged", steps-1, there)
				require.Equal(t, tt.unseen, there == 0)
				require.GreaterOrEqual(t, steps-1, tt.least)
			})
		})
	}
}

// TestSimForwardedOutcomes: what a node says of a causal write that it forwards is
// true, whatever is cut.
func TestSimForwardedOutcomes(t *testing.T) {
	outcomes := map[kvstore.Outcome]int{}
	for cut := range 16 {
		simulate(t, uint64(cut+1), &kvtest.Options{Nodes: 4, Configure: func(_ int, o *kvstore.Options) { o.MaxRequest = time.Second }}, func(c *kvtest.Cluster) {
			c.Ready()
			waitMembers(c, 4)
			c.Settle()
			key := keyOf(c.Node(3).DB(), "n0", "n1", "n2")
			first := ownersOf(c, key)[0]
			put(c, first, key, 0)
			for bit, link := range [][2]int{{3, first}, {first, 3}, {first, (first + 1) % 3}, {(first + 2) % 3, first}} {
				if cut>>bit&1 == 1 {
					c.Cut(link[0], link[1])
				}
			}
			for id := 1; id < 6; id++ {
				_, err := c.Node(3).Put(ctx, key, check.Value(key, id, 80), kvstore.Replaces(kvstore.Version{}))
				outcomes[kvstore.OutcomeOf(err)]++
				if err != nil {
					require.True(c.T, strings.HasSuffix(err.Error(), "outcome: "+kvstore.OutcomeOf(err).String()), "%v", err)
				}
			}
			c.Heal()
			c.Check()
		})
	}
	t.Log(outcomes)
	require.NotZero(t, outcomes[kvstore.Applied])
	require.NotZero(t, outcomes[kvstore.Unknown])
}

// TestSimUpdateStrays: an Update whose function, or value, ends it after an attempt
// that met an unseen value says that what that attempt wrote may be seen.
func TestSimUpdateStrays(t *testing.T) {
	o := &kvtest.Options{Configure: func(_ int, o *kvstore.Options) { o.Read = kvstore.One }}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		stop := errors.New("stop")
		next := 0
		for _, tt := range []struct {
			value []byte
			err   error
			is    error
		}{{nil, stop, stop}, {make([]byte, 2<<20), nil, kvstore.ErrValueTooLarge}, {nil, kvstore.ErrNotFound, kvstore.ErrNotFound}} {
			key := ""
			for ; key == "" || ownersOf(c, key)[0] != 0; next++ {
				key = fmt.Sprint("key", next)
			}
			c.Cut(1, 0)
			c.Cut(2, 0)
			_, err := c.Node(1).Put(ctx, key, check.Value(key, 1, 80), kvstore.Replaces(kvstore.Version{}))
			require.NoError(c.T, err)
			c.Heal()
			time.Sleep(time.Millisecond)
			runs := 0
			_, err = c.Node(0).Update(ctx, key, func(kvstore.Item) ([]byte, error) {
				if runs++; runs == 1 {
					return check.Value(key, 2, 80), nil
				}
				return tt.value, tt.err
			})
			require.Equal(c.T, 2, runs)
			require.ErrorIs(c.T, err, tt.is)
			require.Equal(c.T, kvstore.Unknown, kvstore.OutcomeOf(err))
			it, err := c.Node(0).Get(ctx, key, kvstore.Quorum)
			require.NoError(c.T, err)
			require.Len(c.T, it.Siblings(), 2)
		}
		c.Check()
	})
}

// TestSimUpdateTakenBack: an Update whose attempt superseded an acknowledged value, and
// met another that it had not seen, runs its function again with both.
func TestSimUpdateTakenBack(t *testing.T) {
	union := func(a, b []byte) []byte {
		words := slices.Sorted(maps.Keys(map[string]bool{string(a): true, string(b): true}))
		all := strings.Fields(strings.Join(words, " "))
		slices.Sort(all)
		return []byte(strings.Join(slices.Compact(all), " "))
	}
	o := &kvtest.Options{Configure: func(_ int, o *kvstore.Options) {
		o.Read, o.Write, o.Conflicts = kvstore.One, kvstore.One, kvstore.MergeFunc(union)
	}}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		owners := ownersOf(c, "k")
		v, err := c.Node(owners[0]).Put(ctx, "k", []byte("base"), kvstore.All)
		require.NoError(c.T, err)
		for _, other := range owners[1:] {
			c.Cut(owners[0], other)
			c.Cut(other, owners[0])
		}
		for i, value := range []string{"base left", "base right"} {
			_, err := c.Node(owners[i]).Put(ctx, "k", []byte(value), kvstore.Replaces(v))
			require.NoError(c.T, err)
		}
		c.Heal()
		time.Sleep(time.Millisecond)
		var seen []string
		it, err := c.Node(owners[0]).Update(ctx, "k", func(it kvstore.Item) ([]byte, error) {
			seen = append(seen, string(it.Value))
			return union(it.Value, []byte("new")), nil
		}, kvstore.All)
		require.NoError(c.T, err)
		require.Equal(c.T, []string{"base left", "base left right"}, seen)
		require.Equal(c.T, "base left new right", string(it.Value))
		got, err := c.Node(owners[2]).Get(ctx, "k", kvstore.All)
		require.NoError(c.T, err)
		require.Equal(c.T, string(it.Value), string(got.Value))
		require.Nil(c.T, got.Siblings())
	})
}

// ownersOf gives the owners of a key as indexes of nodes, the first owner first.
func ownersOf(c *kvtest.Cluster, key string) (owners []int) {
	up := slices.IndexFunc(c.Nodes(), (*kvtest.Node).Runs)
	r := c.Node(up).DB().Ring()
	for _, i := range r.Owners(r.Partition(ring.Token(key))) {
		for _, n := range c.Nodes() {
			if n.ID() == r.Nodes()[i].ID {
				owners = append(owners, n.Index)
			}
		}
	}
	return owners
}

// TestSimCloseTells: a node that is closed in good order answers what others had handed to it,
// and gets nothing more, so that no Update is left with an unknown outcome.
func TestSimCloseTells(t *testing.T) {
	few(t, 5, func(t *testing.T, seed uint64) {
		simulate(t, seed, nil, func(c *kvtest.Cluster) {
			waitMembers(c, 3)
			c.Settle()
			var clients sync.WaitGroup
			over := make(chan struct{})
			done := 0
			var mu sync.Mutex
			for client := range 8 {
				clients.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-over:
							return
						default:
						}
						key := fmt.Sprint("key", client, "-", i%8)
						_, err := c.Node(2*(client%2)).Update(ctx, key, func(kvstore.Item) ([]byte, error) {
							return check.Value(key, client<<20|i, 60), nil
						})
						mu.Lock()
						done++
						if err != nil && kvstore.OutcomeOf(err) == kvstore.Unknown {
							c.T.Error(err)
						}
						mu.Unlock()
					}
				})
			}
			for range 10 {
				time.Sleep(time.Second)
				c.Stop(1)
				time.Sleep(time.Second)
				c.Restart(1)
				c.Settle()
			}
			close(over)
			clients.Wait()
			require.Greater(c.T, done, 1000)
		})
	})
}
