//go:build unix && !race && invariants

package offheap

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStaleAccess requires that the invariants build catches a use after Free.
func TestStaleAccess(t *testing.T) {
	b := Alloc(1 << 20)
	b[12345] = 7
	Free(b)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	caught := func() (caught bool) {
		defer func() { caught = recover() != nil }()
		return b[12345] == 0xdb
	}()
	require.True(t, caught)
}
