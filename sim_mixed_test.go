package kvstore_test

import (
	"maps"
	"testing"
	"time"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
)

// TestSimMixed: clients on all nodes put, get and delete at Quorum while storms rage, with
// a quiet time after each, in which few call and the nodes bring each other what they
// missed; on clusters that differ in size, loss, and how busy they are. Whatever happened,
// the history must be one that the promises allow, and all owners come to hold the same
// without being asked (I3).
//
//	go test -run TestSimMixed -seeds 1000
func TestSimMixed(t *testing.T) {
	const storms, storm, quiet = 2, 8 * time.Second, 75 * time.Second
	var tally tally
	kvtest.Seeds(t, 60, func(t *testing.T, seed uint64) {
		o := &kvtest.Options{
			Nodes:     3 + int(seed%5),
			Loss:      []float64{0, 0, 0.01, 0.05}[seed%4],
			Duplicate: []float64{0, 0.01, 0.1}[seed%3],
			LoseDisks: seed%2 == 0,
			Configure: func(_ int, o *kvstore.Options) {
				o.MaxRequest, o.SuspectAfter = 2*time.Second, []time.Duration{time.Second, 5 * time.Second}[seed/2%2]
				o.MemoryBytes = 1 << (20 + 2*(seed/3%2)) // with 1 MiB memtables of 128 KiB: some are flushed
			},
		}
		simulate(t, seed, o, func(c *kvtest.Cluster) {
			c.Ready()
			var phases []check.Phase
			w := &crowd{c: c, keys: 3 + int(seed%20), alone: true}
			for i := range c.Nodes() {
				w.nodes = append(w.nodes, i)
			}
			// stay has n clients call while something happens.
			stay := func(n int, think time.Duration, p check.Phase, happens func()) {
				w.think, p.From = think, c.Now()
				w.start(n)
				defer w.leave()
				happens()
				w.leave()
				p.To = c.Now()
				phases = append(phases, p)
			}
			// Where one message in 20 is lost some calls take most of a second, and a
			// quarter of them have less.
			still := check.Phase{Name: "quiet", Calls: 20, Success: 0.75, Within: time.Second, Quantile: 0.95}
			think := []time.Duration{5 * time.Millisecond, 50 * time.Millisecond}[seed%2]
			for range storms {
				stay(4+int(seed%5), think, check.Phase{Name: "storm", Calls: 20, Success: 0.02}, func() { c.Storm(storm) })
				c.Settle()
				time.Sleep(redialed)
				stay(2, 2*time.Second, still, func() { time.Sleep(quiet) })
			}
			report(c, check.Liveness(c.History(), check.Expected{Phases: phases}))
			heal(c, 2*time.Minute)
			converge(c, 2*time.Minute) // before Check reads, which repairs
			treesAgree(c)
			c.Check()
			tally.add(c, phases)
		})
	})
	if tally.seeds >= 40 {
		for _, v := range check.Liveness(nil, check.Expected{Sometimes: tally.sometimes()}) {
			t.Error(v)
		}
		for name, least := range map[string]float64{"storm": 0.5, "quiet": 0.95} {
			if s := tally.success(name); s < least {
				t.Errorf("%s: %.3f of the calls succeeded, less than %v", name, s, least)
			}
		}
	}
	t.Logf("%d seeds: %+v", tally.seeds, tally.sometimes())
	t.Logf("%.3f of the calls in storms succeeded, %.3f in quiet times", tally.success("storm"), tally.success("quiet"))
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
	faults                                     map[string]uint64
	calls, ok                                  map[string]float64 // by the name of the phase
}

func (s *tally) add(c *kvtest.Cluster, phases []check.Phase) {
	if s.seeds++; s.seeds == 1 {
		s.faults, s.calls, s.ok = map[string]uint64{}, map[string]float64{}, map[string]float64{}
		for _, fault := range []string{"crash", "lost disk", "stop", "flapping", "partition", "one-way cut", "skew", "drift", "slow disk", "blackout", "freeze"} {
			s.faults[fault] = 0
		}
	}
	for fault, n := range c.Faults() {
		s.faults[fault] += n
	}
	for _, o := range c.History() {
		for _, p := range phases {
			if o.Start >= p.From && o.Start < p.To {
				s.calls[p.Name]++
				if o.Outcome == check.Applied {
					s.ok[p.Name]++
				}
			}
		}
	}
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

// success is the share of a phase's calls that succeeded.
func (s *tally) success(phase string) float64 { return s.ok[phase] / s.calls[phase] }

// sometimes is what must not be zero after many seeds.
func (s *tally) sometimes() map[string]uint64 {
	all := map[string]uint64{
		"a write is stamped again": s.restamps, "a read writes back": s.writeBacks, "a read asks one more owner": s.spareReads,
		"a hint arrives": s.hints, "an exchange brings something": s.exchanged, "a round ends": s.rounds, "a call fails": s.failures, "lost data comes back": s.healed,
	}
	maps.Copy(all, s.faults)
	return all
}
