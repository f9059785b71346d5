package gossip

import (
	"cmp"
	"time"
)

// State is what this node believes about a member.
type State uint8

// The states of a member. The zero State stands for "not known".
const (
	Alive   State = 1 + iota
	Suspect       // silent: probes, direct and through others, went unanswered
	Dead          // suspected for long without a refutation
)

// String gives the state's word.
func (s State) String() string {
	switch s {
	case Alive:
		return "alive"
	case Suspect:
		return "suspect"
	case Dead:
		return "dead"
	}
	return "unknown"
}

// A Member is a snapshot of what this node knows about one member.
type Member struct {
	ID          string
	Addr        string
	State       State
	Incarnation uint64    // grows with every restart and every refutation
	Heartbeat   uint64    // grows by about one per Interval within an incarnation
	Meta        []byte    // the member's own opaque bytes; shared, do not modify
	Seen        time.Time // when news of its life last came in, by the caller's clock
}

// A Change says that a member became known, changed its state, restarted, or
// changed its address or meta. Changes to one member between two calls of
// [Gossip.Changes] are reported once: State is the newest, Before the oldest.
type Change struct {
	Member
	Before State // zero for a member that was not known
}

// A version places one piece of news about a member. Versions are totally
// ordered by (incarnation, heartbeat, state) and merging keeps the greater one,
// so merging is commutative, associative and idempotent. A suspicion or a death
// is bound to the heartbeat it was seen at: it wins over that heartbeat, and any
// later heartbeat refutes it.
type version struct {
	incarnation uint64
	heartbeat   uint64
	state       State
}

func (v version) compare(w version) int {
	return cmp.Or(cmp.Compare(v.incarnation, w.incarnation), cmp.Compare(v.heartbeat, w.heartbeat), cmp.Compare(v.state, w.state))
}

// A body is what changes rarely: it travels only when the other side lacks it.
// Within one incarnation it is named by the heartbeat at which it was set.
type body struct {
	addr string
	meta []byte
}

// member is the record behind a Member. Times are on the node's own monotone
// clock (see clock.go).
type member struct {
	version
	body
	id     string
	bodyAt uint64 // heartbeat at which body was set; 0: this incarnation's body is not known
	seen   time.Time

	probe // the question put to it, if any (probe.go)

	suspectAt time.Duration // when this version became suspect here
	sends     int           // how often this news still goes out (news.go)
	queued    bool          // in Gossip.news
	changed   bool          // in Gossip.changed
	before    State         // its state at the last call of Changes
	gone      bool          // no longer in the table
}

// lacks reports whether a record known up to (incarnation, bodyAt) misses m's body.
func (m *member) lacks(incarnation, bodyAt uint64) bool {
	return incarnation < m.incarnation || incarnation == m.incarnation && bodyAt < m.bodyAt
}

func (m *member) snapshot() Member {
	return Member{
		ID: m.id, Addr: m.addr, State: m.state, Incarnation: m.incarnation,
		Heartbeat: m.heartbeat, Meta: m.meta, Seen: m.seen,
	}
}
