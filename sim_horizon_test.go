package kvstore_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
	"example.com/kvstore/lsm/vfs"
)

// twoRounds is within what two rounds take, the margin of the horizon included.
const twoRounds = 90 * time.Second

// tombstones counts the deletes that the running nodes still have, after they purged
// what they may.
func tombstones(c *kvtest.Cluster) (n int) {
	c.T.Helper()
	for i, node := range c.Nodes() {
		if node.DB() == nil {
			continue
		}
		require.NoError(c.T, kvstore.Compact(node.DB()))
		for _, held := range holds(c, i) {
			if held.Tombstone {
				n++
			}
		}
	}
	return n
}

// zombies counts reads of deleted keys, at One and at Quorum of each node, that do
// not say that there is nothing.
func zombies(c *kvtest.Cluster, keys []string) (n int) {
	for _, key := range keys {
		for _, node := range c.Nodes() {
			for _, level := range []kvstore.Consistency{kvstore.One, kvstore.Quorum} {
				if _, err := node.DB().Get(ctx, key, level); !errors.Is(err, kvstore.ErrNotFound) {
					n++
				}
			}
		}
	}
	return n
}

// deleteAll puts keys, lets a node go, and deletes them.
func deleteAll(c *kvtest.Cluster, keys int, away int) (deleted []string) {
	waitMembers(c, len(c.Nodes()))
	c.Settle()
	for i := range keys {
		put(c, i%3, fmt.Sprint("key", i), i)
		put(c, i%3, fmt.Sprint("kept", i), i)
	}
	time.Sleep(time.Second)
	if away >= 0 {
		c.Crash(away)
		time.Sleep(20 * time.Second)
	}
	for i := range keys {
		n := i % len(c.Nodes())
		if n == away {
			n = (n + 1) % len(c.Nodes())
		}
		deleted = append(deleted, fmt.Sprint("key", i))
		require.NoError(c.T, c.Node(n).Delete(ctx, deleted[i]))
	}
	return deleted
}

// TestSimTombstonesGo: none is gone before a round has had time, and while an owner of the
// key is away every other owner keeps it, however long; those of other keys go. Within
// two rounds after all owners are up none is left. What was not deleted stays.
func TestSimTombstonesGo(t *testing.T) {
	for _, nodes := range []int{1, 3, 4} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			simulate(t, 1, &kvtest.Options{Nodes: nodes}, func(c *kvtest.Cluster) {
				if nodes == 1 {
					c.Settle()
					for i := range 50 {
						put(c, 0, fmt.Sprint("key", i), i)
						require.NoError(c.T, c.Node(0).Delete(ctx, fmt.Sprint("key", i)))
					}
					require.Equal(c.T, 50, tombstones(c))
					time.Sleep(twoRounds)
					require.Zero(c.T, tombstones(c))
					return
				}
				away := nodes - 1
				deleted := deleteAll(c, 100, away)
				time.Sleep(time.Second)
				require.Equal(c.T, buried(c, deleted, -1), tombstones(c), "no round has had time")
				for _, d := range []time.Duration{twoRounds, 10 * time.Minute} {
					time.Sleep(d)
					require.Equal(c.T, buried(c, deleted, away), tombstones(c))
				}
				c.Restart(away)
				c.Settle()
				require.Subset(c.T, slices.Collect(maps.Keys(holds(c, 0))), owned(c, deleted, 0, away))
				time.Sleep(twoRounds)
				require.Zero(c.T, tombstones(c))
				require.Zero(c.T, zombies(c, deleted))
				for i := range 100 {
					get(c, i%nodes, fmt.Sprint("kept", i), i, kvstore.All)
				}
				require.Empty(c.T, apart(c, check.Purged))
			})
		})
	}
}

// owned are those of the keys that all of the nodes own.
func owned(c *kvtest.Cluster, keys []string, nodes ...int) (all []string) {
	for _, key := range keys {
		owners := ownersOf(c, key)
		if !slices.ContainsFunc(nodes, func(n int) bool { return !slices.Contains(owners, n) }) {
			all = append(all, key)
		}
	}
	return all
}

// buried is how many tombstones the running nodes keep of the deleted keys: each of them
// one of those that it owns together with the node that is away, if any.
func buried(c *kvtest.Cluster, deleted []string, away int) (n int) {
	for _, node := range c.Nodes() {
		switch {
		case !node.Runs():
		case away < 0:
			n += len(owned(c, deleted, node.Index))
		default:
			n += len(owned(c, deleted, node.Index, away))
		}
	}
	return n
}

// TestSimRoundsBesideDamage: one partition is damaged at all owners, so that nobody can
// bring it back. Tombstones of the others, of the same owners, go all the same.
func TestSimRoundsBesideDamage(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		deleted := deleteAll(c, 100, -1)
		time.Sleep(time.Second)
		lost := 0
		for _, n := range c.Nodes() {
			with, err := kvstore.Lose(n.DB(), deleted[0], deleted...)
			require.NoError(c.T, err)
			lost = 1 + with
		}
		time.Sleep(twoRounds)
		require.Equal(c.T, 3, incomplete(c))
		for _, n := range c.Nodes() {
			require.NoError(c.T, kvstore.Compact(n.DB()))
			require.Equal(c.T, lost, int(n.DB().Metrics().Engine.Tombstones))
		}
		require.Less(c.T, lost, len(deleted)/4)
	})
}

// TestSimAwayForAYear: a node that was away for a year, without hints for it, brings
// nothing back that was deleted meanwhile, whatever was purged when. The others live
// through the year, write and delete: each day is 12 seconds, and then their clocks
// are put forward to the next one.
func TestSimAwayForAYear(t *testing.T) {
	const days, day = 365, 24 * time.Hour
	off(t, &kvstore.Defences.Hints)
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		for i := range days {
			put(c, i%3, fmt.Sprint("day", i), i)
		}
		deleted := deleteAll(c, 100, 2)
		for i := range days {
			for n := range 2 {
				c.Skew(n, day*time.Duration(i+1))
			}
			time.Sleep(12*time.Second + 41)
			deleted = append(deleted, fmt.Sprint("day", i))
			require.NoError(c.T, c.Node(i%2).Delete(ctx, fmt.Sprint("day", i)))
			put(c, i%2, fmt.Sprint("written", i), i)
			if i%10 > 0 {
				deleted = append(deleted, fmt.Sprint("written", i-1)) // which the node never saw
				require.NoError(c.T, c.Node(i%2).Delete(ctx, fmt.Sprint("written", i-1)))
			}
			if i%50 == 0 {
				require.Equal(c.T, 2*len(deleted), tombstones(c))
			}
		}
		c.Skew(2, days*day)
		c.Restart(2)
		c.Settle()
		require.Zero(c.T, tombstonesWhile(c, deleted))
		for i := range 100 {
			get(c, i%3, fmt.Sprint("kept", i), i, kvstore.All)
		}
		for i := 9; i < days; i += 10 {
			get(c, i%3, fmt.Sprint("written", i), i, kvstore.All)
		}
		require.Empty(c.T, apart(c, check.Purged))
	})
}

// tombstonesWhile watches the deleted keys until the tombstones are gone, two rounds
// later, and gives how many are left.
func tombstonesWhile(c *kvtest.Cluster, deleted []string) int {
	for start := c.Now(); c.Now()-start < twoRounds; time.Sleep(3*time.Second + 41) {
		tombstones(c)
		quorum := 0
		for _, key := range deleted[:10] {
			if _, err := c.Node(2).DB().Get(ctx, key); err == nil {
				quorum++
			}
		}
		require.Zero(c.T, quorum)
	}
	n := tombstones(c)
	require.Zero(c.T, zombies(c, deleted))
	return n
}

// TestSimLateHint: a hint that was kept far away for a year, by a node that is no
// owner, does not bring back what was deleted, and is given up.
func TestSimLateHint(t *testing.T) {
	for _, promise := range []bool{true, false} {
		t.Run(fmt.Sprint("promise ", promise), func(t *testing.T) {
			if !promise {
				off(t, &kvstore.Defences.Promise)
			}
			simulate(t, 1, &kvtest.Options{Nodes: 4}, func(c *kvtest.Cluster) {
				waitMembers(c, 4)
				c.Settle()
				r := c.Node(0).DB().Ring()
				key, owner, keeper := "", 0, 0 // a key whose first fallback is node 3
				for i := 0; key == ""; i++ {
					k := fmt.Sprint("key", i)
					list := r.AppendPreference(nil, r.Partition(kvstore.TokenOf(k)))
					if r.Nodes()[list[3]].ID == c.Node(3).ID() && r.Nodes()[list[0]].ID != c.Node(0).ID() {
						key, keeper = k, 3
						for n := range 3 {
							if c.Node(n).ID() == r.Nodes()[list[0]].ID {
								owner = n
							}
						}
					}
				}
				c.Crash(owner)
				time.Sleep(20 * time.Second)
				put(c, 0, key, 1)
				time.Sleep(30 * time.Second)
				require.NotZero(c.T, c.Node(keeper).DB().Metrics().PendingHints)
				c.Stop(keeper)
				c.Restart(owner)
				time.Sleep(time.Minute) // exchanges bring it
				require.NoError(c.T, c.Node(0).Delete(ctx, key, kvstore.All))
				time.Sleep(twoRounds + 30*time.Second)
				require.Zero(c.T, tombstones(c))
				c.Restart(keeper)
				c.Settle()
				waitHints(c, time.Minute)
				_, err := c.Node(owner).DB().Get(ctx, key, kvstore.One)
				if promise {
					require.ErrorIs(c.T, err, kvstore.ErrNotFound)
					require.NotZero(c.T, c.Node(keeper).DB().Metrics().HintsRefused)
				} else {
					require.NoError(c.T, err, "the test finds what the promise is for")
				}
			})
		})
	}
}

// TestSimNoMerge: rounds in which the owners do not merge bring back what was
// deleted, so the tests above can fail.
func TestSimNoMerge(t *testing.T) {
	off(t, &kvstore.Defences.Hints)
	off(t, &kvstore.Defences.Exchange)
	off(t, &kvstore.Defences.Merge)
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		deleted := deleteAll(c, 20, 2)
		c.Restart(2)
		c.Settle()
		time.Sleep(twoRounds)
		require.Zero(c.T, tombstones(c))
		require.NotZero(c.T, zombies(c, deleted))
	})
}

// TestSimExpiredSiblings: an owner that has forgotten what expired behind the horizon,
// plainly or as siblings, agrees with those that have not yet: reads go on, and
// nothing is written back to it.
func TestSimExpiredSiblings(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		keys := []string{"plain", "siblings"}
		_, err := c.Node(0).Put(ctx, keys[0], []byte("v"), kvstore.All, kvstore.TTL(time.Second))
		require.NoError(c.T, err)
		for i := range 2 {
			_, err = c.Node(i).Put(ctx, keys[1], []byte("v"), kvstore.All, kvstore.TTL(time.Second), kvstore.Replaces(kvstore.Version{}))
			require.NoError(c.T, err)
		}
		time.Sleep(twoRounds)
		require.Len(c.T, holds(c, 0), 2)
		require.NoError(c.T, kvstore.Compact(c.Node(0).DB()))
		require.Empty(c.T, holds(c, 0))
		require.Len(c.T, holds(c, 1), 2)
		writeBacks := func() (n uint64) {
			for _, node := range c.Nodes() {
				n += node.DB().Metrics().WriteBacks
			}
			return n
		}
		before := writeBacks()
		for _, key := range keys {
			for _, node := range c.Nodes() {
				for _, level := range []kvstore.Consistency{kvstore.Quorum, kvstore.All} {
					_, err := node.DB().Get(ctx, key, level)
					require.ErrorIs(c.T, err, kvstore.ErrNotFound)
				}
			}
		}
		require.Equal(c.T, before, writeBacks())
		bytes, err := kvstore.Exchange(c.Node(1).DB())
		require.NoError(c.T, err)
		require.Less(c.T, bytes, 1<<10)
		require.Empty(c.T, holds(c, 0))
	})
}

// TestSimRoutineBytes: a routine exchange of what is equal and behind the horizon moves
// next to nothing and reads no table.
func TestSimRoutineBytes(t *testing.T) {
	keys := 50_000
	if os.Getenv("KVSTORE_TORTURE") != "" {
		keys = 1_000_000
	}
	var tableReads atomic.Int64
	o := &kvtest.Options{Nodes: 2, Stall: 2 * time.Minute, Configure: func(_ int, o *kvstore.Options) {
		o.MemoryBytes, o.Partitions = 64<<20, 4096
		o.FS = vfs.Faulty(o.FS, func(op vfs.Op) error {
			if op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, ".table") {
				tableReads.Add(1)
			}
			return nil
		})
	}}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		waitMembers(c, 2)
		c.Settle()
		now := time.Now()
		for i := range 2 {
			require.NoError(c.T, kvstore.Fill(c.Node(i).DB(), now, keys, 100, func(k int, stamp uint64) uint64 { return stamp }))
			require.NoError(c.T, kvstore.Compact(c.Node(i).DB()))
		}
		time.Sleep(twoRounds)
		require.NotZero(c.T, tableReads.Load(), "they are counted")
		tableReads.Store(0)
		most := 0
		for range 100 {
			bytes, err := kvstore.Exchange(c.Node(0).DB())
			require.NoError(c.T, err)
			most = max(most, bytes)
		}
		c.T.Logf("%d keys: at most %d bytes", keys, most)
		require.Less(c.T, most, 1<<10, "64 KiB would do")
		require.Zero(c.T, tableReads.Load())
	})
}

// TestSimStormHorizon: storms over few keys, with rounds, purges and a node that is
// away now and then: what is deleted stays so, what was acknowledged is there.
func TestSimStormHorizon(t *testing.T) {
	few(t, 10, func(t *testing.T, seed uint64) {
		o := &kvtest.Options{Loss: 0.02, Configure: func(_ int, o *kvstore.Options) {
			o.MaxRequest, o.MemoryBytes = time.Second, 1<<20
		}}
		simulate(t, seed, o, func(c *kvtest.Cluster) {
			c.Ready()
			w := &crowd{c: c, keys: 10, nodes: []int{0, 1, 2}, think: 200 * time.Millisecond}
			w.start(4)
			defer w.leave()
			for range 6 {
				c.Storm(20 * time.Second)
				time.Sleep(25 * time.Second)
				tombstones(c)
			}
			w.leave()
			c.Settle()
			for start := c.Now(); tombstones(c) > 0; time.Sleep(7 * time.Second) { // messages are lost, rounds too
				require.Less(c.T, c.Now()-start, 10*time.Minute)
			}
			converge(c, 2*time.Minute)
			require.Empty(c.T, apart(c, check.Purged))
			c.Check()
		})
	})
}

// TestSimSessionAfterPurge: a session that has seen a value, and the delete, goes on
// when the delete is forgotten.
func TestSimSessionAfterPurge(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		session := kvstore.WithSession(ctx)
		db := c.Node(0).DB()
		_, err := db.Put(session, "key", []byte("v"))
		require.NoError(c.T, err)
		require.NoError(c.T, db.Delete(ctx, "key"))
		_, err = db.Get(session, "key", kvstore.Quorum)
		require.ErrorIs(c.T, err, kvstore.ErrNotFound)
		time.Sleep(twoRounds)
		require.Zero(c.T, tombstones(c))
		for _, level := range []kvstore.Consistency{kvstore.One, kvstore.Quorum, kvstore.All} {
			for _, n := range c.Nodes() {
				_, err = n.DB().Get(session, "key", level)
				require.ErrorIs(c.T, err, kvstore.ErrNotFound)
			}
		}
	})
}
