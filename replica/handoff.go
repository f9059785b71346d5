package replica

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Pace of a handoff.
const (
	// firstCredit is what is sent to a target before it has granted any.
	firstCredit = 64 << 10
	// retryHandoff is the wait after a first failure; it doubles up to retryHandoffMost.
	retryHandoff     = 200 * time.Millisecond
	retryHandoffMost = 5 * time.Second
)

// A Handoff decides which hints this node may keep and when they are sent: one
// batch at a time to each target that is alive, as large and as soon as the
// target's credit allows. It holds counts only; the hints themselves are on disk.
//
//	Admit ── Kept ──> pending ── Due ──> busy ── Answered ──> pending, or nothing left
//	  │ no room                            └──── Failed ────> pending, later
//	  └──> a mark instead
type Handoff struct {
	limit   int64
	targets map[uint64]*handoffTarget
}

type handoffTarget struct {
	hints, marks int
	bytes        int64
	busy         bool
	credit       int
	due          time.Time
	failures     int
}

// NewHandoff returns the state of a node that keeps nothing yet, and at most limit
// bytes for each target.
func NewHandoff(limit int64) *Handoff {
	return &Handoff{limit: limit, targets: map[uint64]*handoffTarget{}}
}

func (h *Handoff) target(uid uint64) *handoffTarget {
	t := h.targets[uid]
	if t == nil {
		t = &handoffTarget{credit: firstCredit}
		h.targets[uid] = t
	}
	return t
}

// Admit reports whether there is room for so many more bytes of hints.
func (h *Handoff) Admit(target uint64, bytes int64) bool {
	t := h.targets[target]
	return t == nil && bytes <= h.limit || t != nil && t.bytes+bytes <= h.limit
}

// Kept notes that hints were stored, or deleted where the numbers are negative.
func (h *Handoff) Kept(target uint64, hints int, bytes int64) {
	t := h.target(target)
	t.hints += hints
	t.bytes += bytes
}

// Marked notes that marks were stored or deleted.
func (h *Handoff) Marked(target uint64, marks int) { h.target(target).marks += marks }

// Pending is what is kept for a target.
func (h *Handoff) Pending(target uint64) (hints, marks int, bytes int64) {
	if t := h.targets[target]; t != nil {
		return t.hints, t.marks, t.bytes
	}
	return 0, 0, 0
}

// Targets are those that something is kept for, in order.
func (h *Handoff) Targets() []uint64 {
	var out []uint64
	for uid, t := range h.targets {
		if t.hints+t.marks > 0 {
			out = append(out, uid)
		}
	}
	slices.Sort(out)
	return out
}

// Due gives the target that waits longest for its next batch and the bytes that
// the batch may have, and takes it for busy until Answered or Failed.
func (h *Handoff) Due(now time.Time, alive func(target uint64) bool) (target uint64, bytes int, ok bool) {
	var best *handoffTarget
	for _, uid := range slices.Sorted(maps.Keys(h.targets)) {
		t := h.targets[uid]
		if t.busy || t.hints+t.marks == 0 || now.Before(t.due) || best != nil && !t.due.Before(best.due) || !alive(uid) {
			continue
		}
		best, target = t, uid
	}
	if best == nil {
		return 0, 0, false
	}
	best.busy = true
	return target, max(best.credit, 1), true
}

// Answered notes the target's credit.
func (h *Handoff) Answered(now time.Time, target uint64, c Credit) {
	t := h.target(target)
	t.busy, t.failures = false, 0
	t.credit = cmp.Or(int(min(c.Bytes, BatchBytes)), firstCredit)
	t.due = now.Add(c.After)
}

// Failed notes that a batch was refused, or may not have arrived.
func (h *Handoff) Failed(now time.Time, target uint64) {
	t := h.target(target)
	t.busy, t.credit = false, firstCredit
	t.due = now.Add(min(retryHandoff<<min(t.failures, 10), retryHandoffMost))
	t.failures++
}

// Next is when Due has to be asked again at the latest; false when nothing is
// kept that is not on its way. A target that comes back to life is due at once.
func (h *Handoff) Next() (at time.Time, ok bool) {
	for _, t := range h.targets {
		if !t.busy && t.hints+t.marks > 0 && (!ok || t.due.Before(at)) {
			at, ok = t.due, true
		}
	}
	return at, ok
}
