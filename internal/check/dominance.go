package check

import (
	"cmp"
	"slices"

	"example.com/kvstore/vclock"
)

// Dominance is K2, the claim of levels that intersect (I4): what a read has seen
// contains what every write and read of the key had seen that ended before it
// began; a plain write is stamped above all of that.
//
// A plain delete does not tell its version, only that it is above all that ended
// before it began.
//
// A read that finds nothing at all, not even the version of a delete, may come after
// one that was forgotten.
//
// For each key the calls are swept in the order of their times, with what those
// which ended have established. Calls that touch at one instant count as
// concurrent.
func Dominance(history []Op) []Violation {
	var violations []Violation
	for _, ops := range byKey(history) {
		violations = append(violations, forward("K2", ops, ops, func(o *Op) bool { return o.Strict })...)
	}
	return violations
}

// Sessions is K3: within a session reads see the session's own writes, and what
// its earlier reads have seen, at every level; and its plain writes are stamped
// above both.
func Sessions(history []Op) []Violation {
	var violations []Violation
	for _, ops := range byKey(history) {
		clients := map[int][]Op{}
		var order []int
		for _, o := range ops {
			if o.Session {
				if clients[o.Client] == nil {
					order = append(order, o.Client)
				}
				clients[o.Client] = append(clients[o.Client], o)
			}
		}
		for _, client := range order {
			violations = append(violations, forward("K3", ops, clients[client], func(*Op) bool { return true })...)
		}
	}
	return violations
}

// An established is what calls that ended have seen: an entry of a history claims
// earlier dots of its actor, so the dots of authors that could not make that claim
// stand apart.
type established struct {
	past vclock.History
	own  []vclock.Dot
}

func (e established) add(v vclock.Version) established {
	e.past = e.past.Join(v.Past)
	if !v.Own.IsZero() {
		e.own = append(slices.Clone(e.own), v.Own)
	}
	return e
}

// within reports whether v has seen all of it.
func (e *established) within(v vclock.Version) bool {
	return v.Past.Covers(e.past) && !slices.ContainsFunc(e.own, func(d vclock.Dot) bool { return !v.Contains(d) })
}

func (e *established) max() vclock.Dot {
	top := e.past.Max()
	for _, d := range e.own {
		top = newer(top, d)
	}
	return top
}

// forward checks that calls of one key only go forward, those of ops that count. All
// are the calls of the key.
func forward(rule string, all, ops []Op, counts func(*Op) bool) []Violation {
	type event struct {
		i   int
		end bool
	}
	var events []event
	for i := range ops {
		if ops[i].Outcome == Applied && counts(&ops[i]) {
			events = append(events, event{i, false}, event{i, true})
		}
	}
	slices.SortStableFunc(events, func(a, b event) int {
		ta, tb := ops[a.i].Start, ops[b.i].Start
		if a.end {
			ta = ops[a.i].End
		}
		if b.end {
			tb = ops[b.i].End
		}
		if ta == tb && a.end != b.end { // starts first
			if a.end {
				return 1
			}
			return -1
		}
		return cmp.Compare(ta, tb)
	})
	var violations []Violation
	var now established
	atStart := make([]established, len(ops))
	var ended []int
	for _, e := range events {
		o := &ops[e.i]
		if !e.end {
			atStart[e.i] = now
			continue
		}
		seen, least := o.seen(), atStart[e.i]
		broken := false
		switch {
		case o.Kind == Get:
			broken = !least.within(seen) && !purged(all, o)
		case o.Replaces != nil && o.Kind == Delete:
			seen = *o.Replaces
		case o.Kind == Delete:
			seen = vclock.Version{Past: vclock.History{Floor: after(least.max())}}
		case o.Replaces == nil:
			broken = o.Version.Compare(least.max()) <= 0 && least.max() != vclock.Dot{}
		}
		if broken {
			violations = append(violations, Violation{rule, *o, "began after this ended: " + culprit(ops, ended, o)})
		}
		now = now.add(seen)
		ended = append(ended, e.i)
	}
	return violations
}

// culprit is the last call that ended before o began and that o contradicts.
func culprit(ops []Op, ended []int, o *Op) string {
	for _, i := range slices.Backward(ended) {
		p := &ops[i]
		one := established{}.add(p.seen())
		if p.End < o.Start && (o.Kind == Get && !one.within(o.seen()) || o.Kind != Get && o.Version.Compare(one.max()) <= 0) {
			return p.String()
		}
	}
	return "a delete, or several calls"
}

// byKey groups a history, in the order of the keys.
func byKey(history []Op) [][]Op {
	keys := map[string][]Op{}
	for _, o := range history {
		keys[o.Key] = append(keys[o.Key], o)
	}
	var groups [][]Op
	for _, ops := range keys {
		groups = append(groups, ops)
	}
	slices.SortFunc(groups, func(a, b []Op) int { return cmp.Compare(a[0].Key, b[0].Key) })
	return groups
}
