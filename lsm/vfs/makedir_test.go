package vfs

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMakeDir cuts the power after a directory was made, with two above it.
func TestMakeDir(t *testing.T) {
	m := NewMem(1)
	for range 2 { // also when it is there
		require.NoError(t, MakeDir(m, "a/b/c"))
		info, err := m.Strict().Stat("a/b/c")
		require.NoError(t, err)
		require.True(t, info.Dir)
	}
}
