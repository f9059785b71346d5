package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"example.com/kvstore"
)

const (
	// victim is the index of the node that is killed.
	victim = 1
	// maxErrors failed requests end the tour: more would tell nothing new, and each
	// may take its time.
	maxErrors = 200
	// maxPasses bounds the reads at All after which no replica may be stale.
	maxPasses = 5
	// maxReady bounds how long a node may take until it serves and is known to.
	maxReady = 30 * time.Second
	// probes is how many keys tell whether all owners can be reached, probeEvery
	// the pause between attempts.
	probes     = 16
	probeEvery = 20 * time.Millisecond
)

// A tour is one run of the demo: a script of steps, and the account of it.
type tour struct {
	settings
	dir       string
	files     *collection
	nodes     []*node
	client    *client
	load      *load // while it runs
	progress  progress
	score     score
	latencies *latencies
}

func newTour(s settings) (*tour, error) {
	t := &tour{settings: s, dir: s.dir, latencies: newLatencies()}
	var err error
	if t.files, err = collect(s.source, int64(s.maxFile), s.files); err != nil {
		return nil, err
	}
	if t.dir == "" {
		t.dir, err = os.MkdirTemp("", "kvstore-cluster-")
		return t, err
	}
	if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return nil, err
	}
	if found, err := os.ReadDir(t.dir); err != nil || len(found) > 0 {
		return nil, errors.Join(err, fmt.Errorf("-dir %s is not empty; name a new directory", t.dir))
	}
	return t, nil
}

// run goes through the script. Whatever happens, it leaves no process behind.
func (t *tour) run(ctx context.Context, show display) (err error) {
	show.open()
	defer func() {
		err = errors.Join(err, t.close())
		show.close()
	}()
	for _, s := range []struct {
		name string
		do   func(context.Context) (result string, err error)
	}{
		{"start", t.start},
		{"store", t.store},
		{"read one", func(ctx context.Context) (string, error) { return t.readBack(ctx, kvstore.One, 1) }},
		{"read quorum", func(ctx context.Context) (string, error) { return t.readBack(ctx, kvstore.Quorum, 2) }},
		{"read all", func(ctx context.Context) (string, error) { return t.readBack(ctx, kvstore.All, 0) }},
		{"kill", t.kill},
		{"restart", t.restart},
		{"converge", t.converge},
		{"restarted", t.readRestarted},
	} {
		t.progress.begin(s.name)
		result, err := s.do(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		show.stepDone(t.progress.end(result))
		if n := t.score.errors.Load(); n >= maxErrors {
			return fmt.Errorf("%s: gave up after %d failed requests", s.name, n)
		}
	}
	return nil
}

// close ends the load and the nodes, and removes what nobody asked to keep.
func (t *tour) close() error {
	if t.load != nil {
		t.load.stop()
	}
	err := stopNodes(t.nodes)
	if t.client != nil {
		t.client.close()
	}
	if t.settings.dir == "" {
		err = errors.Join(err, os.RemoveAll(t.dir))
	}
	return err
}

// start brings the cluster up. Members can only join before there is data, so
// all must be ready before anything is stored.
func (t *tour) start(ctx context.Context) (string, error) {
	nodes, err := startNodes(ctx, t.dir, t.settings.nodes, t.maxFile+tagBytes)
	if err != nil {
		return "", err
	}
	t.nodes, t.client = nodes, newClient(nodes, t.callers)
	t.progress.started(nodes)
	ctx, cancel := context.WithTimeout(ctx, maxReady)
	defer cancel()
	if err := allReady(ctx, t.client.http, nodes); err != nil {
		return "", err
	}
	r, err := nodes[0].report(ctx, t.client.http)
	if err != nil {
		return "", err
	}
	result := fmt.Sprintf("%d nodes, %d replicas of every key, in %s:", len(nodes), r.Status.N, t.dir)
	for _, n := range nodes {
		_, p := n.state()
		result += fmt.Sprintf(" %s (pid %d, %s)", n.config.ID, p.pid(), n.config.Listen)
	}
	return result, nil
}

// store puts every file at Quorum, through all nodes in turn.
func (t *tour) store(ctx context.Context) (string, error) {
	began := time.Now()
	err := t.each(ctx, func(e *entry, i int) { t.put(ctx, e, i) })
	rate := float64(t.score.acked.Load()) / time.Since(began).Seconds()
	return fmt.Sprintf("%s files, %s, put at quorum: %s/s (%d callers; from %s, %d files over %s skipped)",
		count(len(t.files.entries)), size(t.files.bytes), count(int(rate)), t.callers, t.source, t.files.skipped, size(int64(t.maxFile))), err
}

// readBack reads every file, each through the node shift places after the one
// that wrote it.
func (t *tour) readBack(ctx context.Context, level kvstore.Consistency, shift int) (string, error) {
	began, before := time.Now(), t.score.read.Load()
	err := t.each(ctx, func(e *entry, i int) { t.get(ctx, e, i+shift, level, level != kvstore.One) })
	read := t.score.read.Load() - before
	rate := float64(read) / time.Since(began).Seconds()
	result := fmt.Sprintf("%s checksums compared: %s/s", count(int(read)), count(int(rate)))
	if level == kvstore.One {
		result += fmt.Sprintf("; %d stale, as may be at one", t.score.staleAtOne.Load())
	}
	return result, err
}

// kill ends one node with SIGKILL under load, which goes on through the others.
func (t *tour) kill(ctx context.Context) (string, error) {
	t.load = t.startLoad(ctx)
	if err := wait(ctx, t.outage/4); err != nil {
		return "", err
	}
	n := t.nodes[victim]
	_, p := n.state()
	n.kill()
	killed := time.Now()
	acked, read, errs := t.score.acked.Load(), t.score.read.Load(), t.score.errors.Load()
	if err := wait(ctx, t.outage-t.outage/4); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d errors in %s puts and %s gets at quorum in %v without %s (pid %d, SIGKILL under load; %d requests in flight to it failed over)",
		t.score.errors.Load()-errs, count(int(t.score.acked.Load()-acked)), count(int(t.score.read.Load()-read)), time.Since(killed).Round(100*time.Millisecond),
		n.config.ID, p.pid(), t.client.failovers.Load()), nil
}

// restart starts the node again in its directory, still under load.
func (t *tour) restart(ctx context.Context) (string, error) {
	n := t.nodes[victim]
	began := time.Now()
	if err := n.start(ctx); err != nil {
		return "", err
	}
	opened := time.Since(began)
	readyCtx, cancel := context.WithTimeout(ctx, maxReady)
	defer cancel()
	if err := n.ready(readyCtx, t.client.http); err != nil {
		return "", err
	}
	ready := time.Since(began)
	if err := t.reunited(readyCtx); err != nil {
		return "", err
	}
	known := time.Since(began)
	t.load.stop()
	t.load = nil
	_, p := n.state()
	return fmt.Sprintf("%s (pid %d) ready after %v, reached by all after %v, under load (opening its directory took %v)",
		n.config.ID, p.pid(), ready.Round(time.Millisecond), known.Round(time.Millisecond), opened.Round(time.Millisecond)), ctx.Err()
}

// reunited waits until every node reaches every other again: a node knows at once
// when it is ready, the others hear of it by gossip and connect to it.
func (t *tour) reunited(ctx context.Context) error {
	for via := range t.nodes {
		for i := range min(probes, len(t.files.entries)) {
			key := t.files.entries[i].key
			for {
				r := t.client.get(ctx, via, kvstore.All, key)
				if r.err == nil {
					break
				}
				if err := wait(ctx, probeEvery); err != nil {
					return fmt.Errorf("%s does not reach all others: %w", t.nodes[via].config.ID, r.err)
				}
			}
		}
	}
	return nil
}

// converge reads everything at All until no read finds an owner that has less
// than the others: each such read repairs it.
func (t *tour) converge(ctx context.Context) (string, error) {
	result := "reads at all found and repaired"
	for pass := range maxPasses {
		before, err := t.repairs(ctx)
		if err != nil {
			return "", err
		}
		err = t.each(ctx, func(e *entry, i int) { t.get(ctx, e, i+pass, kvstore.All, true) })
		if err != nil {
			return "", err
		}
		after, err := t.repairs(ctx)
		if err != nil {
			return "", err
		}
		if pass > 0 {
			result += ", then"
		}
		result += " " + count(int(after-before))
		if after == before {
			return result + " stale keys", nil
		}
	}
	return "", fmt.Errorf("%s stale keys: the replicas still differ after %d passes", result, maxPasses)
}

// repairs counts the reads so far that repaired an owner.
func (t *tour) repairs(ctx context.Context) (uint64, error) {
	var sum uint64
	for _, n := range t.nodes {
		r, err := n.report(ctx, t.client.http)
		if err != nil {
			return 0, err
		}
		sum += r.Metrics.WriteBacks
	}
	return sum, nil
}

// readRestarted reads everything from the restarted node alone: at One a node
// asks itself first, so with as many replicas as nodes it asks nobody else.
func (t *tour) readRestarted(ctx context.Context) (string, error) {
	before := t.score.read.Load()
	err := t.each(ctx, func(e *entry, _ int) { t.get(ctx, e, victim, kvstore.One, true) })
	return fmt.Sprintf("%s keys read at one through %s alone", count(int(t.score.read.Load()-before)), t.nodes[victim].config.ID), err
}

// wait lets d pass.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
