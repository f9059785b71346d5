package check

import (
	"fmt"

	"example.com/kvstore/vclock"
)

// Integrity is K6: every value read was written to this very key by a call that
// began before the read ended; and a dot names one write only (I6).
func Integrity(history []Op) []Violation {
	var violations []Violation
	for _, ops := range byKey(history) {
		wrote := map[string]Op{}
		for _, o := range ops {
			if first, again := wrote[string(o.Value)]; o.Kind == Put && (!again || o.Start < first.Start) {
				wrote[string(o.Value)] = o
			}
		}
		named := map[vclock.Dot]naming{}
		for _, o := range ops {
			if o.Kind == Get {
				for _, value := range o.shows() {
					w, ok := wrote[string(value)]
					switch {
					case !ok && Intact(o.Key, value):
						violations = append(violations, Violation{"K6", o, "an intact value that nobody wrote"})
					case !ok:
						violations = append(violations, Violation{"K6", o, "a value that nobody wrote to this key"})
					case w.Start > o.End:
						violations = append(violations, Violation{"K6", o, fmt.Sprintf("read before it was written: %v", w)})
					}
				}
			}
			for _, n := range namings(o) {
				first, again := named[n.dot]
				switch {
				case !again:
					named[n.dot] = n
				case string(first.value) != string(n.value) || first.op.Kind == Put && o.Kind == Put:
					violations = append(violations, Violation{"K6", o, fmt.Sprintf("the same version as %v", first.op)})
				}
			}
		}
	}
	return violations
}

// A naming is a dot and the value that a call says it names.
type naming struct {
	dot   vclock.Dot
	value []byte
	op    Op
}

// namings gives the dots that a call tells. A read of one value that a causal
// write made does not tell that write's.
func namings(o Op) []naming {
	var all []naming
	for _, s := range o.Siblings {
		all = append(all, naming{s.Dot, s.Value, o})
	}
	plain := len(o.Seen.Past.V) == 0
	if o.Outcome == Applied && !o.Version.IsZero() && (o.Kind == Put || o.Kind == Get && o.Found && plain && len(all) == 0) {
		all = append(all, naming{o.Version, o.Value, o})
	}
	return all
}
