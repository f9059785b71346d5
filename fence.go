package kvstore

import (
	"context"
	"sync/atomic"
	"time"
)

// A fence stops data from being accepted, and from being read, while the cluster agrees an epoch that
// presumes there is none: a member that has promised does not know whether the
// others already write in the next epoch. Only the members' loop raises and lowers
// it.
//
// Invariant: either raise sees data, or every later admit sees it raised. Both
// sides write their own flag before they read the other's.
type fence struct {
	data, raised atomic.Bool
	// lowered is closed when the fence that is up, or was last, is lowered.
	lowered atomic.Pointer[chan struct{}]
}

// admit notes that this node accepts data, and reports whether it may.
func (f *fence) admit() bool {
	if !defences.Fence {
		return true
	}
	if f.raised.Load() {
		return false
	}
	if !f.data.Load() {
		f.data.Store(true)
	}
	return !f.raised.Load()
}

// raise stops data and reports whether this node ever accepted any; then the
// fence stays as it was.
func (f *fence) raise() (hasData bool) {
	if f.data.Load() { // for good: no need to disturb the writers
		return true
	}
	if !f.raised.Load() {
		lowered := make(chan struct{})
		f.lowered.Store(&lowered)
		f.raised.Store(true)
	}
	return f.data.Load()
}

func (f *fence) lower() {
	if f.raised.CompareAndSwap(true, false) {
		close(*f.lowered.Load())
	}
}

// await waits until the fence is down.
func (f *fence) await(ctx context.Context, deadline time.Time) error {
	if !f.raised.Load() {
		return nil
	}
	timeout := time.NewTimer(deadline.Sub(now()))
	defer timeout.Stop()
	select {
	case <-*f.lowered.Load():
		return nil
	case <-timeout.C:
		return ErrTimeout
	case <-ctx.Done():
		return contextError(ctx)
	}
}

// acceptData reports whether this node may take data in the epoch of v.
func (db *DB) acceptData(v *view) bool {
	if !db.clock.used.Load() {
		db.clock.used.Store(true)
	}
	return db.fence.admit() && db.view.Load().epoch.Number == v.epoch.Number
}
