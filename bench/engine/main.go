// Engine measures the storage engine of kvstore, package lsm, beside others for
// Go: Pebble, Badger, goleveldb, bbolt and pogreb. How each is configured, and
// why, stands in the comment of its adapter.
//
//	go run . -quick                             # a look at everything, about a minute: tiny sizes, no claim
//	go run . -out results                       # the full measurement, some hours on a quiet machine
//	go run . -from results/a.jsonl,results/b.jsonl -out results -label both
//	go run . -engines kvstore,pebble -workloads 'fill,read-uniform/*'
//	go run . -verify -quick                     # every read is compared with what was written
//
// Every measurement runs in a process of its own that opens one store. A round
// runs every workload with every engine, one right after the other and in another
// order each time, so that a noisy minute hurts all alike. Tables show medians.
//
// Keys have 16 bytes, values are half compressible. A workload that reads starts
// from a data set that was loaded, and had its background work done, before the
// first round; one that writes too gets a copy of it.
package main

import (
	"context"
	"errors"
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

// A profile says how much and how long.
type profile struct {
	rounds                    int
	time, warm, overwrite     time.Duration
	limit                     time.Duration // of a fill
	quiet                     time.Duration // how long the process must idle until background work counts as done
	keys, many, most          uint64        // of the small, the large and the largest data set with values of 100 B
	fillBytes, bigBytes       int64         // of a fill; of the data set with values of 1 KiB
	cacheBytes, memtableBytes int64         // of every engine
}

var full = profile{rounds: 5, time: 5 * time.Second, warm: 6 * time.Second, overwrite: time.Minute, limit: 2 * time.Minute,
	quiet: time.Second, keys: 1_000_000, many: 5_000_000, most: 10_000_000, fillBytes: 512 << 20, bigBytes: 1 << 30, cacheBytes: 256 << 20, memtableBytes: 64 << 20}

var quick = profile{rounds: 1, time: 100 * time.Millisecond, warm: 50 * time.Millisecond, overwrite: time.Second, limit: time.Second,
	quiet: 100 * time.Millisecond, keys: 5_000, many: 20_000, most: 30_000, fillBytes: 2 << 20, bigBytes: 8 << 20, cacheBytes: 2 << 20, memtableBytes: 1 << 20}

// options are the settings of a whole measurement.
type options struct {
	profile
	workloads, engines string
	dir, profiles, out string // out: the results' files without their endings, or ""
	verify             bool
}

func main() {
	if runAsChild() {
		return
	}
	o := options{profile: full}
	for _, arg := range os.Args[1:] { // flags change the profile, wherever they stand
		if arg == "-quick" || arg == "--quick" {
			o.profile = quick
		}
	}
	flag.Bool("quick", false, "tiny sizes and one round, to see that everything works")
	flag.IntVar(&o.rounds, "rounds", o.rounds, "interleaved rounds; the tables show medians")
	flag.DurationVar(&o.time, "time", o.time, "time of one measurement")
	flag.DurationVar(&o.warm, "warm", o.warm, "time before it that is not counted")
	flag.DurationVar(&o.overwrite, "overwrite", o.overwrite, "time of the steady overwrite")
	flag.DurationVar(&o.limit, "limit", o.limit, "a fill that takes longer ends early")
	flag.DurationVar(&o.quiet, "quiet", o.quiet, "a process that idles this long has done its background work")
	flag.Uint64Var(&o.keys, "keys", o.keys, "keys of the small data set, values of 100 B")
	flag.Uint64Var(&o.many, "many", o.many, "keys of the large data set, values of 100 B")
	flag.Uint64Var(&o.most, "most", o.most, "keys of the data set that is opened again, values of 100 B")
	flag.Int64Var(&o.fillBytes, "fill", o.fillBytes, "bytes of keys and values that a fill writes")
	flag.Int64Var(&o.bigBytes, "big", o.bigBytes, "bytes of the data set with values of 1 KiB; four times the cache")
	flag.Int64Var(&o.cacheBytes, "cache", o.cacheBytes, "bytes of each engine's cache")
	flag.Int64Var(&o.memtableBytes, "memtable", o.memtableBytes, "bytes of each engine's memtable")
	flag.StringVar(&o.workloads, "workloads", "", "comma-separated names, patterns or families; default all")
	flag.StringVar(&o.engines, "engines", "", "comma-separated engines; default all but pebble-blobs and nothing")
	flag.StringVar(&o.dir, "dir", "", "where the stores are, default a temporary directory; use a real disk")
	flag.StringVar(&o.profiles, "profiles", "", "directory for a CPU profile of each measurement; default none")
	flag.BoolVar(&o.verify, "verify", false, "check every value that is read, and all of them after closing and opening again; not for figures")
	list := flag.Bool("list", false, "show engines and workloads, measure nothing")
	from := flag.String("from", "", "comma-separated files of JSON lines: show what they hold, measure nothing")
	out := flag.String("out", "", "directory for the results: JSON lines, tables, a plot for each family; default none")
	label := flag.String("label", time.Now().UTC().Format("2006-01-02"), "name of the result files")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "engine: %q is not a flag\n", flag.Arg(0))
		os.Exit(2)
	}
	if *list {
		fmt.Println(peerNames())
		for _, w := range workloads(o.profile) {
			fmt.Println(w.Name)
		}
		return
	}
	if *out != "" {
		o.out = filepath.Join(*out, *label)
	}
	if err := report(o, *from); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

// report measures, or reads what was measured, and shows and saves it: after an
// interrupt, what there is.
func report(o options, from string) error {
	var results []result
	var err error
	head := ""
	if from != "" {
		if results, err = readResults(strings.Split(from, ",")); err != nil {
			return err
		}
	} else {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		head = describe(o) + "\n"
		results, err = measure(ctx, o)
	}
	if len(results) == 0 {
		return err
	}
	text := head + tabulate(results)
	fmt.Print("\n" + text)
	if o.out != "" {
		err = errors.Join(err, save(o.out, results, text))
	}
	return err
}

// describe tells what the tables were measured on, and with.
func describe(o options) string {
	return fmt.Sprintf("%d rounds of %v after %v warm. Cache %d MiB, memtable %d MiB, fills of %d MiB. %s, %s/%s, %d CPUs.\n",
		o.rounds, o.time, o.warm, o.cacheBytes>>20, o.memtableBytes>>20, o.fillBytes>>20,
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
}
