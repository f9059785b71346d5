package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
)

// service is a node whose service is a handler of the test.
func service(t *testing.T, h http.HandlerFunc) *node {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	n := &node{}
	n.set(stateServing, &process{api: strings.TrimPrefix(server.URL, "http://")})
	return n
}

// tourOf is a tour in its middle: one file, stored once as "content".
func tourOf(t *testing.T, nodes ...*node) *tour {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("content"), 0o644))
	tr := &tour{settings: settings{callers: 1}, nodes: nodes, client: newClient(nodes, 1), latencies: newLatencies(),
		files: &collection{entries: []entry{{key: "file", path: file}}}}
	t.Cleanup(tr.client.close)
	return tr
}

// A demo that can't see a loss shows nothing.
func TestLossIsNoticed(t *testing.T) {
	var answer http.HandlerFunc
	tr := tourOf(t, service(t, func(w http.ResponseWriter, r *http.Request) { answer(w, r) }))
	e := &tr.files.entries[0]
	say := func(status int, body string) {
		answer = func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	get := func(level kvstore.Consistency, mustSee bool) { tr.get(t.Context(), e, 0, level, mustSee) }

	say(http.StatusOK, "")
	tr.put(t.Context(), e, 0)
	tr.put(t.Context(), e, 0)
	say(http.StatusOK, "version 2\ncontent")
	get(kvstore.Quorum, true)
	require.True(t, tr.score.clean())
	require.EqualValues(t, 2, tr.score.acked.Load())

	say(http.StatusOK, "content")
	get(kvstore.One, false)
	require.EqualValues(t, 1, tr.score.staleAtOne.Load())
	require.True(t, tr.score.clean())
	get(kvstore.Quorum, true)
	say(http.StatusNotFound, "")
	get(kvstore.Quorum, true)
	require.EqualValues(t, 1, tr.score.lost.Load(), "one key, seen lost twice")

	say(http.StatusOK, "bytes of another")
	get(kvstore.One, false)
	require.EqualValues(t, 1, tr.score.wrong.Load())

	say(http.StatusServiceUnavailable, "why")
	get(kvstore.All, true)
	tr.put(t.Context(), e, 0)
	require.EqualValues(t, 2, tr.score.errors.Load())
	require.Len(t, e.maybe, 1, "its outcome was not told")
	require.Contains(t, strings.Join(tr.score.problems(), "\n"), "why")
	require.False(t, tr.score.clean())
}

// A service that breaks off is passed over when it was killed, else it is an error.
func TestFailover(t *testing.T) {
	broken := service(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	good := service(t, func(http.ResponseWriter, *http.Request) {})
	tr := tourOf(t, broken, good)
	e := &tr.files.entries[0]

	tr.put(t.Context(), e, 0)
	require.EqualValues(t, 1, tr.score.errors.Load())
	require.False(t, e.stored)
	require.Len(t, e.maybe, 1)

	_, p := broken.state()
	p.killed.Store(true) // but the client does not know yet
	tr.put(t.Context(), e, 0)
	require.EqualValues(t, 1, tr.score.errors.Load())
	require.EqualValues(t, 1, tr.client.failovers.Load())
	require.True(t, e.stored)
	require.Empty(t, e.maybe)

	broken.set(stateKilled, p)
	good.set(stateDown, nil)
	require.ErrorIs(t, tr.client.get(t.Context(), 0, kvstore.One, "file").err, errNoNode)
}

func TestLatencies(t *testing.T) {
	l := newLatencies()
	for i := range 101 {
		l.add(kind{"put", kvstore.Quorum}, time.Duration(i))
	}
	l.add(kind{"get", kvstore.All}, 7)
	require.Equal(t, []distribution{{kind{"put", kvstore.Quorum}, 101, 50, 99, 100}, {kind{"get", kvstore.All}, 1, 7, 7, 7}}, l.distributions())
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		require.Equal(t, want, count(n))
	}
}
