package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
)

// Two runs in the same directory, each ended by its context: the second has the
// data of the first.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	during := func(do func(url string)) {
		api, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- run(ctx, dir, nil, api) }()
		do("http://" + api.Addr().String() + "/kv/greeting") // the listener lets it wait
		http.DefaultClient.CloseIdleConnections()
		cancel()
		require.NoError(t, <-ended)
	}
	during(func(url string) {
		req, err := http.NewRequest("PUT", url, strings.NewReader("hello"))
		require.NoError(t, err)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusNoContent, res.StatusCode)
	})
	during(func(url string) {
		res, err := http.Get(url)
		require.NoError(t, err)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, errors.Join(err, res.Body.Close()))
		require.Equal(t, "hello", string(body))
	})
}

// A directory that is in use is refused with an error that tells so.
func TestRunLocked(t *testing.T) {
	dir := t.TempDir()
	db, err := kvstore.Open(dir, nil)
	require.NoError(t, err)
	defer db.Close()
	api, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.ErrorIs(t, run(t.Context(), dir, nil, api), kvstore.ErrLocked)
}
