package main

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestJudge(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("content"), 0o644))
	e := entry{path: file}
	version := func() []byte {
		v, err := e.next()
		require.NoError(t, err)
		return v
	}
	require.Equal(t, right, e.judge(nil, false), "nothing was stored yet")
	require.Equal(t, wrong, e.judge([]byte("content"), true), "nor was this")

	first, second, third := version(), version(), version()
	require.Equal(t, "content", string(first))
	require.Equal(t, "version 2\ncontent", string(second))

	e.maybe = append(e.maybe, sha256.Sum256(first))
	require.Equal(t, right, e.judge(first, true), "it may have been stored")
	require.Equal(t, right, e.judge(nil, false), "and may not")

	e.acknowledged(sha256.Sum256(second))
	require.Equal(t, right, e.judge(second, true))
	require.Equal(t, stale, e.judge(first, true))
	require.Equal(t, stale, e.judge(nil, false))
	require.Equal(t, wrong, e.judge(third, true))

	e.maybe = append(e.maybe, sha256.Sum256(third))
	require.Equal(t, right, e.judge(second, true))
	require.Equal(t, right, e.judge(third, true))

	e.acknowledged(sha256.Sum256([]byte("fourth")))
	require.Equal(t, stale, e.judge(second, true))
	require.Equal(t, stale, e.judge(third, true))
}
