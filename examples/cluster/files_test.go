package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCollect(t *testing.T) {
	root := t.TempDir()
	src := filepath.Join(root, "real")
	require.NoError(t, os.MkdirAll(filepath.Join(src, "sub"), 0o755))
	for name, content := range map[string]string{"a": "aa", "b": "", "large": "0123456789", "sub/c": "ccc"} {
		require.NoError(t, os.WriteFile(filepath.Join(src, name), []byte(content), 0o644))
	}
	link := filepath.Join(root, "link")
	if err := os.Symlink(src, link); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	require.NoError(t, os.Symlink(filepath.Join(src, "a"), filepath.Join(src, "sub", "d")))

	c, err := collect(link, 9, 0)
	require.NoError(t, err)
	var keys []string
	for _, e := range c.entries {
		keys = append(keys, e.key)
	}
	require.Equal(t, []string{"a", "b", "sub/c", "sub/d"}, keys)
	require.EqualValues(t, 7, c.bytes)
	require.Equal(t, 1, c.skipped)

	c, err = collect(link, 9, 2)
	require.NoError(t, err)
	require.Len(t, c.entries, 2)

	_, err = collect(filepath.Join(root, "none"), 9, 0)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.Mkdir(filepath.Join(root, "empty"), 0o755))
	_, err = collect(filepath.Join(root, "empty"), 9, 0)
	require.ErrorContains(t, err, "no files")
}
