package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
)

const (
	// Ports are drawn from a range that no common system hands out to outgoing
	// connections, so that a killed node finds its own free when it comes back.
	minPort, maxPort = 20000, 30000
	// maxPortTries bounds the search for free ports.
	maxPortTries = 100
	// maxStartTries bounds how often all nodes are started because of a port that
	// was free when it was chosen and taken when it was used.
	maxStartTries = 5
)

// startNodes starts n nodes below dir that form a cluster. When it fails, none is
// left.
func startNodes(ctx context.Context, dir string, n, maxValue int) ([]*node, error) {
	for try := 1; ; try++ {
		nodes, err := tryStart(ctx, dir, n, maxValue)
		if err == nil {
			return nodes, nil
		}
		err = errors.Join(err, stopNodes(nodes))
		if !errors.Is(err, errPortTaken) || try == maxStartTries {
			return nil, err
		}
		for _, node := range nodes { // they hold addresses that will not be used
			if err := os.RemoveAll(node.config.Dir); err != nil {
				return nil, err
			}
		}
	}
}

func tryStart(ctx context.Context, dir string, n, maxValue int) ([]*node, error) {
	addrs, err := freeAddrs(n)
	if err != nil {
		return nil, err
	}
	nodes := make([]*node, n)
	for i := range nodes {
		id := fmt.Sprintf("n%d", i+1)
		nodes[i] = &node{log: filepath.Join(dir, id+".log"), config: nodeConfig{
			ID: id, Dir: filepath.Join(dir, id), Listen: addrs[i], MaxValueBytes: maxValue,
			// All know all, so that each may be started again, in any order. One has
			// to begin: were there no cluster yet, the others would wait for ever.
			Seeds: addrs, Bootstrap: i == 0,
		}}
		nodes[i].set(stateDown, nil)
	}
	for _, node := range nodes {
		if err := node.start(ctx); err != nil {
			return nodes, err
		}
	}
	return nodes, nil
}

// allReady waits until all nodes are.
func allReady(ctx context.Context, h *http.Client, nodes []*node) error {
	return together(nodes, func(n *node) error { return n.ready(ctx, h) })
}

// stopNodes ends all nodes.
func stopNodes(nodes []*node) error { return together(nodes, (*node).stop) }

// together calls do for all nodes at the same time.
func together(nodes []*node, do func(*node) error) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = do(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// freeAddrs finds n different loopback addresses that nobody listens on.
func freeAddrs(n int) ([]string, error) {
	var addrs []string
	for range maxPortTries {
		if len(addrs) == n {
			return addrs, nil
		}
		addr := fmt.Sprintf("127.0.0.1:%d", minPort+rand.IntN(maxPort-minPort))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		defer l.Close() // at the end, so that all differ
		addrs = append(addrs, addr)
	}
	return nil, fmt.Errorf("found %d free ports of %d between %d and %d", len(addrs), n, minPort, maxPort)
}
