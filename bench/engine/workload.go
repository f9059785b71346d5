package main

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// A workload is one kind of load from one state of a store. Its name is
// "family/variant"; a family shares a plot.
type workload struct {
	Name       string
	ValueBytes int
	Callers    int
	Synced     bool

	// A fill starts with an empty store and puts keys that were not there, in no
	// order. All others start from a data set of as many keys.
	Fill bool
	Keys uint64

	// What a caller does next, in percent, and to which keys.
	Reads, Updates, Inserts, Scans, Modifies int
	Draw                                     string // see keyspace

	// It ends after a time, or after a number of operations, whichever is set and
	// comes first. Warm comes before it and does not count.
	Time, Warm time.Duration
	Ops        uint64

	Reopen bool // measure opening, not what comes after
	Killed bool // the process that had it open was killed while it wrote

	Cold    bool // the page cache has forgotten the data set
	Drain   bool // the background work that it leaves is waited for
	Samples bool // the rate of every half second is kept
}

// ycsb are the six core workloads of Cooper et al., "Benchmarking Cloud Serving
// Systems with YCSB" (2010), with records of 1 KiB in one piece.
var ycsb = []workload{
	{Name: "ycsb/A", Reads: 50, Updates: 50, Draw: "zipf"},
	{Name: "ycsb/B", Reads: 95, Updates: 5, Draw: "zipf"},
	{Name: "ycsb/C", Reads: 100, Draw: "zipf"},
	{Name: "ycsb/D", Reads: 95, Inserts: 5, Draw: "latest"},
	{Name: "ycsb/E", Scans: 95, Inserts: 5, Draw: "zipf"},
	{Name: "ycsb/F", Reads: 50, Modifies: 50, Draw: "zipf"},
}

// maxScan bounds the length of a scan; lengths are uniform from 1 on.
const maxScan = 100

// workloads lists all that there is, in the sizes of a profile.
func workloads(p profile) []workload {
	var all []workload
	fill := func(synced bool, value, callers int) {
		w := workload{Fill: true, Synced: synced, ValueBytes: value, Callers: callers, Drain: true}
		if synced {
			w.Name, w.Time = "fill-sync", p.time
		} else {
			w.Name, w.Time = "fill", p.limit
			w.Ops = uint64(p.fillBytes) / uint64(keyBytes+value)
		}
		w.Name = fmt.Sprintf("%s/%s-%d", w.Name, sizeName(value), callers)
		all = append(all, w)
	}
	for _, synced := range []bool{true, false} {
		for _, callers := range []int{1, 16, 64, 256} {
			fill(synced, 100, callers)
		}
		fill(synced, 1<<10, 16)
		fill(synced, 8<<10, 16)
	}
	read := func(name, draw string, value int, keys uint64) *workload {
		all = append(all, workload{Name: name, Draw: draw, Reads: 100, ValueBytes: value, Keys: keys,
			Callers: 16, Time: p.time, Warm: p.warm})
		return &all[len(all)-1]
	}
	for _, keys := range slices.Compact([]uint64{p.keys, p.many}) {
		read("read-uniform/"+countName(keys), "uniform", 100, keys)
		read("read-zipf/"+countName(keys), "zipf", 100, keys)
		read("read-absent/"+countName(keys), "absent", 100, keys)
	}
	big := uint64(p.bigBytes) / (keyBytes + 1<<10)
	cold := read("beyond-cache/cold", "uniform", 1<<10, big)
	cold.Cold, cold.Warm = true, 0
	// So few that hardly any block is read twice.
	cold.Ops = uint64(p.bigBytes) / (32 << 10)
	read("beyond-cache/warm", "uniform", 1<<10, big)
	for _, w := range ycsb {
		w.ValueBytes, w.Keys, w.Callers, w.Time, w.Warm = 1<<10, big, 16, p.time, p.warm
		all = append(all, w)
	}
	for _, killed := range []bool{false, true} {
		w := workload{Name: "reopen/closed", Reopen: true, Killed: killed, ValueBytes: 100, Keys: p.most, Callers: 16}
		if killed {
			w.Name = "reopen/killed"
		}
		all = append(all, w)
	}
	return append(all, workload{Name: "overwrite/1KiB-16", Updates: 100, Draw: "uniform", ValueBytes: 1 << 10, Keys: big,
		Callers: 16, Time: p.overwrite, Samples: true, Drain: true})
}

// writes tells whether the workload changes its data set.
func (w workload) writes() bool { return w.Updates+w.Inserts+w.Modifies > 0 }

// dataSet names what the workload starts from.
func (w workload) dataSet() string {
	return fmt.Sprintf("%s-%s", countName(w.Keys), sizeName(w.ValueBytes))
}

// family is what shares a plot.
func (w workload) family() string { return path.Dir(w.Name) }

// chosenWorkloads gives those whose name matches one of the comma-separated
// patterns, such as "ycsb/*,fill-sync/100B-1" or a whole family "fill"; all if
// there are none.
func chosenWorkloads(all []workload, patterns string) ([]workload, error) {
	if patterns == "" {
		return all, nil
	}
	var some []workload
	for _, w := range all {
		for pattern := range strings.SplitSeq(patterns, ",") {
			ok, err := path.Match(pattern, w.Name)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", pattern, err)
			}
			if ok || pattern == w.family() {
				some = append(some, w)
				break
			}
		}
	}
	if len(some) == 0 {
		return nil, fmt.Errorf("no workload matches %q; -list shows them", patterns)
	}
	return some, nil
}

func sizeName(n int) string {
	if n >= 1<<10 && n%(1<<10) == 0 {
		return fmt.Sprintf("%dKiB", n>>10)
	}
	return fmt.Sprintf("%dB", n)
}

func countName(n uint64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.4gM", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.4gk", float64(n)/1e3)
	}
	return fmt.Sprint(n)
}
