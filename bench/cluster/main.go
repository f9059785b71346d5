// Cluster measures the whole path of a request: three processes, each a node of
// one kvstore cluster with its own directory, joined over loopback. The callers
// sit inside the nodes, as in an embedding service.
//
//	go run .                          # all workloads, 5 interleaved rounds
//	go run . -rounds 1 -time 300ms    # a quick look
//	go run . -perf -out results       # count all system calls, keep the results
//	go run . -outage 60s              # instead: what callers feel of a node that is away, and its return
//
// Each round runs every workload once, so that a noisy minute hurts all alike;
// the table shows the median of the rounds.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

func main() {
	if runAsNode() {
		return
	}
	var o options
	flag.IntVar(&o.nodes, "nodes", 3, "nodes, one process each")
	flag.IntVar(&o.callers, "callers", 64, "callers in all, spread over the nodes")
	flag.IntVar(&o.keys, "keys", 100_000, "keys; each has 16 bytes")
	flag.IntVar(&o.valueBytes, "value", 100, "bytes of a value, at least 16")
	flag.IntVar(&o.rounds, "rounds", 5, "interleaved rounds; the table shows medians")
	flag.DurationVar(&o.time, "time", 3*time.Second, "time of one measurement")
	flag.DurationVar(&o.warm, "warm", time.Second, "time before it that is not counted")
	flag.DurationVar(&o.every, "every", 100*time.Millisecond, "sync interval of the unsynced workload")
	flag.StringVar(&o.workloads, "workloads", "", "comma-separated names, default all: "+strings.Join(workloadNames(), ", "))
	flag.DurationVar(&o.outage, "outage", 0, "instead of the workloads: kill the third node for so long, at half load, and let it catch up")
	flag.StringVar(&o.dir, "dir", "", "where the nodes keep their data, default a temporary directory; use a real disk")
	flag.BoolVar(&o.perf, "perf", false, "count all system calls with perf stat (Linux, needs permission)")
	out := flag.String("out", "", "directory for the results, as JSON lines and as a table; default none")
	label := flag.String("label", time.Now().UTC().Format("2006-01-02"), "name of the result files")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	lines, table, err := run(ctx, o)
	if err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
	table = describe(o) + "\n" + table
	fmt.Print("\n" + table)
	if *out != "" {
		if err := save(filepath.Join(*out, *label), lines, table); err != nil {
			fmt.Fprintln(os.Stderr, "cluster:", err)
			os.Exit(1)
		}
	}
}

// run gives the results, one by one, and a table of them.
func run(ctx context.Context, o options) (lines []any, table string, err error) {
	if o.outage > 0 {
		results, err := measureOutages(ctx, o)
		for _, r := range results {
			lines = append(lines, r)
		}
		if err != nil {
			return nil, "", err
		}
		return lines, tabulateOutages(results), nil
	}
	results, err := measure(ctx, o)
	for _, r := range results {
		lines = append(lines, r)
	}
	if err != nil {
		return nil, "", err
	}
	return lines, tabulate(results), nil
}

// options are the settings of a whole measurement.
type options struct {
	nodes, callers, keys, valueBytes, rounds int
	time, warm, every, outage                time.Duration
	workloads, dir                           string
	perf                                     bool
}

// describe tells what the table was measured on.
func describe(o options) string {
	return fmt.Sprintf("%d nodes, N=3, %d callers in all, keys 16 B, values %d B, %d keys, %d rounds of %v. %s, %s/%s, %d CPUs.\n",
		o.nodes, o.callers, o.valueBytes, o.keys, o.rounds, o.time, runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
}
