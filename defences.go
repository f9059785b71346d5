package kvstore

// A defenceSet holds rules of the data path that a test may switch off, one at a time
// and before any node is opened, to prove that simulations notice.
type defenceSet struct {
	// Reads: what a quorum read joined is written back, before it returns, unless the
	// digests say that all have it, and beyond the quorum without being waited for
	// (ReadRepair); one more owner is asked when the first are slow (I4).
	WriteBack, WaitBack, ReadRepair, Digests, SpareReads bool
	// Writes: one that an owner calls superseded is stamped again; a failed one says
	// that it may have been stored.
	Restamp, Outcomes bool
	// Causal writes: each start has actors of its own (I6), other ones for plain
	// writes; those to a key take turns, are synced before they are sent, keep what
	// their author has not seen, and go to the next owner when one refuses.
	FreshActors, CausalActors, KeyLocks, SyncFirst, KeepUnseen, SiblingLimit, NextOwner bool
	// Sessions: reads cover what was seen, plain writes are stamped above it.
	Sessions, SessionFloor bool
	// Stamps: those too far ahead are refused, and none runs back over a restart.
	FutureStamps, Ceiling bool
	// TTL is judged by reads.
	TTL bool
	// Batches: each key has an answer of its own.
	BatchStatus bool
	// Fence: no data is taken while an epoch is agreed that presumes there is none.
	Fence bool
	// Hints for owners that missed a write (I3): joined with those there are, kept
	// over a restart, until the owner has just this.
	Hints, HintJoin, HintLoad, HintStamps, HintAck bool
	// Hints that count: refused without room for them; no horizon is above the floor of
	// any member (I1).
	CountedRoom, HintFloor bool
	// Exchange between owners (I3).
	Exchange bool
	// Expiry: what waits for its turn is not begun when nobody waits for it any more.
	Expiry bool
	// Yield: hints and exchanges go slower while clients' writes are slow.
	Yield bool
	// Rounds, so that tombstones go: with all owners, who merge before they record a
	// horizon. Purge: not before that. Promise: what comes late is refused; Late: also by
	// the coordinator of a causal write. ForgottenBase: a change is made of what was read
	// without what this owner has forgotten (I5).
	Rounds, AllOwners, Merge, Purge, Promise, Late, ForgottenBase bool
	// Incomplete: what this node lost is refused until it has exchanged with enough
	// others (HealQuorum), which promised first (HealPromise), and has dropped what they
	// have forgotten (HealDrop); and an older copy of the directory is found out (I1, I4,
	// I5, I8).
	Incomplete, HealQuorum, HealPromise, HealDrop, OldCopy bool
	// Inherit: so is all of a directory that took the place of another one; Bar: and it
	// takes no writes before; OneHeir: nor are such directories a majority of a
	// partition's owners (I1, I4).
	Inherit, Bar, OneHeir bool
	// Lapse: so is what it had acknowledged and not synced when it ended (I4).
	Lapse bool
}

// defences are on in every program.
var defences = defenceSet{
	WriteBack: true, WaitBack: true, ReadRepair: true, Digests: true, SpareReads: true,
	Restamp: true, Outcomes: true,
	FreshActors: true, CausalActors: true, KeyLocks: true, SyncFirst: true, KeepUnseen: true, SiblingLimit: true, NextOwner: true,
	Sessions: true, SessionFloor: true,
	FutureStamps: true, Ceiling: true,
	TTL:         true,
	BatchStatus: true,
	Fence:       true,
	Hints:       true, HintJoin: true, HintLoad: true, HintStamps: true, HintAck: true,
	CountedRoom: true, HintFloor: true,
	Exchange: true, Expiry: true, Yield: true,
	Rounds: true, AllOwners: true, Merge: true, Purge: true, Promise: true, Late: true, ForgottenBase: true,
	Incomplete: true, HealQuorum: true, HealPromise: true, HealDrop: true, OldCopy: true,
	Inherit: true, Bar: true, OneHeir: true,
	Lapse: true,
}
