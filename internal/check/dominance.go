package check

import (
	"cmp"
	"fmt"
	"slices"

	"example.com/kvstore/vclock"
)

// Dominance is K2, the claim of levels that intersect (I4): the version that a
// call gives is at least that of every write and read of the key that ended
// before it began; for a write it is above them.
//
// A delete does not tell its version, only that it is above all that ended
// before it began.
//
// For each key the calls are swept in the order of their times, with the floor
// that those which ended have established. Calls that touch at one instant
// count as concurrent.
func Dominance(history []Op) []Violation {
	var violations []Violation
	for _, ops := range byKey(history) {
		type event struct {
			i   int
			end bool
		}
		var events []event
		for i, o := range ops {
			if o.Strict && o.Outcome == Applied {
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
		var floor vclock.Dot
		by := -1                                   // the call that set the floor
		floors := make([]vclock.Dot, len(ops))     // at the start of each call
		established := make(map[int]int, len(ops)) // by which call
		for _, e := range events {
			o := ops[e.i]
			if !e.end {
				floors[e.i], established[e.i] = floor, by
				continue
			}
			version, least := o.Version, floors[e.i]
			switch o.Kind {
			case Delete:
				version = after(least)
			case Put:
				least = after(least)
			}
			if version.Less(least) {
				violations = append(violations, Violation{"K2", o, fmt.Sprintf("began after this ended: %v", ops[established[e.i]])})
			}
			if floor.Less(version) {
				floor, by = version, e.i
			}
		}
	}
	return violations
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
