package check

import (
	"fmt"

	"example.com/kvstore/vclock"
)

// Durability is K1. For plain writes: a final read of a key shows the
// acknowledged write with the highest version, or a later one, which can only
// be of a call whose outcome is unknown, or a delete. For keys with causal writes
// see kept.
//
// Every key that was ever written must have a final read that succeeded.
func Durability(history, final []Op) []Violation {
	var violations []Violation
	reads := map[string][]Op{}
	for _, o := range final {
		reads[o.Key] = append(reads[o.Key], o)
	}
	for _, ops := range byKey(history) {
		contradiction := func(r Op) string { return kept(ops, r) }
		if !causal(ops) {
			s := settle(ops)
			contradiction = s.contradiction
		}
		key := ops[0].Key
		answered := false
		for _, r := range reads[key] {
			if r.Outcome != Applied {
				continue
			}
			answered = true
			if why := contradiction(r); why != "" && !purged(ops, &r) {
				violations = append(violations, Violation{"K1", r, why})
			}
		}
		if !answered {
			violations = append(violations, Violation{"K1", Op{Key: key}, "the key can't be read after everything was healed"})
		}
	}
	return violations
}

// A settled is what the calls of one key leave when all have ended.
type settled struct {
	last      Op         // the acknowledged Put with the highest version
	floor     vclock.Dot // no final version is below it
	deletable bool       // some delete was applied, or may have been
	unknown   map[string]bool
}

func settle(ops []Op) settled {
	s := settled{unknown: map[string]bool{}}
	for _, o := range ops {
		switch {
		case o.Kind == Put && o.Outcome == Applied:
			if s.last.Version.Less(o.Version) {
				s.last = o
			}
		case o.Kind == Put && o.Outcome == Unknown:
			s.unknown[string(o.Value)] = true
		case o.Kind == Delete && o.Outcome != NotApplied:
			s.deletable = true
		}
	}
	s.floor = s.last.Version
	for _, d := range ops { // an acknowledged delete is above what ended before it
		if d.Kind != Delete || d.Outcome != Applied || !d.Strict {
			continue
		}
		for _, o := range ops {
			if o.Kind == Put && o.Outcome == Applied && o.Strict && o.End < d.Start {
				s.floor = newer(s.floor, after(o.Version))
			}
		}
	}
	return s
}

// contradiction tells why a final read cannot be.
func (s *settled) contradiction(r Op) string {
	switch {
	case r.Version.Less(s.floor):
		return fmt.Sprintf("lost: %v, or a delete after it", s.last)
	case r.Found && r.Version == s.last.Version:
		if string(r.Value) != string(s.last.Value) {
			return fmt.Sprintf("another value under the version of %v", s.last)
		}
	case r.Found && !s.unknown[string(r.Value)]:
		return fmt.Sprintf("a value that no call with an unknown outcome wrote, above the last acknowledged %v", s.last)
	case !r.Found && !s.deletable && !s.last.Version.IsZero():
		return fmt.Sprintf("nobody deleted what this wrote: %v", s.last)
	}
	return ""
}
