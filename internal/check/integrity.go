package check

import (
	"fmt"

	"example.com/kvstore/vclock"
)

// Integrity is K6: every value read was written to this very key by a call that
// began before the read ended; and a version names one write only (I6).
func Integrity(history []Op) []Violation {
	var violations []Violation
	for _, ops := range byKey(history) {
		wrote := map[string]Op{}
		for _, o := range ops {
			if first, again := wrote[string(o.Value)]; o.Kind == Put && (!again || o.Start < first.Start) {
				wrote[string(o.Value)] = o
			}
		}
		named := map[vclock.Dot]Op{}
		for _, o := range ops {
			if o.Kind == Get && o.Found {
				w, ok := wrote[string(o.Value)]
				switch {
				case !ok && Intact(o.Key, o.Value):
					violations = append(violations, Violation{"K6", o, "an intact value that nobody wrote"})
				case !ok:
					violations = append(violations, Violation{"K6", o, "a value that nobody wrote to this key"})
				case w.Start > o.End:
					violations = append(violations, Violation{"K6", o, fmt.Sprintf("read before it was written: %v", w)})
				}
			}
			if o.Version.IsZero() || o.Outcome != Applied || o.Kind == Get && !o.Found {
				continue
			}
			first, again := named[o.Version]
			switch {
			case !again:
				named[o.Version] = o
			case string(first.Value) != string(o.Value) || first.Kind == Put && o.Kind == Put:
				violations = append(violations, Violation{"K6", o, fmt.Sprintf("the same version as %v", first)})
			}
		}
	}
	return violations
}
