package lsm

import "sync/atomic"

// A grace tells when memory that readers without locks may be in can be freed
// (sleepable read-copy-update, McKenney 2006). Readers enter, load a pointer, use
// what it points to, and leave. Who frees first takes the pointer away, then asks
// now, and frees when passed says so of that.
//
// Invariant: readers do no I/O and do not wait between enter and leave.
type grace struct {
	flips atomic.Uint64 // their parity is the phase that readers enter
	slots [readSlots]graceSlot
}

type graceSlot struct {
	in [2]atomic.Int64 // readers by phase
	_  [112]byte
}

// enter begins a reader's stay; leave takes what it gives.
func (g *grace) enter(slot int) *atomic.Int64 {
	in := &g.slots[slot].in[g.flips.Load()%2]
	in.Add(1)
	return in
}

func leave(in *atomic.Int64) { in.Add(-1) }

// now gives the present moment, for passed.
func (g *grace) now() uint64 { return g.flips.Load() }

// passed reports whether all readers that were there at the moment have left. It
// helps time on and does not wait. One goroutine at a time calls it.
func (g *grace) passed(moment uint64) bool {
	// A flip needs the other phase empty. A reader that loaded the phase before
	// a flip and counted itself after it is met by the second flip at the latest;
	// one that counts itself later still loads its pointer later, too.
	for g.flips.Load() < moment+2 {
		other := (g.flips.Load() + 1) % 2
		for i := range g.slots {
			if g.slots[i].in[other].Load() != 0 {
				return false
			}
		}
		g.flips.Add(1)
	}
	return true
}
