package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"example.com/kvstore"
)

// maxCall bounds one HTTP request; nodes give up sooner (Options.MaxRequest).
const maxCall = 20 * time.Second

var errNoNode = errors.New("no node is serving")

// A client sends requests to the nodes' services, as any user of them would:
// when the service it talks to is gone, it takes the next.
type client struct {
	nodes []*node
	http  *http.Client
	// failovers counts requests that were in flight to a service when it was
	// killed. They had no coordinator any more, so no level was promised.
	failovers atomic.Int64
}

func newClient(nodes []*node, callers int) *client {
	return &client{nodes: nodes, http: &http.Client{
		Timeout:   maxCall,
		Transport: &http.Transport{MaxIdleConnsPerHost: callers, DisableCompression: true},
	}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// A reply is what came of a request.
type reply struct {
	value []byte
	found bool
	// outcome is what a put left behind.
	outcome kvstore.Outcome
	err     error
}

// put stores value through the node with index via, or one after it.
func (c *client) put(ctx context.Context, via int, level kvstore.Consistency, key string, value []byte) reply {
	return c.call(ctx, via, http.MethodPut, level, key, value)
}

// get reads key likewise.
func (c *client) get(ctx context.Context, via int, level kvstore.Consistency, key string) reply {
	return c.call(ctx, via, http.MethodGet, level, key, nil)
}

func (c *client) call(ctx context.Context, via int, method string, level kvstore.Consistency, key string, value []byte) reply {
	path := "/kv?" + url.Values{"key": {key}, "level": {level.String()}}.Encode()
	unsure := false
	for i := range c.nodes {
		p := c.nodes[(via+i)%len(c.nodes)].serving()
		if p == nil {
			continue
		}
		r, answered := c.send(ctx, method, "http://"+p.api+path, value)
		if !answered && p.killed.Load() {
			c.failovers.Add(1)
			unsure = true // it may have been carried out; sending the same value again does no harm
			continue
		}
		if r.err != nil && unsure {
			r.outcome = kvstore.Unknown
		}
		return r
	}
	r := reply{err: errNoNode, outcome: kvstore.NotApplied}
	if unsure {
		r.outcome = kvstore.Unknown
	}
	return r
}

// send does one HTTP request; answered is false when no whole answer came.
func (c *client) send(ctx context.Context, method, address string, value []byte) (r reply, answered bool) {
	failed := func(err error) (reply, bool) { return reply{err: err, outcome: kvstore.Unknown}, false }
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(value))
	if err != nil {
		return failed(err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return failed(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return failed(err)
	}
	switch {
	case res.StatusCode == http.StatusOK:
		return reply{value: body, found: true}, true
	case res.StatusCode == http.StatusNotFound && method == http.MethodGet:
		return reply{}, true
	}
	r.err = fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(body)))
	r.outcome = kvstore.Unknown
	if res.Header.Get(outcomeHeader) == kvstore.NotApplied.String() {
		r.outcome = kvstore.NotApplied
	}
	return r, true
}
