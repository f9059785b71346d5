// Package topology agrees who the members of a cluster are and who owns what.
//
// That is an [Epoch]: numbered, immutable, naming the hash of the one before, so that
// the epochs of a cluster form one chain. Epoch e+1 is decided by single-decree Paxos
// (Lamport, "Paxos Made Simple", 2001) among the members of epoch e. Whatever is lost,
// repeated or reordered on the network, and whoever restarts, no two nodes ever learn
// different epochs of one number.
//
// An [Agent] is one node's part in this: a state machine without I/O, clock or
// goroutine. It is given messages and the time, and answers with [Effects]: what to
// persist, then what to publish and send.
//
//	fx := agent.Step(now, msg)
//	store(fx.Learned, fx.State)   // synced, before anything is sent
//	publish(fx.Learned)
//	for _, m := range fx.Send { send(m.Addr, m.Body) }
//
// # Joining
//
// A node asks its seeds, for ever. The member that is asked collects joiners for a
// moment and tries to agree an epoch that has them all. Data does not move between
// nodes yet, so this works until the first write only, and that is made certain by a
// fence: a member that promises for a join accepts no write from then on until it
// knows the epoch that comes of it. A member that has accepted one refuses the promise.
// A join needs the promise of every member, so when it is agreed nobody has data.
//
//	           promise for a join (durable)
//	open ---------------------------------------> fenced
//	  ^                                             |
//	  |  next epoch learned                         |  waited too long: decides the epoch
//	  +---------------------------------------------+  itself, as joined if some member has
//	                                                   accepted that, else without a change
//
// # A lost directory
//
// A node with the name of a member that is gone, and an empty directory, asks to join like
// any other. If the member that is asked is sure that the old one is gone
// (Config.Gone) it tries to agree an epoch that differs in the UID and address of
// that member. That takes a majority and no fence. No owner changes its name, but all
// that it owned counts as changed (ring.Renewed). What the new directory may answer
// for is not decided here; but there is never a partition of which a majority of the
// owners are such directories that are not known to have their data (Config.Whole): the
// old ones may be alive, out of reach, and answer each other.
//
// Members that were not reached learn the epoch when any later message, or
// [Agent.Heard], tells them that there is a newer one.
package topology
