package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"example.com/kvstore"
)

const (
	// maxValueBytes is the most that Options.MaxValueBytes may be.
	maxValueBytes = 8 << 20
	// maxClosing bounds how long a child outlives its parent.
	maxClosing = 5 * time.Second
	// outcomeHeader tells what a failed write left behind.
	outcomeHeader = "Kv-Outcome"
)

// A nodeConfig is what a child needs to know. It comes in the environment.
type nodeConfig struct {
	ID, Dir, Listen string
	Seeds           []string
	Bootstrap       bool
	MaxValueBytes   int
}

// A greeting is a child's first and only line on its standard output.
type greeting struct {
	API   string // address of the HTTP API
	Error string // why there is none
	Taken bool   // it is because another process has the node's port
}

// A report is the answer to GET /status.
type report struct {
	Status  kvstore.Status
	Metrics kvstore.Metrics
}

// configVariable in the environment makes the process a child.
const configVariable = "KVSTORE_CLUSTER_NODE"

// childConfig reads the configuration of a child; ok is false in the parent.
func childConfig() (c nodeConfig, ok bool) {
	text, ok := os.LookupEnv(configVariable)
	if !ok {
		return c, false
	}
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		panic(fmt.Errorf("%s: %w", configVariable, err))
	}
	return c, true
}

// serveNode opens a node and serves its API until in ends. The parent never
// writes there: it ends when the parent says so by closing it, and also when the
// parent dies, however that may happen. So no child is ever left behind.
func serveNode(c nodeConfig, in io.Reader, out io.Writer) error {
	signal.Ignore(os.Interrupt) // a Ctrl-C in the terminal goes to all; the parent decides
	parentGone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in)
		time.AfterFunc(maxClosing, func() { os.Exit(exitFailed) })
		close(parentGone)
	}()

	db, err := kvstore.Open(c.Dir, &kvstore.Options{
		NodeID: c.ID, Cluster: "demo", Listen: c.Listen, Seeds: c.Seeds, Bootstrap: c.Bootstrap,
		MaxValueBytes: c.MaxValueBytes,
		MemoryBytes:   128 << 20, // all nodes share this machine
		// Quicker than the defaults, so that a short demo shows how a member
		// becomes suspect, then dead.
		GossipInterval: 250 * time.Millisecond, SuspectAfter: 2 * time.Second,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		_ = json.NewEncoder(out).Encode(greeting{Error: err.Error(), Taken: errors.Is(err, kvstore.ErrListen)})
		return err
	}
	defer db.Close()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		_ = json.NewEncoder(out).Encode(greeting{Error: err.Error()})
		return err
	}
	server := &http.Server{Handler: api(db, c)}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	if err := json.NewEncoder(out).Encode(greeting{API: listener.Addr().String()}); err != nil {
		return err
	}
	select {
	case <-parentGone:
		_ = server.Close()
		<-served
	case err := <-served:
		return err
	}
	return db.Close()
}

// api is the HTTP API of a node:
//
//	PUT /kv?key=K&level=L   stores the body
//	GET /kv?key=K&level=L   answers with the value, or 404
//	GET /ready              answers when the node can serve
//	GET /status             a report
func api(db *kvstore.DB, c nodeConfig) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /kv", func(w http.ResponseWriter, r *http.Request) {
		value, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(c.MaxValueBytes)))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if _, err := db.Put(r.Context(), r.FormValue("key"), value, levels[r.FormValue("level")]); err != nil {
			fail(w, err)
		}
	})
	mux.HandleFunc("GET /kv", func(w http.ResponseWriter, r *http.Request) {
		item, err := db.Get(r.Context(), r.FormValue("key"), levels[r.FormValue("level")])
		if err != nil {
			fail(w, err)
			return
		}
		_, _ = w.Write(item.Value)
	})
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, r *http.Request) {
		if err := db.Ready(r.Context()); err != nil {
			fail(w, err)
		}
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		status, err := db.Status(r.Context())
		if err != nil {
			fail(w, err)
			return
		}
		_ = json.NewEncoder(w).Encode(report{status, db.Metrics()})
	})
	return mux
}

// levels by their names in the API.
var levels = map[string]kvstore.Consistency{
	kvstore.One.String():    kvstore.One,
	kvstore.Quorum.String(): kvstore.Quorum,
	kvstore.All.String():    kvstore.All,
}

func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, kvstore.ErrNotFound):
		status = http.StatusNotFound
	case kvstore.Retryable(err):
		status = http.StatusServiceUnavailable
	}
	w.Header().Set(outcomeHeader, kvstore.OutcomeOf(err).String())
	http.Error(w, err.Error(), status)
}
