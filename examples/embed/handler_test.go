package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"example.com/kvstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// request sends one request to a handler and returns the answer with its body.
func request(t *testing.T, h http.Handler, method, target, body string) (*http.Response, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, strings.NewReader(body)))
	res := w.Result()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(b)
}

// node is a handler over a single node in memory.
func node(t *testing.T) http.Handler {
	db, err := kvstore.Open("", nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	require.NoError(t, db.Ready(t.Context()))
	return handler(db)
}

func TestPutGetDelete(t *testing.T) {
	h := node(t)

	res, _ := request(t, h, "GET", "/kv/a/b", "")
	require.Equal(t, http.StatusNotFound, res.StatusCode)

	res, _ = request(t, h, "PUT", "/kv/a/b?level=all", "one")
	require.Equal(t, http.StatusNoContent, res.StatusCode)
	first := res.Header.Get("ETag")
	require.NotEmpty(t, first)

	res, body := request(t, h, "GET", "/kv/a/b?level=one", "")
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Equal(t, "one", body)
	require.Equal(t, first, res.Header.Get("ETag"))

	res, _ = request(t, h, "PUT", "/kv/a/b", "two")
	require.NotEqual(t, first, res.Header.Get("ETag"))
	_, body = request(t, h, "GET", "/kv/a/b?level=1", "")
	require.Equal(t, "two", body)

	res, _ = request(t, h, "DELETE", "/kv/a/b?level=quorum", "")
	require.Equal(t, http.StatusNoContent, res.StatusCode)
	res, _ = request(t, h, "GET", "/kv/a/b", "")
	require.Equal(t, http.StatusNotFound, res.StatusCode)
}

func TestBadRequests(t *testing.T) {
	h := node(t)
	for _, c := range []struct {
		method, target, body string
		status               int
	}{
		{"GET", "/kv/", "", http.StatusBadRequest},
		{"GET", "/kv/k?level=most", "", http.StatusBadRequest},
		{"GET", "/kv/k?level=0", "", http.StatusBadRequest},
		{"PUT", "/kv/k?level=4", "v", http.StatusBadRequest}, // more than there are replicas
		{"PUT", "/kv/" + strings.Repeat("k", 5000), "v", http.StatusRequestURITooLong},
		{"PUT", "/kv/k", strings.Repeat("v", 1<<20), http.StatusNoContent},
		{"PUT", "/kv/k", strings.Repeat("v", 1<<20+1), http.StatusRequestEntityTooLarge},
		{"POST", "/kv/k", "v", http.StatusMethodNotAllowed},
	} {
		res, body := request(t, h, c.method, c.target, c.body)
		require.Equal(t, c.status, res.StatusCode, "%s %.40s: %.200s", c.method, c.target, body)
	}
}

// Errors that a single node in memory does not produce.
func TestFail(t *testing.T) {
	for _, c := range []struct {
		err        error
		status     int
		retryAfter string
		outcome    kvstore.Outcome
	}{
		{kvstore.ErrUnavailable, http.StatusServiceUnavailable, "1", kvstore.NotApplied},
		{kvstore.ErrOverloaded, http.StatusServiceUnavailable, "1", kvstore.NotApplied},
		{kvstore.ErrNotReady, http.StatusServiceUnavailable, "1", kvstore.NotApplied},
		{kvstore.ErrClosed, http.StatusServiceUnavailable, "1", kvstore.NotApplied},
		{kvstore.ErrTimeout, http.StatusGatewayTimeout, "", kvstore.Unknown},
		{kvstore.ErrPartial, http.StatusGatewayTimeout, "", kvstore.Unknown},
		{kvstore.ErrNoSpace, http.StatusInsufficientStorage, "", kvstore.NotApplied},
		{kvstore.ErrReadOnly, http.StatusInternalServerError, "", kvstore.NotApplied},
		{errors.New("another"), http.StatusInternalServerError, "", kvstore.Unknown},
	} {
		w := httptest.NewRecorder()
		fail(w, fmt.Errorf("wrapped: %w", c.err))
		require.Equal(t, c.status, w.Code, c.err)
		require.Equal(t, c.retryAfter, w.Header().Get("Retry-After"), c.err)
		require.Equal(t, c.outcome.String(), w.Header().Get("Outcome"), c.err)
	}
}

// A closed node answers, and says when to come back.
func TestClosed(t *testing.T) {
	db, err := kvstore.Open("", nil)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	res, _ := request(t, handler(db), "PUT", "/kv/k", "v")
	require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	require.Equal(t, "1", res.Header.Get("Retry-After"))
}
