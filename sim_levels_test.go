package kvstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
	"example.com/kvstore/vclock"
)

// TestSimClassicLevels runs the classic configurations of (N, W, R) through
// storms. Where R + W > N no read misses a write or a delete that was acknowledged before
// it began; elsewhere some are seen to. Of two reads, through whichever nodes, the later
// one never goes back where R is a majority: a write that was not acknowledged counts,
// too, once it was read. Elsewhere some are seen to.
func TestSimClassicLevels(t *testing.T) {
	for _, tt := range []struct {
		name        string
		write, read kvstore.Consistency
		includes    bool // R + W > N
		forward     bool // 2 R > N
		above       bool // 2 W > N: a write supersedes those acknowledged before it began
	}{
		{"3,3,1", kvstore.All, kvstore.One, true, false, true},
		{"3,1,3", kvstore.One, kvstore.All, true, true, false},
		{"3,2,2", kvstore.AtLeast(2), kvstore.AtLeast(2), true, true, true},
		{"All,All", kvstore.All, kvstore.All, true, true, true},
		{"3,1,1", kvstore.One, kvstore.One, false, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			missed, back, calls := 0, 0, 0
			for seed := uint64(1); seed <= 6; seed++ {
				o := &kvtest.Options{Loss: 0.02, Configure: func(_ int, o *kvstore.Options) { o.MaxRequest = time.Second }}
				simulate(t, seed, o, func(c *kvtest.Cluster) {
					c.Ready()
					waitMembers(c, 3)
					leave := levelCrowd(c, tt.write, tt.read)
					defer leave()
					c.Storm(4 * time.Second)
					leave()
					history := slices.DeleteFunc(c.History(), func(o check.Op) bool { return o.Outcome != check.Applied })
					calls += len(history)
					for _, v := range readsThatMiss(history, tt.above) {
						if missed++; tt.includes {
							c.T.Error(v)
						}
					}
					for _, v := range readsThatGoBack(history) {
						if back++; tt.forward {
							c.T.Error(v)
						}
					}
				})
			}
			t.Logf("%d calls, %d missed a write, %d went back behind another read", calls, missed, back)
			if !testing.Short() {
				require.Equal(t, tt.includes, missed == 0)
				require.Equal(t, tt.forward, back == 0)
			}
		})
	}
}

// readsThatMiss gives the reads that miss a write which had ended before they began;
// if above is set, a delete as well, which supersedes what ended before it began.
func readsThatMiss(history []check.Op, above bool) (violations []check.Violation) {
	least := make([]vclock.Dot, len(history)) // that a later read sees of each call
	for i, w := range history {
		least[i] = w.Version
		for _, o := range history {
			if above && w.Kind == check.Delete && o.Kind == check.Put && o.Key == w.Key && o.End < w.Start && least[i].Less(o.Version) {
				least[i] = o.Version
			}
		}
	}
	for _, r := range history {
		for i, w := range history {
			if r.Kind == check.Get && w.Kind != check.Get && r.Key == w.Key && w.End < r.Start &&
				(r.Version.Less(least[i]) || w.Kind == check.Delete && r.Found && r.Version == least[i]) {
				violations = append(violations, check.Violation{Rule: "K2", Op: r, Why: w.String()})
				break
			}
		}
	}
	return violations
}

// readsThatGoBack gives the reads of less than what a read that had ended before they
// began has seen.
func readsThatGoBack(history []check.Op) (violations []check.Violation) {
	for _, r := range history {
		for _, o := range history {
			if r.Kind == check.Get && o.Kind == check.Get && r.Key == o.Key && o.End < r.Start && r.Version.Less(o.Version) {
				violations = append(violations, check.Violation{Rule: "K2", Op: r, Why: o.String()})
				break
			}
		}
	}
	return violations
}

// levelCrowd lets six clients put, delete and get at the levels until they are told to
// leave.
func levelCrowd(c *kvtest.Cluster, write, read kvstore.Consistency) (leave func()) {
	var clients sync.WaitGroup
	over := make(chan struct{})
	for client := range 6 {
		clients.Go(func() {
			draw := rand.New(rand.NewPCG(c.Seed, uint64(client)))
			ctx := kvtest.WithClient(ctx, client)
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				case <-time.After(time.Duration(draw.ExpFloat64() * float64(5*time.Millisecond))):
				}
				node, key := c.Node(draw.IntN(3)), fmt.Sprint("key", draw.IntN(3))
				switch p := draw.IntN(12); {
				case p < 5:
					_, _ = node.Put(ctx, key, check.Value(key, client<<20|i, 60), write)
				case p < 6:
					_ = node.Delete(ctx, key, write)
				default:
					_, _ = node.Get(ctx, key, read)
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(over); clients.Wait() })
}

// TestSimSessions: at level One, through any node and whatever fails, the calls of
// a session never go back (K3). The same calls without a session do.
func TestSimSessions(t *testing.T) {
	for _, session := range []bool{true, false} {
		t.Run(fmt.Sprint("session ", session), func(t *testing.T) {
			broken, reads, failed := 0, 0, 0
			for seed := uint64(1); seed <= 10; seed++ {
				o := &kvtest.Options{Loss: 0.05, Configure: func(_ int, o *kvstore.Options) { o.MaxRequest = time.Second }}
				simulate(t, seed, o, func(c *kvtest.Cluster) {
					c.Ready()
					waitMembers(c, 3)
					var clients sync.WaitGroup
					over := make(chan struct{})
					leave := sync.OnceFunc(func() { close(over); clients.Wait() })
					defer leave()
					for client := range 6 {
						clients.Go(func() {
							draw := rand.New(rand.NewPCG(seed, uint64(client)))
							ctx := kvtest.WithClient(ctx, client)
							if session {
								ctx = kvtest.WithSession(ctx)
							}
							var last kvstore.Version
							for i := 0; ; i++ {
								select {
								case <-over:
									return
								case <-time.After(time.Duration(draw.ExpFloat64() * float64(5*time.Millisecond))):
								}
								node, key := c.Node(draw.IntN(3)), fmt.Sprint("key", draw.IntN(3))
								value := check.Value(key, client<<20|i, 60)
								switch p := draw.IntN(10); {
								case p < 5:
									it, err := node.Get(ctx, key, kvstore.One)
									if err == nil && key == "key0" {
										last = it.Version
									}
								case p < 8 && key != "key0":
									_, _ = node.Put(ctx, key, value, kvstore.One)
								case key == "key0": // causal writes only
									_, _ = node.Put(ctx, key, value, kvstore.One, kvstore.Replaces(last))
								default:
									_ = node.Delete(ctx, key, kvstore.One)
								}
							}
						})
					}
					c.Storm(4 * time.Second)
					leave()
					history := c.History()
					for i := range history {
						require.Equal(c.T, session, history[i].Session)
						history[i].Session = true
						if history[i].Kind == check.Get {
							reads++
							if history[i].Outcome != check.Applied {
								failed++
							}
						}
					}
					for _, v := range check.Sessions(history) {
						broken++
						if session {
							c.T.Error(v)
						}
					}
				})
			}
			t.Logf("%d reads, %d failed, %d calls went back", reads, failed, broken)
			if !testing.Short() {
				require.Equal(t, session, broken == 0)
			}
		})
	}
}

// TestSessionLimit: a session that has seen 1,000 keys makes its calls for others
// at Quorum, and still reads what it wrote.
func TestSessionLimit(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		c.Ready()
		waitMembers(c, 3)
		s := kvstore.WithSession(ctx)
		for i := range 1000 {
			_, err := c.Node(0).DB().Put(s, fmt.Sprint("key", i), []byte("v"), kvstore.One)
			require.NoError(c.T, err)
		}
		c.Partition([]int{0})
		_, err := c.Node(0).DB().Put(s, "key1", []byte("w"), kvstore.One)
		require.NoError(c.T, err)
		_, err = c.Node(0).DB().Put(s, "one too many", []byte("v"), kvstore.One)
		require.Error(c.T, err, "a quorum is out of reach")
		it, err := c.Node(0).DB().Get(s, "key1", kvstore.One)
		require.NoError(c.T, err)
		require.Equal(c.T, "w", string(it.Value))
		time.Sleep(20 * time.Second)
		_, err = c.Node(1).DB().Get(s, "key1", kvstore.One)
		require.ErrorIs(c.T, err, kvstore.ErrUnavailable, "the others have not got it")
		c.Heal()
		c.Settle()
		it, err = c.Node(1).DB().Get(s, "key1", kvstore.One)
		require.NoError(c.T, err)
		require.Equal(c.T, "w", string(it.Value))
	})
}

// TestSimTwoDataCentres: with 50 ms between them, calls at LocalQuorum take as long
// as within one, and a cut between them does not touch these; EachQuorum takes the
// way across, and is unavailable during the cut. Afterwards both hold the same, without
// anybody reading it.
func TestSimTwoDataCentres(t *testing.T) {
	const far = 50 * time.Millisecond
	centre := func(i int) int { return i / 3 }
	o := &kvtest.Options{Nodes: 6,
		Configure: func(i int, o *kvstore.Options) {
			o.N, o.DataCenter, o.Read = 6, fmt.Sprint("dc", centre(i)), kvstore.LocalQuorum
		},
		Distance: func(from, to int) time.Duration {
			if centre(from) != centre(to) {
				return far
			}
			return 0
		},
	}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		waitMembers(c, 6)
		c.Settle()
		took := func(call func() error) time.Duration {
			c.T.Helper()
			start := c.Now()
			require.NoError(c.T, call())
			return c.Now() - start
		}
		write := func(node int, key string, id int, level kvstore.Consistency, opts ...kvstore.PutOption) func() error {
			return func() error {
				_, err := c.Node(node).Put(ctx, key, check.Value(key, id, 60), append(opts, level)...)
				return err
			}
		}
		read := func(node int, key string, id int, level kvstore.Consistency) func() error {
			return func() error {
				it, err := c.Node(node).Get(ctx, key, level)
				if err == nil && string(it.Value) != string(check.Value(key, id, 60)) {
					err = errors.New("another value: " + string(it.Value))
				}
				return err
			}
		}
		for id := range 20 {
			key, node := fmt.Sprint("local", id%4), id%6
			require.Less(c.T, took(write(node, key, id, kvstore.LocalQuorum)), far/2)
			require.Less(c.T, took(read(centre(node)*3+(id+1)%3, key, id, kvstore.LocalQuorum)), far/2)
			require.Less(c.T, took(read(node, key, id, kvstore.LocalOne)), far/2)
			time.Sleep(4 * far) // until the other centre has it
			require.Greater(c.T, took(write(node, "each", id, kvstore.EachQuorum)), 2*far)
			require.Less(c.T, took(read((node+3)%6, "each", id, kvstore.LocalQuorum)), far/2)
			require.Greater(c.T, took(read((node+2)%6, "each", id, kvstore.EachQuorum)), 2*far)
			require.Less(c.T, took(write(node, "causal", id, kvstore.LocalQuorum, kvstore.Replaces(kvstore.Version{}))), far/2)
			require.Less(c.T, took(func() error { // whose first owner is in the other centre, for some
				_, err := c.Node(node).Update(ctx, fmt.Sprint("updated", id), func(kvstore.Item) ([]byte, error) { return []byte("v"), nil }, kvstore.LocalQuorum)
				return err
			}), far/2)
		}

		c.Partition([]int{0, 1, 2}, []int{3, 4, 5})
		time.Sleep(20 * time.Second) // until each side has given up the other
		for id := 100; id < 120; id++ {
			node := id % 6
			key := fmt.Sprint("cut", centre(node))
			require.Less(c.T, took(write(node, key, id, kvstore.LocalQuorum)), far/2)
			require.Less(c.T, took(read(centre(node)*3+(id+1)%3, key, id, kvstore.LocalQuorum)), far/2)
			err := write(node, "each", id, kvstore.EachQuorum)()
			require.ErrorIs(c.T, err, kvstore.ErrUnavailable)
			require.Equal(c.T, kvstore.NotApplied, kvstore.OutcomeOf(err))
			require.ErrorIs(c.T, read(node, "each", 19, kvstore.EachQuorum)(), kvstore.ErrUnavailable)
		}
		c.Heal()
		c.Settle()
		c.T.Logf("both hold the same after %v", converge(c, 2*time.Minute))
		for key, id := range map[string]int{"cut0": 116, "cut1": 119, "local1": 17, "local3": 19, "each": 19, "causal": 19} {
			for i := range 6 {
				for _, level := range []kvstore.Consistency{kvstore.One, kvstore.LocalQuorum, kvstore.EachQuorum, kvstore.All} {
					it, err := c.Node(i).Get(ctx, key, level)
					require.NoError(c.T, err)
					require.Contains(c.T, values(it), string(check.Value(key, id, 60)))
				}
			}
		}
		require.Empty(c.T, apart(c, check.Exchanged))
	})
}

// A fate is what happens to a request and to its reply on their way between a
// coordinator and an owner.
type fate int

const (
	arrives fate = iota
	requestLost
	replyLost
	bothLost
	requestLate // after the caller has given up
	replyLate
	refuses // the owner's clock is behind: to it the write comes from the future
	fates
)

// TestSimLossPatterns: of a write to three owners each of the requests and of the
// replies arrives, is lost or comes when nobody waits for it any more, or the owner
// refuses, in all combinations; plainly and causally, with a coordinator that is no
// owner and with each of the owners. A causal write that no owner coordinates is
// handed to the first one, and the fates are those of that message and of what the
// first owner sends.
//
// What the call says is true: one that was applied is at as many owners as the level
// says, one that was not applied is nowhere, then or later, and an unknown one is
// somewhere or not (C12).
func TestSimLossPatterns(t *testing.T) {
	const maxRequest = 500 * time.Millisecond
	for _, causal := range []bool{false, true} {
		for place := range 4 { // of the coordinator among the owners; the last is none
			t.Run(fmt.Sprint("causal ", causal, ", owner ", place), func(t *testing.T) {
				var late [4][4]atomic.Bool
				o := &kvtest.Options{Nodes: 4,
					Configure: func(_ int, o *kvstore.Options) { o.MaxRequest = maxRequest },
					Distance: func(from, to int) time.Duration {
						if late[from][to].Load() {
							return maxRequest + 200*time.Millisecond
						}
						return 0
					},
				}
				outcomes := map[string]int{}
				simulate(t, uint64(place+1), o, func(c *kvtest.Cluster) {
					waitMembers(c, 4)
					c.Settle()
					next := keysLike(c, keyOf(c.Node(0).DB(), "n0", "n1", "n2"))
					owners := ownersOf(c, next())
					owners = append(owners, 3)
					// links are those that have fates; the owner that coordinates has none.
					var links [3][2]int
					for i, owner := range owners[:3] {
						links[i] = [2]int{owners[place], owner}
						if causal && place == 3 && i > 0 {
							links[i][0] = owners[0]
						}
					}
					var absent []string
					for pattern := range int(fates * fates * fates) {
						var how [3]fate
						for i, n := 0, pattern; i < 3; i, n = i+1, n/int(fates) {
							how[i] = fate(n % int(fates))
						}
						if place < 3 && how[place] != arrives {
							continue
						}
						for i, level := range []kvstore.Consistency{kvstore.One, kvstore.Quorum} {
							need, key := i+1, next()
							base, err := c.Node(0).Put(ctx, key, check.Value(key, 0, 80), kvstore.All)
							require.NoError(c.T, err)
							time.Sleep(10 * time.Millisecond) // the next stamp is above all that anybody has seen
							opts := []kvstore.PutOption{level}
							if causal {
								opts = append(opts, kvstore.Replaces(base))
							}
							for i, l := range links {
								to, from := l[1], l[0]
								switch how[i] {
								case requestLost:
									c.Cut(from, to)
								case replyLost:
									c.Cut(to, from)
								case bothLost:
									c.Cut(from, to)
									c.Cut(to, from)
								case requestLate:
									late[from][to].Store(true)
								case replyLate:
									late[to][from].Store(true)
								case refuses:
									c.Skew(to, -2*time.Second)
								}
							}
							value := check.Value(key, 1, 80)
							_, err = c.Node(owners[place]).Put(ctx, key, value, opts...)
							outcome := kvstore.OutcomeOf(err)
							atOnce := holders(c, key, value)
							for i, l := range links {
								late[l[0]][l[1]].Store(false)
								late[l[1]][l[0]].Store(false)
								if how[i] == refuses {
									c.Skew(l[1], 0)
								}
							}
							c.Heal()
							time.Sleep(time.Second) // what is late arrives
							after := holders(c, key, value)

							acks := acknowledged(how, place, causal)
							at := fmt.Sprintf("%v at %v: %v", how, level, err)
							require.Equal(c.T, acks >= need, outcome == kvstore.Applied, at)
							switch outcome {
							case kvstore.Applied:
								require.GreaterOrEqual(c.T, atOnce, need, at)
							case kvstore.NotApplied:
								require.Zero(c.T, atOnce+after, at)
								absent = append(absent, key)
							default:
								outcomes[fmt.Sprint("somewhere ", after > 0)]++
							}
							outcomes[outcome.String()]++
						}
					}
					c.Check()
					for _, key := range absent {
						require.Zero(c.T, holders(c, key, check.Value(key, 1, 80)))
					}
				})
				t.Log(outcomes)
				require.NotZero(t, outcomes["applied"])
				require.NotZero(t, outcomes["unknown"])
				require.NotZero(t, outcomes["somewhere true"])
				if place == 3 { // an owner has stored it before it hears of the others
					require.NotZero(t, outcomes["not applied"])
					require.NotZero(t, outcomes["somewhere false"])
				}
			})
		}
	}
}

// acknowledged is how many owners acknowledge a write of TestSimLossPatterns.
func acknowledged(how [3]fate, place int, causal bool) (n int) {
	handed := causal && place == 3
	switch {
	case handed && how[0] == refuses: // the next one that does not takes it, with good links
		for _, f := range how {
			if f != refuses {
				n++
			}
		}
		return n
	case handed && how[0] != arrives:
		return 0
	}
	for _, f := range how {
		if f == arrives {
			n++
		}
	}
	return n
}

// keysLike gives one key after the other that has the same owners as a given one, in
// the same order.
func keysLike(c *kvtest.Cluster, key string) (next func() string) {
	owners, i := ownersOf(c, key), 0
	return func() string {
		for {
			i++
			if k := fmt.Sprint("like", i); slices.Equal(owners, ownersOf(c, k)) {
				return k
			}
		}
	}
}

// holders counts the running nodes whose own copy of key has a value.
func holders(c *kvtest.Cluster, key string, value []byte) (n int) {
	c.T.Helper()
	for _, node := range c.Nodes() {
		if db := node.DB(); db != nil {
			held, err := kvstore.HoldsOf(db, key)
			require.NoError(c.T, err)
			if bytes.Contains(held, value) {
				n++
			}
		}
	}
	return n
}

// TestSimNotApplied: a write that too few owners are there for, or that cannot be,
// was not applied, through any node, and nobody ever sees it; with enough of them it
// is applied.
func TestSimNotApplied(t *testing.T) {
	for away := 1; away < 8; away++ {
		t.Run(fmt.Sprintf("away %03b", away), func(t *testing.T) {
			outcomes := map[kvstore.Outcome]int{}
			simulate(t, uint64(away), &kvtest.Options{Nodes: 4}, func(c *kvtest.Cluster) {
				waitMembers(c, 4)
				c.Settle()
				next := keysLike(c, keyOf(c.Node(0).DB(), "n0", "n1", "n2"))
				var there []int
				for i, owner := range ownersOf(c, next()) {
					if away>>i&1 == 1 {
						c.Crash(owner)
					} else {
						there = append(there, owner)
					}
				}
				time.Sleep(20 * time.Second) // until they are taken for dead
				over, cancel := context.WithCancel(ctx)
				cancel()
				absent := map[string][]byte{}
				for _, node := range append(there, 3) {
					for _, causal := range []bool{false, true} {
						for _, tt := range []struct {
							ctx   context.Context
							need  int
							level kvstore.Consistency
							size  int
							err   error
						}{
							{ctx, 1, kvstore.One, 80, kvstore.ErrUnavailable},
							{ctx, 2, kvstore.Quorum, 80, kvstore.ErrUnavailable},
							{ctx, 3, kvstore.All, 80, kvstore.ErrUnavailable},
							{ctx, 4, kvstore.AtLeast(4), 80, kvstore.ErrInvalid},
							{ctx, 4, kvstore.One, 2 << 20, kvstore.ErrValueTooLarge},
							{over, 4, kvstore.One, 80, context.Canceled},
						} {
							key := next()
							value, opts := check.Value(key, 1, tt.size), []kvstore.PutOption{tt.level}
							if causal {
								opts = append(opts, kvstore.Replaces(kvstore.Version{}))
							}
							_, err := c.Node(node).Put(tt.ctx, key, value, opts...)
							outcomes[kvstore.OutcomeOf(err)]++
							if len(there) >= tt.need {
								require.NoError(c.T, err)
								require.GreaterOrEqual(c.T, holders(c, key, value), tt.need)
								continue
							}
							require.ErrorIs(c.T, err, tt.err)
							require.Equal(c.T, kvstore.NotApplied, kvstore.OutcomeOf(err), "%v", err)
							absent[key] = value
						}
					}
				}
				for i, n := range c.Nodes() {
					if !n.Runs() {
						c.Restart(i)
					}
				}
				c.Check()
				converge(c, 2*time.Minute)
				for key, value := range absent {
					require.Zero(c.T, holders(c, key, value))
				}
			})
			t.Log(outcomes)
			require.Zero(t, outcomes[kvstore.Unknown])
		})
	}
}
