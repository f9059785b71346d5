package base

import (
	"math"
	"slices"
)

// A Span is a range of tokens, both bounds included.
type Span struct{ Lo, Hi uint64 }

// Contains reports whether the token is in the span.
func (s Span) Contains(token uint64) bool { return s.Lo <= token && token <= s.Hi }

// Meets reports whether the two have a token in common.
func (s Span) Meets(x Span) bool { return s.Lo <= x.Hi && x.Lo <= s.Hi }

// Spans is a set of tokens: ascending spans with a gap between each two. It is
// never changed once made.
type Spans []Span

// Contains reports whether the token is in the set.
func (s Spans) Contains(token uint64) bool {
	_, found := slices.BinarySearchFunc(s, token, func(x Span, token uint64) int {
		switch {
		case x.Hi < token:
			return -1
		case x.Lo > token:
			return 1
		}
		return 0
	})
	return found
}

// With gives the set and all of x.
func (s Spans) With(x Span) Spans {
	out := make(Spans, 0, len(s)+1)
	for _, y := range s {
		switch {
		case y.Hi < x.Lo && y.Hi+1 < x.Lo:
			out = append(out, y)
		case x.Hi < y.Lo && x.Hi+1 < y.Lo:
			out = append(out, x)
			x = y
		default:
			x = Span{min(x.Lo, y.Lo), max(x.Hi, y.Hi)}
		}
	}
	return append(out, x)
}

// Without gives the set less x; nil when nothing is left.
func (s Spans) Without(x Span) Spans {
	var out Spans
	for _, y := range s {
		if !y.Meets(x) {
			out = append(out, y)
			continue
		}
		if y.Lo < x.Lo {
			out = append(out, Span{y.Lo, x.Lo - 1})
		}
		if x.Hi < y.Hi {
			out = append(out, Span{x.Hi + 1, y.Hi})
		}
	}
	return out
}

// AllTokens is every token there is.
var AllTokens = Span{0, math.MaxUint64}
