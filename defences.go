package kvstore

// defences are rules of the data path that a test may switch off, one at a time
// and before any node is opened, to prove that simulations notice. They are on
// in every program.
var defences = struct {
	WriteBack bool // of what a quorum read joined (I4)
	Restamp   bool // of writes that an owner calls superseded (I4)
	Hints     bool // for owners that missed a write (I3)
	Exchange  bool // between owners (I3)
	Rounds    bool // so that tombstones go
	// Promise: records behind what was promised are refused, and Merge: owners merge
	// before they record a horizon (I5).
	Promise, Merge bool
	// FreshActors: a start draws its actor of causal writes anew (I6).
	FreshActors bool
	// KeyLocks: causal writes of a key take turns at their coordinator, and
	// SyncFirst: they are stored there before they are sent (causal-chain).
	KeyLocks, SyncFirst bool
	// Incomplete: what this node lost is refused until it has exchanged with enough
	// others (HealQuorum), which promised first (HealPromise), and has dropped what they
	// have forgotten (HealDrop); and an older copy of the directory is found out (I1, I4,
	// I5, I8).
	Incomplete, HealQuorum, HealPromise, HealDrop, OldCopy bool
}{true, true, true, true, true, true, true, true, true, true, true, true, true, true, true}
