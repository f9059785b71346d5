package topology

// A ballot orders the attempts to decide one epoch. The UID of the proposer makes it
// unique; the zero ballot is below all.
type ballot struct{ round, uid uint64 }

func (b ballot) less(o ballot) bool {
	return b.round < o.round || b.round == o.round && b.uid < o.uid
}

// An acceptor is one member's vote on one epoch (Lamport, "Paxos Made Simple",
// section 2.2). All of it must be durable before an answer that reflects it is sent:
// an acceptor that forgets can decide an epoch twice.
type acceptor struct {
	promised ballot // refuses what is below
	accepted ballot // zero: nothing accepted. Invariant: accepted <= promised
	value    []byte // what was accepted
}

// prepare answers phase 1. After true, accepted and value are to be told to the proposer.
func (a *acceptor) prepare(b ballot) bool {
	if b.less(a.promised) {
		return false
	}
	a.promised = b
	return true
}

// accept answers phase 2. It keeps v.
func (a *acceptor) accept(b ballot, v []byte) bool {
	if b.less(a.promised) {
		return false
	}
	a.promised, a.accepted, a.value = b, b, v
	return true
}
