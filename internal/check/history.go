package check

import (
	"fmt"
	"slices"
	"time"

	"example.com/kvstore/vclock"
)

// Kind is what an operation does.
type Kind uint8

const (
	Get Kind = iota
	Put
	Delete
)

// String gives the kind as a verb.
func (k Kind) String() string { return [...]string{"get", "put", "delete"}[k] }

// Outcome is what the caller was told.
type Outcome uint8

const (
	// Applied: the call succeeded; for a Get, there was an answer.
	Applied Outcome = iota
	// NotApplied: the call failed and left nothing behind.
	NotApplied
	// Unknown: the call failed and may have left something.
	Unknown
)

// String gives the outcome in words.
func (o Outcome) String() string { return [...]string{"applied", "not applied", "unknown"}[o] }

// An Op is one call as its caller saw it.
type Op struct {
	Client, Node int
	Key          string
	Kind         Kind
	// Start and End are real times, of one clock: the call took effect between
	// them, if it did.
	Start, End time.Duration
	// Strict says that the call's level intersects with every other strict one:
	// R + W > N.
	Strict  bool
	Outcome Outcome
	Err     string
	// Session says that the call belongs to its client's session.
	Session bool
	// Version is the dot written, for an acknowledged Put, or read: the greatest
	// that the read has seen. It is zero for a Get of a key never written, and for
	// a Delete, which does not tell.
	Version vclock.Dot
	// Seen is the whole version that the call returned. Zero stands for a plain
	// one of the dot Version.
	Seen vclock.Version
	// Replaces is what a causal write supersedes, nil for a plain one.
	Replaces *vclock.Version
	// Siblings are what a Get gave when there were several values.
	Siblings []Sibling
	// Found says that a Get gave a value.
	Found bool
	// Value was written or read. A value must be written once only in a history,
	// see Value.
	Value []byte
}

// A Sibling is one of several values of a key.
type Sibling struct {
	Dot   vclock.Dot
	Value []byte
}

// seen is the version that the call returned.
func (o *Op) seen() vclock.Version {
	if o.Seen.Own.IsZero() && o.Seen.Past.Equal(vclock.History{}) {
		return vclock.Version{Past: vclock.History{Floor: o.Version}}
	}
	return o.Seen
}

// shows gives the values that a Get returned.
func (o *Op) shows() [][]byte {
	if len(o.Siblings) == 0 {
		if !o.Found {
			return nil
		}
		return [][]byte{o.Value}
	}
	var all [][]byte
	for _, s := range o.Siblings {
		all = append(all, s.Value)
	}
	return all
}

// causal reports whether a key's calls include causal writes.
func causal(ops []Op) bool {
	return slices.ContainsFunc(ops, func(o Op) bool { return o.Replaces != nil })
}

// String is one line.
func (o Op) String() string {
	s := fmt.Sprintf("%v-%v client %d node %d %v %q", o.Start, o.End, o.Client, o.Node, o.Kind, o.Key)
	if o.Kind == Put || o.Found {
		s += fmt.Sprintf(" %s", describe(o.Value))
	}
	if !o.Version.IsZero() {
		s += fmt.Sprintf(" version %v", o.Version)
	}
	if o.Replaces != nil {
		s += fmt.Sprintf(" replaces %v", o.Replaces)
	}
	for _, b := range o.Siblings {
		s += fmt.Sprintf(" sibling %v %s", b.Dot, describe(b.Value))
	}
	if o.Outcome != Applied {
		s += fmt.Sprintf(": %v", o.Outcome)
	}
	if o.Err != "" {
		s += fmt.Sprintf(" (%s)", o.Err)
	}
	return s
}

// A Violation is one operation that contradicts the promises.
type Violation struct {
	Rule string // "K1" and so on
	Op   Op
	Why  string
}

// String tells the operation, or the key, and what it contradicts.
func (v Violation) String() string {
	switch {
	case v.Op.End == 0 && v.Op.Key == "":
		return fmt.Sprintf("%s: %s", v.Rule, v.Why)
	case v.Op.End == 0:
		return fmt.Sprintf("%s: key %q: %s", v.Rule, v.Op.Key, v.Why)
	}
	return fmt.Sprintf("%s: %v\n\t%s", v.Rule, v.Op, v.Why)
}

// All runs the checkers of histories, K1 to K4, K6 and K7. final are reads of every key after all faults were
// healed and all calls of the history had ended.
func All(history, final []Op) []Violation {
	all := append(append([]Op(nil), history...), final...)
	v := Durability(history, final)
	v = append(v, Dominance(all)...)
	v = append(v, Sessions(all)...)
	v = append(v, Linearizability(all)...)
	v = append(v, Integrity(all)...)
	return append(v, Outcomes(all)...)
}

// purged reports whether a Get that found nothing at all, not even the version of a
// delete, is explained by a delete that was forgotten since, as kvstore does when all
// owners have it: some delete began before the Get ended, and had not ended when the
// last of the writes began that the Get should have seen.
func purged(ops []Op, get *Op) bool {
	if get.Kind != Get || get.Found || !get.Version.IsZero() {
		return false
	}
	var last time.Duration
	for i := range ops {
		if o := &ops[i]; o.Kind == Put && o.Outcome == Applied && o.End < get.Start {
			last = max(last, o.Start)
		}
	}
	return slices.ContainsFunc(ops, func(d Op) bool {
		return d.Kind == Delete && d.Start < get.End && (d.Outcome == Unknown || d.Outcome == Applied && d.End >= last)
	})
}

// after is the least dot above d: "at or above after(d)" is "above d".
func after(d vclock.Dot) vclock.Dot {
	if d.IsZero() {
		return vclock.Dot{Actor: 1}
	}
	d.Actor++
	if d.Actor == 0 {
		d.Stamp++
	}
	return d
}

// newer gives the greater of two dots.
func newer(a, b vclock.Dot) vclock.Dot {
	if a.Less(b) {
		return b
	}
	return a
}
