package gossip

import "fmt"

// Metrics is a snapshot of a node's counters.
type Metrics struct {
	MessagesIn, MessagesOut uint64
	BytesIn, BytesOut       uint64
	Rejected                uint64 // messages and entries refused: malformed, implausible, from forgotten members
	Refutations             uint64 // how often this node took a new incarnation because it was accused
	Health                  int    // 0: this node trusts itself; up to 3: it gives the others up to 4 times the time
	Alive, Suspect, Dead    int
}

// Metrics returns the counters since New.
func (g *Gossip) Metrics() Metrics {
	m := g.metrics
	m.Health = g.health.score
	m.Alive, m.Suspect, m.Dead = g.count[Alive], g.count[Suspect], g.count[Dead]
	return m
}

// String prints the snapshot as one line.
func (m Metrics) String() string {
	return fmt.Sprintf("alive %d, suspect %d, dead %d, health %d, in %d (%d B), out %d (%d B), rejected %d, refutations %d",
		m.Alive, m.Suspect, m.Dead, m.Health, m.MessagesIn, m.BytesIn, m.MessagesOut, m.BytesOut, m.Rejected, m.Refutations)
}
