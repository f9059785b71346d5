package kvstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
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

// tables are the names of a node's table files.
func tables(c *kvtest.Cluster, node int) (names []string) {
	c.T.Helper()
	dir := kvstore.DataDir("/node")
	all, err := c.Node(node).Disk().List(dir)
	require.NoError(c.T, err)
	for _, name := range all {
		if strings.HasSuffix(name, ".table") {
			names = append(names, path.Join(dir, name))
		}
	}
	return names
}

// flush brings all that the nodes hold to tables.
func flush(c *kvtest.Cluster, nodes ...int) {
	c.T.Helper()
	for _, i := range nodes {
		require.NoError(c.T, kvstore.Flush(c.Node(i).DB()))
	}
}

// rot flips a bit in every 32 bytes of a file.
func rot(c *kvtest.Cluster, node int, name string) {
	c.T.Helper()
	disk := c.Node(node).Disk()
	size := int64(len(read(c, disk, name)))
	for off := int64(0); off < size; off += 32 {
		require.NoError(c.T, disk.Corrupt(name, off, 1<<(off/32%8)))
	}
}

// incomplete is the number of partitions of which the running nodes lack data.
func incomplete(c *kvtest.Cluster) (n int) {
	for _, node := range c.Nodes() {
		if db := node.DB(); db != nil {
			n += db.Metrics().Incomplete
		}
	}
	return n
}

// heal waits until no node lacks anything.
func heal(c *kvtest.Cluster, most time.Duration) {
	c.T.Helper()
	for start := c.Now(); incomplete(c) > 0; time.Sleep(time.Second + 37) {
		if c.Now()-start > most {
			c.T.Fatalf("after %v %d partitions are incomplete", most, incomplete(c))
		}
	}
}

// meet has a node come across its damaged tables, through reads of its own copy.
func meet(c *kvtest.Cluster, node, keys int) {
	c.T.Helper()
	for i := range keys {
		key := fmt.Sprint("key", i)
		_, _ = c.Node(node).Get(ctx, key, kvstore.One)
	}
	for start := c.Now(); c.Node(node).DB().Metrics().Damages == 0; time.Sleep(10 * time.Millisecond) {
		if c.Now()-start > 10*time.Second {
			c.T.Fatal("no damage was met")
		}
	}
}

// fillTables writes keys, some of them again and some deleted, into tables of all nodes.
func fillTables(c *kvtest.Cluster, keys int) {
	c.T.Helper()
	waitMembers(c, len(c.Nodes()))
	c.Settle()
	for round := range 2 {
		for i := range keys {
			if (i+round)%3 == 0 {
				continue
			}
			node, key := c.Node(i%3), fmt.Sprint("key", i)
			if round == 1 && i%5 == 0 {
				require.NoError(c.T, node.Delete(ctx, key))
			} else {
				put(c, i%3, key, keys*round+i)
			}
		}
		time.Sleep(time.Second)
		flush(c, 0, 1, 2)
	}
}

// TestSimDamagedTable: bits of a table flip at one of three nodes while clients write.
// Nobody reads anything wrong or nothing from it; the node gets the data back from the
// others, and from then on counts again.
func TestSimDamagedTable(t *testing.T) {
	few(t, 3, func(t *testing.T, seed uint64) {
		simulate(t, seed, nil, func(c *kvtest.Cluster) {
			const keys = 60
			fillTables(c, keys)
			before := holds(c, 0)
			require.Equal(c.T, before, holds(c, 1))
			w := &crowd{c: c, keys: keys / 4, nodes: []int{0, 1, 2}, think: 20 * time.Millisecond}
			w.start(4)
			defer w.leave()
			for _, name := range tables(c, 1) {
				rot(c, 1, name)
			}
			actor := kvstore.CausalActor(c.Node(1).DB())
			meet(c, 1, keys)
			require.NotEqual(c.T, actor, kvstore.CausalActor(c.Node(1).DB()), "dots of it may be lost")
			time.Sleep(30 * time.Second)
			w.leave()
			heal(c, time.Minute)
			m := c.Node(1).DB().Metrics()
			require.NotZero(c.T, m.Damages)
			require.NotZero(c.T, m.Healed)
			converge(c, time.Minute)
			c.Check()
			c.Crash(1) // its own state was in the same tables, and is written again
			c.Restart(1)
			c.Settle()
			c.Check()
		})
	})
}

// TestSimDamagedAtRest: the same without any client after the damage. It is found by
// reading the tables in the background, and survives a restart before it is healed.
func TestSimDamagedAtRest(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		fillTables(c, 60)
		before := holds(c, 1)
		for _, name := range tables(c, 1) {
			rot(c, 1, name)
		}
		for start := c.Now(); incomplete(c) == 0; time.Sleep(time.Second) {
			require.Less(c.T, c.Now()-start, 2*time.Hour)
		}
		c.Partition([]int{1}) // from which nothing comes back
		time.Sleep(time.Minute)
		require.NotZero(c.T, incomplete(c))
		c.Crash(1)
		c.Restart(1)
		time.Sleep(time.Minute)
		require.NotZero(c.T, incomplete(c))
		c.Heal()
		c.Settle()
		heal(c, time.Minute)
		require.Equal(c.T, before, holds(c, 1))
		c.Check()
	})
}

// TestSimLostTable: table files are gone when a node starts, also those with the node's
// own state.
func TestSimLostTable(t *testing.T) {
	few(t, 6, func(t *testing.T, seed uint64) {
		simulate(t, seed, nil, func(c *kvtest.Cluster) {
			fillTables(c, 60)
			c.Stop(2)
			names := tables(c, 2)
			draw := rand.New(rand.NewPCG(seed, 7))
			lost := names[draw.IntN(len(names))]
			if seed%2 == 0 {
				lost = names[len(names)/2-1] // with the node's own state
			}
			require.NoError(c.T, c.Node(2).Disk().Remove(lost))
			c.Restart(2)
			c.Settle()
			require.NotZero(c.T, incomplete(c))
			heal(c, 2*time.Minute)
			converge(c, time.Minute)
			c.Check()
		})
	})
}

// TestSimDamagedAndApart: while one owner is damaged and another one is away, a quorum
// read fails rather than count either.
func TestSimDamagedAndApart(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		const keys = 30
		fillTables(c, keys)
		for _, name := range tables(c, 1) {
			rot(c, 1, name)
		}
		meet(c, 1, keys)
		c.Partition([]int{2})
		time.Sleep(10 * time.Second)
		for i := range keys {
			_, err := c.Node(0).Get(ctx, fmt.Sprint("key", i))
			require.Error(c.T, err)
			require.False(c.T, errors.Is(err, kvstore.ErrNotFound), "%v", err)
			e, err := c.Node(0).DB().Explain(ctx, fmt.Sprint("key", i))
			require.NoError(c.T, err)
			require.Equal(c.T, "damaged", stateOf(e, "n1"))
		}
		_, err := c.Node(1).Get(ctx, "key1", kvstore.One)
		require.NoError(c.T, err, "another owner has it")
		c.Heal()
		c.Settle()
		heal(c, time.Minute)
		c.Check()
	})
}

// TestSimDamagedExchange: what a damaged owner lacks is not sent to it with each routine
// exchange, for as long as it cannot heal.
func TestSimDamagedExchange(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		const keys = 300
		fillTables(c, keys)
		for _, name := range tables(c, 1) {
			rot(c, 1, name)
		}
		meet(c, 1, keys)
		c.Partition([]int{2}) // without it node 1 cannot heal
		time.Sleep(30 * time.Second)
		before := [2]kvstore.Metrics{c.Node(0).DB().Metrics(), c.Node(1).DB().Metrics()}
		time.Sleep(time.Minute)
		require.NotZero(c.T, incomplete(c))
		for i, b := range before {
			m := c.Node(i).DB().Metrics()
			require.NotEqual(c.T, b.Exchanges, m.Exchanges)
			require.Equal(c.T, b.ExchangedSent+b.ExchangedReceived, m.ExchangedSent+m.ExchangedReceived)
			require.Less(c.T, (m.ExchangeBytes-b.ExchangeBytes)/(m.Exchanges-b.Exchanges), uint64(4<<10), "bytes of an exchange")
		}
		c.Heal()
		c.Settle()
		heal(c, time.Minute)
		c.Check()
	})
}

func stateOf(e kvstore.Explanation, node string) string {
	for _, r := range e.Replicas {
		if r.Node == node {
			return r.State
		}
	}
	return ""
}

// TestSimTwoDamaged: two of three owners lose different tables. What any owner has left
// is on all of them in the end.
func TestSimTwoDamaged(t *testing.T) {
	few(t, 2, func(t *testing.T, seed uint64) {
		simulate(t, seed, nil, func(c *kvtest.Cluster) {
			const keys = 60
			fillTables(c, keys)
			before := holds(c, 0)
			one, two := tables(c, 1), tables(c, 2)
			rot(c, 1, one[0])
			rot(c, 2, two[len(two)-1])
			meet(c, 1, keys)
			meet(c, 2, keys)
			heal(c, 2*time.Minute)
			converge(c, time.Minute)
			for i := range c.Nodes() {
				require.Equal(c.T, before, holds(c, i))
			}
			c.Check()
		})
	})
}

// TestSimAllDamaged: where no owner has a whole copy a read says that data was lost, not
// that there is none.
func TestSimAllDamaged(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		const keys = 10
		fillTables(c, keys)
		for i := range c.Nodes() {
			for _, name := range tables(c, i) {
				rot(c, i, name)
			}
		}
		meet(c, 0, keys)
		time.Sleep(time.Minute)
		for i := range keys {
			_, err := c.Node(i%3).Get(ctx, fmt.Sprint("key", i))
			require.ErrorIs(c.T, err, kvstore.ErrDataLoss)
		}
	})
}

// TestSimOldDirectory: a node comes back with an older copy of its directory, long after
// the others have forgotten what was deleted since. Nothing comes back, and nothing is
// missed.
func TestSimOldDirectory(t *testing.T) {
	few(t, 3, func(t *testing.T, seed uint64) {
		simulate(t, seed, nil, func(c *kvtest.Cluster) {
			violations, differ := oldDirectory(c)
			require.Empty(c.T, violations)
			require.Zero(c.T, differ)
		})
	})
}

// oldDirectory gives the violations, and how many keys owners do not hold alike.
func oldDirectory(c *kvtest.Cluster) (violations []kvtest.Violation, differ int) {
	goBack(c, func() {})
	for i := range oldKeys {
		_, _ = c.Node(i%3).Get(ctx, fmt.Sprint("key", i))
	}
	heal(c, 2*time.Minute)
	time.Sleep(time.Minute)
	return c.Violations(), diverged(c)
}

// TestSimOldDirectoryUnknown: the same when nobody remembers the node, since the others
// were started again too: horizons tell, before anything is sent.
func TestSimOldDirectoryUnknown(t *testing.T) {
	few(t, 2, func(t *testing.T, seed uint64) {
		simulate(t, seed, nil, func(c *kvtest.Cluster) {
			goBack(c, func() {
				for _, i := range []int{0, 1} {
					c.Stop(i)
				}
				for _, i := range []int{0, 1} {
					c.Restart(i)
				}
			})
			for start := c.Now(); c.Node(2).DB().Metrics().Healed == 0; time.Sleep(time.Second) {
				require.Less(c.T, c.Now()-start, time.Minute)
			}
			heal(c, time.Minute)
			converge(c, time.Minute)
			c.Check()
		})
	})
}

const oldKeys = 60

// goBack gives node 2 an older copy of its directory, from before writes and deletes
// that the others have forgotten, and starts it after meanwhile.
func goBack(c *kvtest.Cluster, meanwhile func()) {
	c.T.Helper()
	const keys = oldKeys
	fillTables(c, keys)
	var old *vfs.Mem
	c.Stop(2)
	old = c.Node(2).Disk().CrashSynced()
	c.Restart(2)
	c.Settle()
	for i := range keys {
		switch key := fmt.Sprint("key", i); i % 3 {
		case 0:
			require.NoError(c.T, c.Node(i%3).Delete(ctx, key))
		case 1:
			put(c, i%3, key, 3*keys+i)
		}
	}
	time.Sleep(2 * time.Minute) // rounds
	for i := range c.Nodes() {
		require.NoError(c.T, kvstore.Compact(c.Node(i).DB()))
	}
	c.Stop(2)
	c.PutDisk(2, old)
	meanwhile()
	c.Restart(2)
	c.Settle()
}

// missedByTwo gives the violations of a run in which a node heals with one of the others
// that has missed a write, while the one that has it is away.
func missedByTwo(c *kvtest.Cluster) ([]kvtest.Violation, int) {
	const keys = 20
	fillTables(c, keys)
	c.Partition([]int{2})
	for i := range keys {
		put(c, 0, fmt.Sprint("key", i), 100+i)
	}
	flush(c, 1)
	for _, name := range tables(c, 1) {
		rot(c, 1, name)
	}
	c.Heal()
	c.Crash(0)
	meet(c, 1, keys)
	time.Sleep(time.Minute)
	for i := range keys {
		_, _ = c.Node(1+i%2).Get(ctx, fmt.Sprint("key", i))
	}
	c.Restart(0)
	c.Settle()
	heal(c, 2*time.Minute)
	return c.Violations(), 0
}

// acknowledgedTwice gives the violations of a run in which one owner acknowledges a
// write, loses it and heals before the write comes to the second one.
func acknowledgedTwice(far *atomic.Bool) func(c *kvtest.Cluster) ([]kvtest.Violation, int) {
	return func(c *kvtest.Cluster) ([]kvtest.Violation, int) {
		waitMembers(c, 4)
		c.Settle()
		r := c.Node(3).DB().Ring()
		key := keyOf(c.Node(3).DB(), "n0", "n1", "n2")
		require.Len(c.T, r.Owners(r.Partition(kvstore.TokenOf(key))), 3)
		put(c, 3, key, 1)
		far.Store(true)
		c.Cut(3, 2)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = c.Node(3).Put(ctx, key, check.Value(key, 2, 80))
		}()
		time.Sleep(100 * time.Millisecond)
		flush(c, 0)
		for _, name := range tables(c, 0) {
			rot(c, 0, name)
		}
		_, _ = c.Node(0).Get(ctx, key, kvstore.One)
		time.Sleep(4 * time.Second) // it has healed
		require.Zero(c.T, incomplete(c))
		require.NotZero(c.T, c.Node(0).DB().Metrics().Healed)
		<-done
		far.Store(false)
		c.Partition([]int{1, 3})
		time.Sleep(100 * time.Millisecond)
		_, _ = c.Node(0).Get(ctx, key)
		c.Heal()
		return c.Violations(), 0
	}
}

// TestSimDamageDefences: each rule of damage, switched off, is missed by a run that goes
// well with it.
func TestSimDamageDefences(t *testing.T) {
	var far atomic.Bool
	for _, tt := range []struct {
		name    string
		defence *bool
		o       kvtest.Options
		run     func(c *kvtest.Cluster) ([]kvtest.Violation, int)
	}{
		{"an older copy is found out", &kvstore.Defences.OldCopy, kvtest.Options{}, oldDirectory},
		{"what others forgot is dropped", &kvstore.Defences.HealDrop, kvtest.Options{}, oldDirectory},
		{"enough others", &kvstore.Defences.HealQuorum, kvtest.Options{}, missedByTwo},
		{"the others promise", &kvstore.Defences.HealPromise, kvtest.Options{Nodes: 4, Distance: func(from, to int) time.Duration {
			if far.Load() && from == 3 && to == 1 {
				return 6 * time.Second
			}
			return 0
		}}, acknowledgedTwice(&far)},
		{"an incomplete owner", &kvstore.Defences.Incomplete, kvtest.Options{}, missedByTwo},
	} {
		t.Run(tt.name, func(t *testing.T) {
			simulate(t, 1, &tt.o, func(c *kvtest.Cluster) {
				violations, differ := tt.run(c)
				require.Empty(c.T, violations)
				require.Zero(c.T, differ)
			})
			off(t, tt.defence)
			const seeds = 20
			for seed := uint64(1); seed <= seeds; seed++ {
				found := 0
				simulate(t, seed, &tt.o, func(c *kvtest.Cluster) {
					violations, differ := tt.run(c)
					found = len(violations) + differ
				})
				if found > 0 {
					t.Logf("found by seed %d", seed)
					return
				}
			}
			t.Errorf("not found by %d seeds", seeds)
		})
	}
}

// TestSimDamagedLog: a bit flips in the middle of the log of a node that is down. What
// was behind it is lost, and comes back from the others.
func TestSimDamagedLog(t *testing.T) {
	few(t, 4, func(t *testing.T, seed uint64) {
		simulate(t, seed, nil, func(c *kvtest.Cluster) {
			const keys = 60
			waitMembers(c, 3)
			c.Settle()
			for i := range 3 * keys {
				put(c, i%3, fmt.Sprint("key", i%keys), i)
			}
			c.Crash(2)
			disk, dir := c.Node(2).Disk(), kvstore.DataDir("/node")
			all, err := disk.List(dir)
			require.NoError(c.T, err)
			for _, name := range all {
				if !strings.HasSuffix(name, ".log") {
					continue
				}
				text := read(c, disk, path.Join(dir, name))
				used := len(bytes.TrimRight(text, "\x00"))
				if used > 1000 {
					require.NoError(c.T, disk.Corrupt(path.Join(dir, name), int64(used)*int64(seed)/6, 4))
				}
			}
			c.Restart(2)
			c.Settle()
			require.NotZero(c.T, incomplete(c))
			for i := range keys {
				get(c, i%3, fmt.Sprint("key", i), 2*keys+i)
			}
			heal(c, 2*time.Minute)
			converge(c, time.Minute)
			c.Check()
		})
	})
}

// read gives a file of a disk.
func read(c *kvtest.Cluster, disk *vfs.Mem, name string) []byte {
	c.T.Helper()
	f, err := disk.Open(name)
	require.NoError(c.T, err)
	size, err := f.Size()
	require.NoError(c.T, err)
	text := make([]byte, size)
	_, err = f.ReadAt(text, 0)
	require.NoError(c.T, err)
	require.NoError(c.T, f.Close())
	return text
}

// TestSimDamagedStorm: tables of one node rot again and again while everything else goes
// wrong too.
func TestSimDamagedStorm(t *testing.T) {
	const storms = 3
	for _, nodes := range []int{3, 5} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			few(t, storms, func(t *testing.T, seed uint64) {
				simulate(t, seed, &kvtest.Options{Nodes: nodes, Loss: 0.02}, func(c *kvtest.Cluster) {
					waitMembers(c, nodes)
					c.Settle()
					w := &crowd{c: c, keys: 30, think: 20 * time.Millisecond}
					for i := range nodes {
						w.nodes = append(w.nodes, i)
					}
					w.start(5)
					defer w.leave()
					draw := rand.New(rand.NewPCG(seed, 11))
					victim := draw.IntN(nodes)
					for range 4 {
						c.Storm(5 * time.Second)
						if err := kvstore.Flush(c.Node(victim).DB()); err != nil {
							continue // it is closing, or without its disk
						}
						names := tables(c, victim) // the last ones may still be written
						rot(c, victim, names[draw.IntN((len(names)+1)/2)])
					}
					c.Storm(10 * time.Second)
					w.leave()
					c.Settle()
					require.NoError(c.T, kvstore.Scrub(c.Node(victim).DB()))
					heal(c, 5*time.Minute)
					converge(c, 5*time.Minute)
					c.Check()
				})
			})
		})
	}
}

// TestSimFlippedBit: whatever bit of whatever table flips at one owner, the others never
// hold anything but what was written, and the owner does again.
func TestSimFlippedBit(t *testing.T) {
	few(t, 12, func(t *testing.T, seed uint64) {
		simulate(t, 1, nil, func(c *kvtest.Cluster) {
			const keys = 10
			fillTables(c, keys)
			before := holds(c, 0)
			draw := rand.New(rand.NewPCG(seed, 5))
			names := tables(c, 1)
			name := names[draw.IntN(len(names))]
			size := len(read(c, c.Node(1).Disk(), name))
			require.NoError(c.T, c.Node(1).Disk().Corrupt(name, int64(draw.IntN(size)), 1<<draw.IntN(8)))
			for i := range keys {
				_, _ = c.Node(1).Get(ctx, fmt.Sprint("key", i))
			}
			require.NoError(c.T, kvstore.Scrub(c.Node(1).DB()))
			require.NotZero(c.T, incomplete(c))
			heal(c, time.Minute)
			for i := range c.Nodes() {
				require.Equal(c.T, before, holds(c, i))
			}
			c.Check()
		})
	})
}
