package kvstore_test

import (
	"testing"
	"time"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
)

// TestSimMixed: clients on all nodes put, get and delete at Quorum while a storm
// rages, on clusters that differ in size, loss, and how busy they are. Whatever
// happened, the history must be one that the promises allow, and all owners come to
// hold the same without being asked (I3).
//
//	go test -run TestSimMixed -seeds 1000
func TestSimMixed(t *testing.T) {
	var ok, failed int64
	var tally tally
	kvtest.Seeds(t, 60, func(t *testing.T, seed uint64) {
		o := &kvtest.Options{
			Nodes:     3 + int(seed%3),
			Loss:      []float64{0, 0, 0.01, 0.05}[seed%4],
			Duplicate: []float64{0, 0.01, 0.1}[seed%3],
			LoseDisks: seed%2 == 0,
			Configure: func(_ int, o *kvstore.Options) {
				o.MaxRequest, o.SuspectAfter = 2*time.Second, []time.Duration{time.Second, 5 * time.Second}[seed/2%2]
				o.MemoryBytes = 1 << 20 // memtables of 128 KiB: some are flushed
			},
		}
		simulate(t, seed, o, func(c *kvtest.Cluster) {
			c.Ready()
			w := &crowd{c: c, keys: 3 + int(seed%20), think: []time.Duration{5 * time.Millisecond, 50 * time.Millisecond}[seed%2]}
			for i := range c.Nodes() {
				w.nodes = append(w.nodes, i)
			}
			w.start(4 + int(seed%5))
			defer w.leave()
			before := c.Now()
			c.Storm(10 * time.Second)
			w.leave()
			c.Settle()
			time.Sleep(redialed)
			calm := c.Now()
			late := &crowd{c: c, keys: w.keys, nodes: w.nodes, think: w.think, first: 100}
			late.start(4)
			defer late.leave()
			time.Sleep(2 * time.Second)
			late.leave()
			report(c, check.Liveness(c.History(), check.Expected{Phases: []check.Phase{
				{Name: "storm", From: before, To: calm, Calls: 50, Success: 0.02},
				// Where one message in 20 is lost some calls take most of a second, and a
				// quarter of them have less.
				{Name: "calm", From: calm, To: c.Now(), Calls: 20, Success: 0.75, Within: time.Second, Quantile: 0.95},
			}}))
			heal(c, 2*time.Minute)
			converge(c, 2*time.Minute) // before Check reads, which repairs
			treesAgree(c)
			c.Check()
			tally.add(c)
			for k := range w.ok {
				ok += w.ok[k].Load()
				failed += w.failed[k].Load()
			}
		})
	})
	if tally.seeds >= 40 {
		for _, v := range check.Liveness(nil, check.Expected{Sometimes: tally.sometimes()}) {
			t.Error(v)
		}
	}
	t.Logf("%d seeds: %+v", tally.seeds, tally.sometimes())
	t.Logf("%d calls succeeded, %d failed", ok, failed)
	t.Logf("all simulations so far: %d calls, %v of virtual time", simulated.calls.Load(), time.Duration(simulated.time.Load()).Round(time.Second))
}

// redialed is when a node has a connection to another one again at the latest, if no
// message is lost: an attempt that was made in vain takes 5 s.
const redialed = 6 * time.Second

// report fails the test for each violation.
func report(c *kvtest.Cluster, violations []check.Violation) {
	c.T.Helper()
	for _, v := range violations {
		c.T.Error(v)
	}
}

// A tally adds up what the nodes did, over the seeds, since their latest start.
type tally struct {
	seeds                                      int
	restamps, writeBacks, spareReads           uint64
	hints, exchanged, rounds, failures, healed uint64
}

func (s *tally) add(c *kvtest.Cluster) {
	s.seeds++
	for _, n := range c.Nodes() {
		m := n.DB().Metrics()
		s.restamps += m.Restamps
		s.writeBacks += m.WriteBacks
		s.spareReads += m.SpareReads
		s.hints += m.HintsDelivered
		s.exchanged += m.ExchangedSent + m.ExchangedReceived
		s.rounds += m.Rounds
		s.healed += m.Healed
		s.failures += m.FailedGets + m.FailedWrites
	}
}

// sometimes is what must not be zero after many seeds.
func (s *tally) sometimes() map[string]uint64 {
	return map[string]uint64{
		"a write is stamped again": s.restamps, "a read writes back": s.writeBacks, "a read asks one more owner": s.spareReads,
		"a hint arrives": s.hints, "an exchange brings something": s.exchanged, "a round ends": s.rounds, "a call fails": s.failures, "lost data comes back": s.healed,
	}
}
