package transport

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestWindow: against a set, for ids that leap ahead, come late and come twice.
func TestWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w window
		seen, top := map[uint64]bool{}, uint64(0)
		for range rapid.IntRange(1, 300).Draw(t, "arrivals") {
			id := rapid.OneOf(
				rapid.Uint64Range(1, top+100),
				rapid.Uint64Range(max(top, windowIDs)-windowIDs+1, top+3*windowIDs),
			).Draw(t, "id")
			want := !seen[id] && (id > top || top-id < windowIDs)
			require.Equal(t, want, w.first(id), "id %d, top %d", id, top)
			seen[id], top = true, max(top, id)
		}
	})
}
