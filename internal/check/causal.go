package check

import (
	"bytes"
	"fmt"
	"slices"
)

// kept is K1 where there are causal writes: it tells why a final read cannot be.
// Every acknowledged value is there, or some write that may have been applied has
// superseded it: a causal one whose author had seen it, or a plain one that had not
// ended before. And none is there that an acknowledged causal write has superseded;
// but for the author's own last write, which the coordinator may not have heard of.
func kept(ops []Op, final Op) string {
	shown := final.shows()
	for i := range ops {
		x := &ops[i]
		if x.Kind != Put || x.Outcome != Applied {
			continue
		}
		switch {
		case !final.seen().Contains(x.Version):
			return fmt.Sprintf("lost without a trace: %v", x)
		case slices.ContainsFunc(shown, func(b []byte) bool { return bytes.Equal(b, x.Value) }):
		case !slices.ContainsFunc(ops, func(y Op) bool { return y.supersedes(x) }):
			return fmt.Sprintf("lost, and nobody who had seen it wrote: %v", x)
		}
	}
	for _, s := range final.Siblings {
		for i := range ops {
			if y := &ops[i]; y.Replaces != nil && y.Outcome == Applied && y.Replaces.Past.Contains(s.Dot) {
				return fmt.Sprintf("sibling %v %s is back, which this superseded: %v", s.Dot, describe(s.Value), y)
			}
		}
	}
	return ""
}

// supersedes reports whether y, another write of x's key, may have superseded x.
func (y *Op) supersedes(x *Op) bool {
	switch {
	case y.Kind == Get || y.Outcome == NotApplied || y.Kind == Put && bytes.Equal(y.Value, x.Value):
		return false
	case y.Replaces != nil:
		return y.Replaces.Contains(x.Version)
	case y.Kind == Put && y.Outcome == Applied:
		return x.Version.Less(y.Version) && (y.End >= x.Start || !x.Strict || !y.Strict)
	}
	return y.Outcome == Unknown || y.End >= x.Start
}
