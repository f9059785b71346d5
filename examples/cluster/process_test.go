package main

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A port that is taken is told apart, so that other ports can be tried.
func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	dir := t.TempDir()
	n := &node{log: filepath.Join(dir, "log"), config: nodeConfig{ID: "n1", Dir: filepath.Join(dir, "n1"), Listen: l.Addr().String()}}
	require.ErrorIs(t, n.start(t.Context()), errPortTaken)
	require.NoError(t, n.stop())
}

// A child that starts while the tour is interrupted does not stay.
func TestStartInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := startNodes(ctx, t.TempDir(), 3, 100)
	require.ErrorIs(t, err, context.Canceled)
}

func TestFreeAddrs(t *testing.T) {
	addrs, err := freeAddrs(maxNodes)
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, a := range addrs {
		require.True(t, strings.HasPrefix(a, "127.0.0.1:"))
		require.False(t, seen[a])
		seen[a] = true
	}
	require.Len(t, seen, maxNodes)
}
