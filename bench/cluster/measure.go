package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A result is one workload in one round, over all nodes. Per-operation figures
// divide by the operations of all nodes; -1 says that a figure was not taken.
type result struct {
	Round        int     `json:"round"`
	Workload     string  `json:"workload"`
	Seconds      float64 `json:"seconds"`
	Ops          uint64  `json:"ops"`
	Errors       uint64  `json:"errors"`
	OpsPerSecond float64 `json:"ops_per_second"`
	P50          float64 `json:"p50_us"`
	P99          float64 `json:"p99_us"`
	CPU          float64 `json:"cpu_us_per_op"`
	Allocs       float64 `json:"allocs_per_op"`
	SocketWrites float64 `json:"socket_writes_per_op"`
	LogWrites    float64 `json:"log_writes_per_op"`
	LogSyncs     float64 `json:"log_syncs_per_op"`
	Syscalls     float64 `json:"syscalls_per_op"`
}

// measure runs all rounds. Both clusters, synced and unsynced, stay up from the
// first round to the last; one of them is idle.
func measure(ctx context.Context, o options) (results []result, err error) {
	some, err := chosen(o.workloads)
	if err != nil {
		return nil, err
	}
	if o.valueBytes < 16 || o.nodes < 1 || o.callers < o.nodes || o.keys < 1 || o.rounds < 1 {
		return nil, errors.New("values have at least 16 bytes, every node at least one caller")
	}
	dir, err := os.MkdirTemp(o.dir, "kvstore-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)

	clusters := map[bool]*cluster{}
	defer func() {
		for _, c := range clusters {
			err = errors.Join(err, c.close())
		}
	}()
	for _, w := range some {
		if clusters[w.synced] != nil {
			continue
		}
		every, name := o.every, "unsynced"
		if w.synced {
			every, name = 0, "synced"
		}
		if clusters[w.synced], err = start(ctx, o, filepath.Join(dir, name), every); err != nil {
			delete(clusters, w.synced)
			return nil, err
		}
	}
	for round := range o.rounds {
		for _, w := range some {
			r, err := clusters[w.synced].run(ctx, o, w)
			if err != nil {
				return nil, err
			}
			r.Round = round + 1
			results = append(results, r)
			fmt.Fprintf(os.Stderr, "round %d %-20s %9.0f ops/s\n", r.Round, r.Workload, r.OpsPerSecond)
		}
	}
	return results, nil
}

// summarize adds up what the nodes measured.
func summarize(name string, d time.Duration, answers []answer, syscalls float64) result {
	var all tally
	var sum counters
	for _, a := range answers {
		all.merge(&a.Tally)
		sum.CPU += a.After.CPU - a.Before.CPU
		sum.Mallocs += a.After.Mallocs - a.Before.Mallocs
		sum.SocketWrites += a.After.SocketWrites - a.Before.SocketWrites
		sum.LogWrites += a.After.LogWrites - a.Before.LogWrites
		sum.LogSyncs += a.After.LogSyncs - a.Before.LogSyncs
	}
	ops := float64(max(all.count(), 1))
	if syscalls >= 0 {
		syscalls /= ops
	}
	return result{
		Workload: name, Seconds: d.Seconds(), Ops: all.count(), Errors: all.Errors,
		OpsPerSecond: float64(all.count()) / d.Seconds(),
		P50:          float64(all.quantile(0.50)) / 1e3,
		P99:          float64(all.quantile(0.99)) / 1e3,
		CPU:          float64(sum.CPU) / 1e3 / ops,
		Allocs:       float64(sum.Mallocs) / ops,
		SocketWrites: float64(sum.SocketWrites) / ops,
		LogWrites:    float64(sum.LogWrites) / ops,
		LogSyncs:     float64(sum.LogSyncs) / ops,
		Syscalls:     syscalls,
	}
}

// tabulate shows the median of each figure over the rounds, and the slowest and
// fastest round.
func tabulate(results []result) string {
	rounds := map[string][]result{}
	var names []string
	for _, r := range results {
		if rounds[r.Workload] == nil {
			names = append(names, r.Workload)
		}
		rounds[r.Workload] = append(rounds[r.Workload], r)
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| workload\t| ops/s\t| slowest, fastest round\t| p50 us\t| p99 us\t| CPU us/op\t| allocs/op\t| socket writes/op\t| log writes/op\t| log syncs/op\t| syscalls/op\t| errors\t|")
	fmt.Fprintln(w, "|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|")
	for _, name := range names {
		rs := rounds[name]
		of := func(figure func(result) float64) []float64 {
			var all []float64
			for _, r := range rs {
				all = append(all, figure(r))
			}
			slices.Sort(all)
			return all
		}
		median := func(figure func(result) float64) float64 { return of(figure)[len(rs)/2] }
		rates := of(func(r result) float64 { return r.OpsPerSecond })
		syscalls := "-"
		if m := median(func(r result) float64 { return r.Syscalls }); m >= 0 {
			syscalls = fmt.Sprintf("%.2f", m)
		}
		fmt.Fprintf(w, "| %s\t| %.0f\t| %.0f, %.0f\t| %.0f\t| %.0f\t| %.2f\t| %.2f\t| %.3f\t| %.3f\t| %.3f\t| %s\t| %.0f\t|\n", name,
			rates[len(rates)/2], rates[0], rates[len(rates)-1],
			median(func(r result) float64 { return r.P50 }),
			median(func(r result) float64 { return r.P99 }),
			median(func(r result) float64 { return r.CPU }),
			median(func(r result) float64 { return r.Allocs }),
			median(func(r result) float64 { return r.SocketWrites }),
			median(func(r result) float64 { return r.LogWrites }),
			median(func(r result) float64 { return r.LogSyncs }),
			syscalls,
			median(func(r result) float64 { return float64(r.Errors) }))
	}
	w.Flush()
	return b.String()
}

// save writes name.jsonl and name.md.
func save(name string, results []any, table string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	var lines bytes.Buffer
	enc := json.NewEncoder(&lines)
	for _, r := range results {
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return errors.Join(os.WriteFile(name+".jsonl", lines.Bytes(), 0o644), os.WriteFile(name+".md", []byte(table), 0o644))
}
