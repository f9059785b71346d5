package base

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestSpans compares sets of spans with sets of single tokens, over a token
// space of 16 whose upper end is that of the real one.
func TestSpans(t *testing.T) {
	const first = ^uint64(0) - 15
	rapid.Check(t, func(t *rapid.T) {
		var spans Spans
		var want [16]bool
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			lo := rapid.Uint64Range(0, 15).Draw(t, "lo")
			x := Span{first + lo, first + rapid.Uint64Range(lo, 15).Draw(t, "hi")}
			add := rapid.Bool().Draw(t, "add")
			if add {
				spans = spans.With(x)
			} else {
				spans = spans.Without(x)
			}
			for i := range want {
				if x.Contains(first + uint64(i)) {
					want[i] = add
				}
			}
			for i := range want {
				require.Equal(t, want[i], spans.Contains(first+uint64(i)), "token %d of %v", i, spans)
			}
			for i := 1; i < len(spans); i++ {
				require.Less(t, spans[i-1].Hi+1, spans[i].Lo, "%v", spans)
			}
			require.False(t, spans.Contains(3))
		}
	})
	require.Equal(t, Spans{AllTokens}, Spans{{0, 4}}.With(Span{5, ^uint64(0)}))
	require.Nil(t, Spans{{3, 9}}.Without(AllTokens))
}
