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
	// Damaged: data of this node was lost. It answers no reads of these partitions
	// until it is Healed by the other owners.
	Damaged, Healed func(DamageInfo)
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

// A DamageInfo tells of partitions of which this node is, or was, an incomplete owner.
type DamageInfo struct {
	Partitions int
	// Lost, with Healed: no owner was whole, after all of them had ended without Close
	// under a lazy SyncPolicy. What the owners had left together is what there is now.
	Lost bool
}

// String is one line.
func (i DamageInfo) String() string {
	if i.Lost {
		return fmt.Sprintf("of %d partitions, writes that no owner had synced were lost", i.Partitions)
	}
	return fmt.Sprintf("data of %d partitions was lost at this node", i.Partitions)
}

func (l *EventListener) damaged(i DamageInfo) {
	if l.Damaged != nil {
		l.Damaged(i)
	}
}

func (l *EventListener) healed(i DamageInfo) {
	if l.Healed != nil {
		l.Healed(i)
	}
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
