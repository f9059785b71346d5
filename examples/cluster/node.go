package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
)

// The states of a node, as its user knows them. What the members of the cluster
// think of it is in their Status.
const (
	stateDown    = "down"
	stateJoining = "joining"
	stateServing = "serving"
	stateKilled  = "killed"
)

// maxLogged bounds how many bytes of a node's log go into an error.
const maxLogged = 2 << 10

// A node is one place in the cluster: a directory and a port, and the process
// that has them now.
type node struct {
	config nodeConfig
	log    string // file
	mu     struct {
		sync.Mutex
		process *process // the last one started; nil before that
		state   string
	}
}

func (n *node) state() (string, *process) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.state, n.mu.process
}

// serving gives the node's process if it takes requests, else nil.
func (n *node) serving() *process {
	if state, p := n.state(); state == stateServing {
		return p
	}
	return nil
}

func (n *node) set(state string, p *process) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.state, n.mu.process = state, p
}

// start starts the node's process.
func (n *node) start(ctx context.Context) error {
	p, err := startProcess(ctx, n.config, n.log)
	if err != nil {
		return n.explain(err)
	}
	n.set(stateJoining, p)
	return nil
}

// ready waits until the node is a member of the cluster and can serve.
func (n *node) ready(ctx context.Context, h *http.Client) error {
	_, p := n.state()
	if err := fetch(ctx, h, p, "/ready", nil); err != nil {
		return n.explain(err)
	}
	n.set(stateServing, p)
	return nil
}

// report asks the node how it sees the cluster and what it did.
func (n *node) report(ctx context.Context, h *http.Client) (r report, err error) {
	p := n.serving()
	if p == nil {
		return r, fmt.Errorf("node %s is not serving", n.config.ID)
	}
	return r, fetch(ctx, h, p, "/status", &r)
}

// kill ends the node's process with SIGKILL.
func (n *node) kill() {
	_, p := n.state()
	n.set(stateKilled, p)
	p.kill()
}

// stop ends the node's process in good order.
func (n *node) stop() error {
	state, p := n.state()
	if p == nil || state == stateKilled {
		return nil
	}
	n.set(stateDown, p)
	return n.explain(p.stop())
}

// explain adds to an error what the node logged last, for the file may be gone
// when somebody wants to read it.
func (n *node) explain(err error) error {
	if err == nil {
		return nil
	}
	logged, _ := os.ReadFile(n.log)
	logged = logged[max(0, len(logged)-maxLogged):]
	return fmt.Errorf("node %s: %w; it logged:\n%s", n.config.ID, err, logged)
}

// fetch gets path from the process and decodes the answer, if v is not nil.
func fetch(ctx context.Context, h *http.Client, p *process, path string, v any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.api+path, nil)
	if err != nil {
		return err
	}
	res, err := h.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(body)))
	case v == nil:
		return nil
	}
	return json.Unmarshal(body, v)
}
