package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// jobLimit ends a child that hangs.
const jobLimit = 30 * time.Minute

// A measurement is the parent of all children.
type measurement struct {
	options
	ctx     context.Context
	dir     string
	results []result
	lines   *json.Encoder // results as they come
}

// measure loads the data sets and runs all rounds. Results are written as they
// come; those there are when it fails or is interrupted are returned as well. An engine that fails keeps its row; the
// others go on.
func measure(ctx context.Context, o options) ([]result, error) {
	some, err := chosenWorkloads(workloads(o.profile), o.workloads)
	if err != nil {
		return nil, err
	}
	engines, err := chosenPeers(o.engines)
	if err != nil {
		return nil, err
	}
	if o.rounds < 1 || o.keys < 1 || o.many < 1 || o.most < 1 || o.fillBytes < 1<<20 || o.bigBytes < 1<<20 {
		return nil, errors.New("at least one round, one key, and 1 MiB of data")
	}
	if o.profiles != "" {
		if err := os.MkdirAll(o.profiles, 0o755); err != nil {
			return nil, err
		}
	}
	m := &measurement{options: o, ctx: ctx, lines: json.NewEncoder(io.Discard)}
	if o.out != "" {
		if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
			return nil, err
		}
		f, err := os.Create(o.out + ".jsonl")
		if err != nil {
			return nil, err
		}
		defer f.Close()
		m.lines = json.NewEncoder(f)
	}
	if m.dir, err = os.MkdirTemp(o.dir, "kvstore-bench-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(m.dir)
	if err := m.load(engines, some); err != nil {
		return nil, err
	}
	for round := range o.rounds {
		floors, err := measureFloor(m.dir, o.time, min(floorRead, o.fillBytes))
		if err != nil {
			return m.results, err
		}
		for _, r := range floors {
			if err := m.add(round, r); err != nil {
				return m.results, err
			}
		}
		for i, w := range some {
			for k := range engines {
				p := engines[(k+i+round)%len(engines)] // nobody is always first
				r, err := m.one(round, p, w)
				if ctx.Err() != nil {
					return m.results, ctx.Err()
				}
				if err != nil {
					r = result{Workload: w.Name, Engine: p.name, Error: err.Error()}
				}
				if err := m.add(round, r); err != nil {
					return m.results, err
				}
			}
		}
	}
	return m.results, failures(m.results)
}

func (m *measurement) add(round int, r result) error {
	r.Round = round + 1
	m.results = append(m.results, r)
	line := fmt.Sprintf("%12.0f /s", r.OpsPerSecond)
	if r.Error != "" {
		line = r.Error
	}
	fmt.Fprintf(os.Stderr, "round %d  %-20s %-12s %s\n", r.Round, r.Workload, r.Engine, line)
	return m.lines.Encode(r)
}

// load makes every data set that some workload starts from, for each engine.
func (m *measurement) load(engines []peer, some []workload) error {
	var made []string
	for _, w := range some {
		if w.Fill || slices.Contains(made, w.dataSet()) {
			continue
		}
		made = append(made, w.dataSet())
		for _, p := range engines {
			began := time.Now()
			w := workload{Name: "load", Keys: w.Keys, ValueBytes: w.ValueBytes, Callers: 16}
			_, err := m.child(job{Engine: p.name, Dir: m.home(p, w), Load: true, Workload: w})
			if err != nil {
				return fmt.Errorf("%s: load of %s: %w", p.name, w.dataSet(), err)
			}
			fmt.Fprintf(os.Stderr, "loaded   %-20s %-12s %12.1f s\n", w.dataSet(), p.name, time.Since(began).Seconds())
		}
	}
	return nil
}

// home is where an engine's data set is.
func (m *measurement) home(p peer, w workload) string {
	return filepath.Join(m.dir, p.name, w.dataSet())
}

// one runs one workload with one engine.
func (m *measurement) one(round int, p peer, w workload) (result, error) {
	if w.Scans > 0 && !p.scans {
		return result{}, errNoScan
	}
	j := job{Engine: p.name, Dir: filepath.Join(m.dir, "run"), Workload: w, Verify: m.verify, Seed: uint64(round+1) << 8}
	if m.profiles != "" {
		name := fmt.Sprintf("%s_%s_%d.pprof", strings.ReplaceAll(w.Name, "/", "-"), p.name, round+1)
		j.Profile = filepath.Join(m.profiles, name)
	}
	switch {
	case w.Fill:
	case w.writes(), w.Killed:
		if err := copyFiles(j.Dir, m.home(p, w)); err != nil {
			return result{}, err
		}
	default:
		j.Dir = m.home(p, w)
	}
	defer os.RemoveAll(filepath.Join(m.dir, "run"))
	if w.Killed {
		if err := m.kill(j); err != nil {
			return result{}, err
		}
	}
	return m.child(j)
}

// command gives the process that does a job, to be started.
func (m *measurement) command(j job) (*exec.Cmd, error) {
	j.Quiet, j.CacheBytes, j.MemtableBytes = m.quiet, m.cacheBytes, m.memtableBytes
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(m.ctx, self)
	cmd.Env = append(os.Environ(), jobVariable+"="+string(text))
	return cmd, nil
}

// child does a job in a process of its own.
func (m *measurement) child(j job) (r result, err error) {
	cmd, err := m.command(j)
	if err != nil {
		return r, err
	}
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Start(); err != nil {
		return r, err
	}
	limit := time.AfterFunc(jobLimit, func() { cmd.Process.Kill() })
	defer limit.Stop()
	if err := cmd.Wait(); err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(complaints.String()), "\n")
		return r, fmt.Errorf("%w: %s", err, first)
	}
	return r, json.Unmarshal(out.Bytes(), &r)
}

// failures joins what went wrong, other than scans that an engine does not have.
func failures(results []result) error {
	var errs []error
	for _, r := range results {
		if r.Error != "" && r.Error != errNoScan.Error() {
			errs = append(errs, fmt.Errorf("%s with %s: %s", r.Workload, r.Engine, r.Error))
		}
	}
	return errors.Join(errs...)
}
