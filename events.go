package kvstore

import "fmt"

// An EventListener is told what happens in a node. Every field may be nil. The
// functions are called from the node's own goroutines, must not block and must
// not call Close.
type EventListener struct {
	// MemberChanged: a member of the cluster changed its state.
	MemberChanged func(MemberInfo)
	// EpochLearned: the cluster agreed a new epoch.
	EpochLearned func(EpochInfo)
}

// A MemberInfo tells that a member went from one state to another.
type MemberInfo struct{ ID, Addr, Before, State string }

// String is one line.
func (i MemberInfo) String() string {
	return fmt.Sprintf("member %s at %s: %s, was %s", i.ID, i.Addr, i.State, i.Before)
}

// An EpochInfo tells of a new epoch.
type EpochInfo struct {
	Number  uint64
	Members int
}

// String is one line.
func (i EpochInfo) String() string {
	return fmt.Sprintf("epoch %d with %d members", i.Number, i.Members)
}

func (l *EventListener) member(i MemberInfo) {
	if l.MemberChanged != nil {
		l.MemberChanged(i)
	}
}

func (l *EventListener) epoch(i EpochInfo) {
	if l.EpochLearned != nil {
		l.EpochLearned(i)
	}
}
