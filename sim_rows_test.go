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
)

// TestSimDoomstone (C4): a delete that a fallback keeps for an owner comes late, in
// every order with the purge of that delete elsewhere and with a new value. The new
// value stays.
func TestSimDoomstone(t *testing.T) {
	for _, order := range [][]string{
		{"reap", "create", "handoff"}, {"reap", "handoff", "create"}, {"create", "reap", "handoff"},
		{"create", "handoff", "reap"}, {"handoff", "reap", "create"}, {"handoff", "create", "reap"},
	} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			simulate(t, 1, &kvtest.Options{Nodes: 4}, func(c *kvtest.Cluster) {
				waitMembers(c, 4)
				c.Settle()
				key := keyOf(c.Node(0).DB(), "n0", "n1", "n2")
				put(c, 0, key, 1)
				c.Crash(2)
				time.Sleep(20 * time.Second)
				require.NoError(c.T, c.Node(0).Delete(ctx, key))
				time.Sleep(30 * time.Second)
				require.NotZero(c.T, c.Node(3).DB().Metrics().PendingHints)
				c.Stop(3)
				c.Restart(2)
				c.Settle()
				created := false
				for _, event := range order {
					switch event {
					case "reap":
						time.Sleep(twoRounds + 30*time.Second)
						require.Zero(c.T, tombstones(c))
					case "create":
						_, err := c.Node(2).Put(ctx, key, check.Value(key, 2, 80), kvstore.Replaces(kvstore.Version{}))
						require.NoError(c.T, err)
						created = true
					case "handoff":
						c.Restart(3)
						c.Settle()
						waitHints(c, time.Minute)
					}
					for i := range 3 {
						it, err := c.Node(i).Get(ctx, key)
						if !created {
							require.ErrorIs(c.T, err, kvstore.ErrNotFound)
							continue
						}
						require.NoError(c.T, err, "%s", event)
						require.Equal(c.T, string(check.Value(key, 2, 80)), string(it.Value))
					}
				}
				if order[2] != "create" {
					time.Sleep(twoRounds)
				}
				require.Empty(c.T, apart(c, check.Exchanged))
			})
		})
	}
}

// TestSimReachability (M7): which node hears which is drawn at random, again and
// again. A call succeeds whenever its coordinator and a quorum hear each other, once
// that is known, and nothing that any call promised is broken.
func TestSimReachability(t *testing.T) {
	few(t, 2, func(t *testing.T, seed uint64) {
		o := &kvtest.Options{Nodes: 5, Configure: func(_ int, o *kvstore.Options) { o.N, o.MaxRequest = 5, time.Second }}
		simulate(t, seed, o, func(c *kvtest.Cluster) {
			waitMembers(c, 5)
			c.Settle()
			draw := rand.New(rand.NewPCG(seed, 11))
			epoch := c.Node(0).DB().Ring().Epoch()
			id, served := 0, 0
			for range 30 {
				var mutual [5]int // nodes that each one exchanges messages with, itself included
				var cut [5][5]bool
				share := draw.Float64() / 2
				for i := range 5 {
					for j := range 5 {
						if i != j && draw.Float64() < share {
							cut[i][j] = true
							c.Cut(i, j)
						}
					}
				}
				for i := range 5 {
					for j := range 5 {
						if !cut[i][j] && !cut[j][i] {
							mutual[i]++
						}
					}
				}
				time.Sleep(12 * time.Second) // detectors and connections have noticed
				for i := range 5 {
					id++
					key := fmt.Sprint("key", id%7)
					_, err := c.Node(i).Put(ctx, key, check.Value(key, id, 80))
					if mutual[i] >= 3 {
						served++
						require.NoError(c.T, err, "node %d hears %d", i, mutual[i])
					}
					_, _ = c.Node((i+1)%5).Get(ctx, key)
				}
				c.Heal()
				time.Sleep(redialed)
			}
			require.Greater(c.T, served, 30)
			c.Settle()
			require.Equal(c.T, epoch, c.Node(0).DB().Ring().Epoch())
			c.Check()
		})
	})
}

// TestSimClocks (M9): clocks jump by an hour either way, drift by 5 % either way, and nodes
// stand still for 30 s, each of these on every seed, while clients write and delete.
// Nothing acknowledged is lost, nothing goes back, nothing deleted comes back.
func TestSimClocks(t *testing.T) {
	few(t, 2, func(t *testing.T, seed uint64) {
		o := &kvtest.Options{Configure: func(_ int, o *kvstore.Options) { o.MaxRequest = time.Second }}
		simulate(t, seed, o, func(c *kvtest.Cluster) {
			waitMembers(c, 3)
			c.Settle()
			draw := rand.New(rand.NewPCG(seed, 12))
			w := &crowd{c: c, keys: 10, nodes: []int{0, 1, 2}, think: 100 * time.Millisecond}
			w.start(4)
			defer w.leave()
			faults := []func(i int){
				func(i int) { c.Skew(i, time.Hour) },
				func(i int) { c.Skew(i, -time.Hour) },
				func(i int) { c.Drift(i, 50_000) },
				func(i int) { c.Drift(i, -50_000) },
				func(i int) { c.Freeze(i, 30*time.Second) },
			}
			for _, f := range draw.Perm(len(faults)) {
				i := draw.IntN(3)
				faults[f](i)
				time.Sleep(40 * time.Second)
				c.Skew(i, 0)
				tombstones(c)
				time.Sleep(20 * time.Second)
			}
			w.leave()
			require.Greater(c.T, w.ok[check.Put].Load(), int64(1000))
			time.Sleep(time.Hour) // what was stamped ahead does not spread before its time
			c.Settle()
			converge(c, 5*time.Minute)
			c.Check()
		})
	})
}

// TestSimHappensBefore (C7): one client writes in sequence, through one node after the
// other, plainly and with what its last write gave it, while one clock after the other is
// 10 s or an hour wrong, or drifts by 5 %, and all are as far apart as they may be. What it
// is told to be written is what it reads next, if it reads before it writes again: no
// write is lost below an earlier one.
func TestSimHappensBefore(t *testing.T) {
	const writes = 8000
	few(t, 1, func(t *testing.T, seed uint64) {
		o := &kvtest.Options{Configure: func(_ int, o *kvstore.Options) { o.MaxRequest = time.Second }}
		simulate(t, seed, o, func(c *kvtest.Cluster) {
			waitMembers(c, 3)
			c.Settle()
			draw := rand.New(rand.NewPCG(seed, 13))
			bounds := func() {
				for i := range c.Nodes() {
					c.Skew(i, time.Duration(draw.Int64N(int64(480*time.Millisecond)))-240*time.Millisecond)
				}
			}
			faults := []func(i int){
				func(i int) { c.Skew(i, 10*time.Second) },
				func(i int) { c.Skew(i, -10*time.Second) },
				func(i int) { c.Skew(i, time.Hour) },
				func(i int) { c.Skew(i, -time.Hour) },
				func(i int) { c.Drift(i, 50_000) },
				func(i int) { c.Drift(i, -50_000) },
				func(int) {},
			}
			id, acknowledged, refused, unknown := 0, 0, 0, 0
			var keys [2]string // one is written plainly, one causally
			var last [2]kvstore.Version
			next := 0 // is to write
			write := func() {
				kind, node := id/2%2, c.Node(next)
				id++
				if next = draw.IntN(3); next != node.Index && draw.IntN(4) == 0 { // it hears nothing of this write
					c.Cut(node.Index, next)
					defer c.Heal()
				}
				if keys[kind] == "" {
					keys[kind], last[kind] = fmt.Sprint("key", id), kvstore.Version{}
				}
				key := keys[kind]
				var opts []kvstore.PutOption
				if kind == 1 {
					opts = append(opts, kvstore.Replaces(last[kind]))
				}
				v, err := node.Put(ctx, key, check.Value(key, id, 80), opts...)
				switch kvstore.OutcomeOf(err) {
				case kvstore.NotApplied:
					refused++
					return
				case kvstore.Unknown: // it may be seen or not from now on: leave the key
					unknown++
					keys[kind] = ""
					return
				}
				acknowledged++
				if last[kind] = v; draw.IntN(2) == 0 {
					return // unseen
				}
				for i := range 3 { // a node with a wrong clock may not answer
					it, err := c.Node((node.Index+1+i)%3).Get(ctx, key)
					if err == nil || errors.Is(err, kvstore.ErrNotFound) {
						require.Equal(c.T, string(check.Value(key, id, 80)), string(it.Value), "write %d of %s", id, key)
						return
					}
				}
				c.T.Errorf("no node reads %s", key)
			}
			for _, f := range draw.Perm(len(faults)) {
				bounds()
				faults[f](draw.IntN(3))
				for i := range writes / len(faults) {
					if i == writes/len(faults)/2 {
						bounds()
					}
					time.Sleep(time.Duration(draw.ExpFloat64() * float64(20*time.Millisecond)))
					write()
				}
			}
			c.T.Logf("%d writes acknowledged, %d refused, %d unknown, %d stamped again", acknowledged, refused, unknown, restamps(c))
			require.Greater(c.T, acknowledged, writes/2)
			require.NotZero(c.T, restamps(c))
			for i := range c.Nodes() {
				c.Skew(i, 0)
			}
			time.Sleep(time.Hour)
			c.Check()
		})
	})
}

// restamps is how often the nodes stamped a write again, above another one.
func restamps(c *kvtest.Cluster) (n uint64) {
	for _, node := range c.Nodes() {
		n += node.DB().Metrics().Restamps
	}
	return n
}

// TestSimHerd (H4): all nodes are stopped and start at once, with many clients waiting.
// The first call succeeds within 10 s, and after a minute all is as before. What the
// nodes send each other besides is no more than exchanges at their steady pace.
func TestSimHerd(t *testing.T) {
	few(t, 1, func(t *testing.T, seed uint64) {
		const nodes, clients, exchangeEvery, exchangeBytes = 15, 1000, 5 * time.Second, 64 << 10
		simulate(t, seed, &kvtest.Options{Nodes: nodes}, func(c *kvtest.Cluster) {
			waitMembers(c, nodes)
			c.Settle()
			for i := range 200 {
				put(c, i%nodes, fmt.Sprint("key", i), i)
			}
			for i := range nodes {
				c.Stop(i)
			}
			time.Sleep(time.Minute)
			start := c.Now()
			var starts sync.WaitGroup
			for i := range nodes {
				starts.Go(func() { c.Restart(i) })
			}
			starts.Wait()
			w := &crowd{c: c, keys: 200, think: 5 * time.Second, first: 1}
			for i := range nodes {
				w.nodes = append(w.nodes, i)
			}
			w.start(clients)
			defer w.leave()
			time.Sleep(70 * time.Second)
			w.leave()
			background := uint64(0)
			for _, n := range c.Nodes() {
				m := n.DB().Metrics()
				background += m.ExchangeBytes + uint64(m.PendingHintBytes)
			}
			c.T.Logf("%d bytes in the background", background)
			require.NotZero(c.T, background)
			require.Less(c.T, background, uint64(nodes*(c.Now()-start)/exchangeEvery*exchangeBytes))
			report(c, check.Liveness(c.History(), check.Expected{Phases: []check.Phase{
				{Name: "10 s after the start", From: start, To: start + 10*time.Second, Calls: 100, Success: 0.01},
				{Name: "a minute after", From: start + time.Minute, To: start + 69*time.Second, Calls: 100, Success: 0.98, Within: 50 * time.Millisecond, Quantile: 0.99},
			}}))
			c.Check()
		})
	})
}

// TestSimRetryStorm (H5): clients try again, nearly at once, until they succeed. One disk
// is ten times slower for 30 s; the others, with the hints for it, have three quarters of the
// work that they can take. Goodput is as before 30 s after that, and there were hardly
// more attempts than calls.
func TestSimRetryStorm(t *testing.T) {
	const (
		bandwidth = 512 << 10 // of a log, bytes a second
		size      = 2000
		writes    = 135 // a second
		reads     = writes
		ill       = 30 * time.Second
		retry     = 10 * time.Millisecond
	)
	few(t, 1, func(t *testing.T, seed uint64) {
		var slower atomic.Int64
		var busy [3]atomic.Int64
		o := &kvtest.Options{Configure: func(i int, o *kvstore.Options) {
			o.MaxRequest = time.Second
			o.FS = vfs.Faulty(o.FS, func(op vfs.Op) error {
				// Zeros that a log writes ahead, in pieces of 256 KiB, come once only.
				if op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".log") && op.Len != 256<<10 {
					took := time.Duration(op.Len) * time.Second / bandwidth
					busy[i].Add(int64(took))
					if i == 1 {
						took *= time.Duration(max(1, slower.Load()))
					}
					time.Sleep(took)
				}
				return nil
			})
		}}
		simulate(t, seed, o, func(c *kvtest.Cluster) {
			waitMembers(c, 3)
			c.Settle()
			var clients sync.WaitGroup
			var attempts atomic.Int64
			var begun, done []time.Duration // when calls began and succeeded
			var mu sync.Mutex
			over := false
			defer clients.Wait()
			draw := rand.New(rand.NewPCG(seed, 13))
			calls := 0
			offer := func(d time.Duration) {
				for end := c.Now() + d; c.Now() < end; calls++ {
					id, key, node, read := calls, fmt.Sprint("key", draw.IntN(1000)), draw.IntN(3), draw.IntN(reads+writes) < reads
					begun = append(begun, c.Now())
					clients.Go(func() {
						for try := 0; try == 0 || !over; try++ {
							attempts.Add(1)
							var err error
							if n := c.Node((node + try) % 3); read {
								_, err = n.Get(ctx, key)
							} else {
								_, err = n.Put(ctx, key, check.Value(key, id<<8|try, size))
							}
							if err == nil || errors.Is(err, kvstore.ErrNotFound) {
								mu.Lock()
								done = append(done, c.Now())
								mu.Unlock()
								return
							}
							time.Sleep(retry) // a refusal takes no time
						}
					})
					time.Sleep(time.Duration(draw.ExpFloat64() * float64(time.Second) / (reads + writes)))
				}
			}
			in := func(events []time.Duration, from, to time.Duration) (n float64) {
				for _, at := range events {
					if at >= from && at < to {
						n++
					}
				}
				return n
			}
			good := func(from, to time.Duration) float64 { return in(done, from, to) / in(begun, from, to) }
			start := c.Now()
			offer(10 * time.Second)
			slow := c.Now()
			worked := busy[0].Load()
			slower.Store(10)
			offer(ill)
			slower.Store(0)
			load := float64(busy[0].Load()-worked) / float64(ill)
			require.InDelta(c.T, 0.75, load, 0.1)
			well := c.Now()
			offer(40 * time.Second)
			over = true
			clients.Wait()
			before, during, after := good(start, slow), good(slow, well), good(well+30*time.Second, well+40*time.Second)
			c.T.Logf("load %.2f; %d calls, %d attempts; goodput %.2f before, %.2f while one disk is slow, %.2f after", load, calls, attempts.Load(), before, during, after)
			require.GreaterOrEqual(c.T, after, 0.95)
			require.LessOrEqual(c.T, float64(attempts.Load()), 1.2*float64(calls))
			report(c, check.Liveness(c.History(), check.Expected{Phases: []check.Phase{
				{Name: "after", From: well + 30*time.Second, To: well + 39*time.Second, Calls: 1000, Success: 0.99, Within: 200 * time.Millisecond, Quantile: 0.99},
			}}))
			c.Check()
		})
	})
}

// TestSimRetryStormApart (H5): clients that try again until they succeed meet a node that
// is slow for 30 s, and for 5 s no quorum. When all is well again, it is so at once.
func TestSimRetryStormApart(t *testing.T) {
	few(t, 1, func(t *testing.T, seed uint64) {
		o := &kvtest.Options{Configure: func(_ int, o *kvstore.Options) { o.MaxRequest = time.Second }}
		simulate(t, seed, o, func(c *kvtest.Cluster) {
			waitMembers(c, 3)
			c.Settle()
			var clients sync.WaitGroup
			var over atomic.Bool
			leave := func() { over.Store(true); clients.Wait() }
			defer leave()
			for client := range 50 {
				clients.Go(func() {
					draw := rand.New(rand.NewPCG(seed, uint64(client)))
					ctx := kvtest.WithClient(ctx, client)
					for i := 0; !over.Load(); i++ {
						key := fmt.Sprint("key", draw.IntN(100))
						for try := 0; !over.Load(); try++ {
							_, err := c.Node(draw.IntN(3)).Put(ctx, key, check.Value(key, client<<30|i<<8|try, 80))
							if err == nil || errors.Is(err, kvstore.ErrClosed) {
								break
							}
						}
						time.Sleep(time.Duration(draw.ExpFloat64() * float64(200*time.Millisecond)))
					}
				})
			}
			time.Sleep(5 * time.Second)
			slow := c.Now()
			c.SlowDisk(1, 2*time.Second)
			c.Freeze(2, 5*time.Second)
			time.Sleep(30 * time.Second)
			c.SlowDisk(1, 0)
			well := c.Now()
			time.Sleep(15 * time.Second)
			leave()
			report(c, check.Liveness(c.History(), check.Expected{Phases: []check.Phase{
				{Name: "before", From: 0, To: slow, Calls: 100, Success: 0.99, Within: 50 * time.Millisecond, Quantile: 0.99},
				{Name: "after", From: well + 5*time.Second, To: well + 14*time.Second, Calls: 100, Success: 0.99, Within: 50 * time.Millisecond, Quantile: 0.99},
			}}))
			c.Check()
		})
	})
}
