package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"example.com/kvstore"
)

// maxBody is the default of Options.MaxValueBytes, and one byte more is read to
// let Put refuse what is larger.
const maxBody = 1<<20 + 1

// handler serves GET, PUT and DELETE of /kv/{key}. ?level= is one, quorum, all,
// or a number of replicas; the ETag is the version.
func handler(db *kvstore.DB) http.Handler {
	mux := http.NewServeMux()
	handle := func(method string, do func(http.ResponseWriter, *http.Request, string, kvstore.Consistency) error) {
		mux.HandleFunc(method+" /kv/{key...}", func(w http.ResponseWriter, r *http.Request) {
			level, err := parseLevel(r.URL.Query().Get("level"))
			if err == nil {
				err = do(w, r, r.PathValue("key"), level)
			}
			if err != nil {
				fail(w, err)
			}
		})
	}
	handle("GET", func(w http.ResponseWriter, r *http.Request, key string, level kvstore.Consistency) error {
		item, err := db.Get(r.Context(), key, level)
		if err != nil {
			return err
		}
		setETag(w, item.Version)
		w.Header().Set("Last-Modified", item.Modified.UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(item.Value) // an error here means that the client is gone
		return nil
	})
	handle("PUT", func(w http.ResponseWriter, r *http.Request, key string, level kvstore.Consistency) error {
		value, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
		if err != nil {
			return fmt.Errorf("%w: body: %w", kvstore.ErrInvalid, err)
		}
		version, err := db.Put(r.Context(), key, value, level)
		if err != nil {
			return err
		}
		setETag(w, version)
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
	handle("DELETE", func(w http.ResponseWriter, r *http.Request, key string, level kvstore.Consistency) error {
		if err := db.Delete(r.Context(), key, level); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
	return mux
}

func setETag(w http.ResponseWriter, v kvstore.Version) {
	w.Header().Set("ETag", strconv.Quote(v.String()))
}

func parseLevel(s string) (kvstore.Consistency, error) {
	for _, level := range []kvstore.Consistency{kvstore.One, kvstore.Quorum, kvstore.All} {
		if s == level.String() {
			return level, nil
		}
	}
	if s == "" {
		return kvstore.Default, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("%w: level %q; use one, quorum, all or a number of replicas", kvstore.ErrInvalid, s)
	}
	return kvstore.AtLeast(n), nil
}

// statuses maps the errors that a caller can meet, most of all those that tell
// it what to do next, to HTTP.
var statuses = []struct {
	err    error
	status int
}{
	{kvstore.ErrNotFound, http.StatusNotFound},
	{kvstore.ErrInvalid, http.StatusBadRequest},
	{kvstore.ErrKeyTooLarge, http.StatusRequestURITooLong},
	{kvstore.ErrValueTooLarge, http.StatusRequestEntityTooLarge},
	{kvstore.ErrTimeout, http.StatusGatewayTimeout},
	{kvstore.ErrPartial, http.StatusGatewayTimeout}, // like a timeout, only known sooner
	{kvstore.ErrNoSpace, http.StatusInsufficientStorage},
	{kvstore.ErrUnavailable, http.StatusServiceUnavailable},
	{kvstore.ErrOverloaded, http.StatusServiceUnavailable},
	{kvstore.ErrNotReady, http.StatusServiceUnavailable},
	{kvstore.ErrClockSkew, http.StatusServiceUnavailable},
	{kvstore.ErrClosed, http.StatusServiceUnavailable},
}

// fail answers with the error. A client sees from the status what to do, and
// from Outcome whether a failed write may still be seen: HTTP's PUT and DELETE
// are idempotent, so that it may send them again in any case.
func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	for _, s := range statuses {
		if errors.Is(err, s.err) {
			status = s.status
			break
		}
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Outcome", kvstore.OutcomeOf(err).String())
	http.Error(w, err.Error(), status)
}
