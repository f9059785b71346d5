package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A cluster is the node processes of one configuration.
type cluster struct{ nodes []*process }

// A process is one node, seen from the parent.
type process struct {
	config  nodeConfig
	cmd     *exec.Cmd
	in      io.WriteCloser
	enc     *json.Encoder
	answers *json.Decoder
}

// start opens the nodes one after the other; each joins through the first.
func start(ctx context.Context, o options, dir string, every time.Duration) (*cluster, error) {
	c := &cluster{}
	addrs, err := freeAddrs(o.nodes)
	if err != nil {
		return nil, err
	}
	for i, addr := range addrs {
		config := nodeConfig{ID: fmt.Sprintf("n%d", i+1), Dir: filepath.Join(dir, strconv.Itoa(i+1)), Listen: addr,
			Every: every, Keys: o.keys, ValueBytes: o.valueBytes}
		if i > 0 {
			config.Seeds = addrs[:1]
		}
		p, err := startNode(ctx, config)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.nodes = append(c.nodes, p)
	}
	if _, err := c.all(func(int) command { return command{Do: "ready"} }); err != nil {
		return nil, errors.Join(err, c.close())
	}
	// Only now that all have joined may there be data.
	_, err = c.all(func(i int) command {
		return command{Do: "fill", Part: i, Parts: len(c.nodes), Callers: max(1, o.callers/o.nodes)}
	})
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func startNode(ctx context.Context, config nodeConfig) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), nodeVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &process{config, cmd, in, json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))}, nil
}

// all gives every node its command at once and collects the answers.
func (c *cluster) all(make func(node int) command) ([]answer, error) {
	for i, p := range c.nodes {
		if err := p.enc.Encode(make(i)); err != nil {
			return nil, fmt.Errorf("node %d: %w", i+1, err)
		}
	}
	answers := []answer{}
	var errs []error
	for i, p := range c.nodes {
		var a answer
		if err := p.answers.Decode(&a); err != nil {
			errs = append(errs, fmt.Errorf("node %d: %w", i+1, err))
		} else if a.Error != "" {
			errs = append(errs, fmt.Errorf("node %d: %s", i+1, a.Error))
		}
		answers = append(answers, a)
	}
	return answers, errors.Join(errs...)
}

// close ends the nodes' input and waits until they have closed.
func (c *cluster) close() error {
	var errs []error
	for _, p := range c.nodes {
		errs = append(errs, p.in.Close())
	}
	for i, p := range c.nodes {
		if err := p.cmd.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("node %d: %w", i+1, err))
		}
	}
	return errors.Join(errs...)
}

// run drives one workload on all nodes over the same stretch of time.
func (c *cluster) run(ctx context.Context, o options, w workload) (result, error) {
	const lead = 50 * time.Millisecond // until every node has its command
	from := time.Now().Add(lead + o.warm)
	until := from.Add(o.time)
	syscalls := make(chan float64, 1)
	if o.perf {
		go func() { syscalls <- c.countSyscalls(ctx, from, o.time) }()
	} else {
		syscalls <- -1
	}
	answers, err := c.all(func(i int) command {
		callers := o.callers / len(c.nodes)
		if i < o.callers%len(c.nodes) {
			callers++
		}
		return command{Do: "run", Workload: w.name, Callers: callers, From: from, Until: until}
	})
	r := summarize(w.name, o.time, answers, <-syscalls)
	if err != nil {
		return r, fmt.Errorf("%s: %w", w.name, err)
	}
	return r, nil
}

// countSyscalls counts the system calls of all nodes with perf. It gives -1
// where perf is missing or may not.
func (c *cluster) countSyscalls(ctx context.Context, from time.Time, d time.Duration) float64 {
	var pids []string
	for _, p := range c.nodes {
		pids = append(pids, strconv.Itoa(p.cmd.Process.Pid))
	}
	time.Sleep(time.Until(from))
	cmd := exec.CommandContext(ctx, "perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", strings.Join(pids, ","),
		"sleep", strconv.FormatFloat(d.Seconds(), 'f', 3, 64))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return -1
	}
	first, _, _ := strings.Cut(string(out), ",")
	n, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return -1
	}
	return n
}

// freeAddrs finds n loopback addresses that nobody listens on.
func freeAddrs(n int) ([]string, error) {
	var addrs []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all at once, so that they differ
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}
