package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// A row is what the tables and plots show of one figure of one workload: the
// rounds of each engine by their number, and 0 for one that failed or was not run.
type row struct {
	name    string
	engines map[string][]float64
}

// rows gives a row for each workload, and one more for each whose background work
// was waited for: "drained" divides by the time until that was done.
func rows(results []result) []row {
	var all []row
	at := map[string]int{}
	add := func(name string, r result, rate float64) {
		i, ok := at[name]
		if !ok {
			i = len(all)
			at[name] = i
			all = append(all, row{name, map[string][]float64{}})
		}
		rounds := all[i].engines[r.Engine]
		for len(rounds) < r.Round {
			rounds = append(rounds, 0)
		}
		rounds[r.Round-1] = rate
		all[i].engines[r.Engine] = rounds
	}
	for _, r := range results {
		if r.Error == errNoScan.Error() {
			continue
		}
		add(r.Workload, r, r.OpsPerSecond)
		if drains(r.Workload) {
			family, variant, _ := strings.Cut(r.Workload, "/")
			add(family+"-drained/"+variant, r, r.Drained)
		}
	}
	return all
}

// drains tells for which workloads the drained rate says something: a synced fill
// is over before background work counts.
func drains(name string) bool {
	return strings.HasPrefix(name, "fill/") || strings.HasPrefix(name, "overwrite/")
}

// A spread is a median between extremes.
type spread struct{ low, median, high float64 }

func spreadOf(of []float64) spread {
	if len(of) == 0 {
		return spread{}
	}
	return spread{slices.Min(of), median(of), slices.Max(of)}
}

// rates gives the rounds of an engine that did not fail.
func (r row) rates(engine string) []float64 {
	return slices.DeleteFunc(slices.Clone(r.engines[engine]), func(rate float64) bool { return rate == 0 })
}

// ratios divides round by round, so that a slow minute of the machine cancels.
func (r row) ratios(engine string) []float64 {
	var all []float64
	for i, rate := range r.engines[engine] {
		if mine := r.engines[ours]; i < len(mine) && rate > 0 && mine[i] > 0 {
			all = append(all, mine[i]/rate)
		}
	}
	return all
}

// tabulate shows the floor of the machine, the ratios and all figures.
func tabulate(results []result) string {
	var b strings.Builder
	all := rows(results)
	names := enginesOf(results)
	if slices.Contains(names, ours) && len(names) > 1 {
		b.WriteString("Throughput of " + ours + " divided by that of the others; above 1 it is faster. Median of the rounds (lowest to highest).\n" +
			"n/a: it failed, or it cannot scan a range of keys, as " + ours + " itself, whose tree is in the order of hashes.\n\n")
		table(&b, func(line func(...string)) {
			line(append([]string{"workload", ours + " /s"}, without(names, ours)...)...)
			for _, r := range all {
				if r.engines[machine] != nil {
					continue
				}
				cells := []string{r.name, "n/a"}
				if mine := r.rates(ours); len(mine) > 0 {
					cells[1] = rate(median(mine))
				}
				for _, name := range without(names, ours) {
					cell := "n/a"
					if of := r.ratios(name); len(of) > 0 {
						s := spreadOf(of)
						cell = fmt.Sprintf("%.2f", s.median)
						if len(of) > 1 {
							cell = fmt.Sprintf("%.2f (%.2f to %.2f)", s.median, s.low, s.high)
						}
					}
					cells = append(cells, cell)
				}
				line(cells...)
			}
		})
		b.WriteString("\n")
	}
	b.WriteString("All figures, medians of the rounds. CPU and allocations are of the whole process. Write: bytes to the device for each byte put, background work\n" +
		"included. Space: bytes on disk for each byte of keys and values, all files; tables: without logs, at the end and at worst. RSS: peak above that of the\n" +
		"process without a store, mapped files included; of budget: the same divided by the memory that the engine was told to keep to, where it takes such an\n" +
		"option; anon: the highest seen without files. Open: data in the page cache. Steady: the worst half second by the median one.\n\n")
	table(&b, func(line func(...string)) {
		line("workload", "engine", "/s", "slowest, fastest", "drained /s", "p50 us", "p99 us", "p99.9 us", "CPU us/op", "allocs/op", "device B read/op",
			"write", "space", "tables", "worst", "RSS MiB", "of budget", "anon MiB", "open ms", "steady")
		for _, g := range groups(results) {
			figures(line, g)
		}
	})
	return b.String()
}

func figures(line func(...string), g []result) {
	var good []result
	for _, r := range g {
		if r.Error == "" {
			good = append(good, r)
		}
	}
	first := g[0]
	if len(good) == 0 {
		text := "failed"
		if first.Error == errNoScan.Error() {
			text = "n/a"
		}
		line(first.Workload, first.Engine, text)
		return
	}
	of := func(figure func(result) float64) spread {
		var all []float64
		for _, r := range good {
			all = append(all, figure(r))
		}
		return spreadOf(all)
	}
	show := func(format string, figure func(result) float64) string {
		if m := of(figure).median; m != 0 {
			return fmt.Sprintf(format, m)
		}
		return "-"
	}
	rates := of(func(r result) float64 { return r.OpsPerSecond })
	drained := "-"
	if m := of(func(r result) float64 { return r.Drained }).median; m > 0 && drains(first.Workload) {
		drained = rate(m)
	}
	note := ""
	if slices.ContainsFunc(good, func(r result) bool { return r.Capped }) {
		note = " (ended early)"
	}
	if len(good) < len(g) {
		note += fmt.Sprintf(" (%d failed)", len(g)-len(good))
	}
	line(first.Workload, first.Engine, rate(rates.median)+note, rate(rates.low)+", "+rate(rates.high), drained,
		show("%.1f", func(r result) float64 { return r.P50 }),
		show("%.1f", func(r result) float64 { return r.P99 }),
		show("%.0f", func(r result) float64 { return r.P999 }),
		show("%.2f", func(r result) float64 { return r.CPU }),
		show("%.2f", func(r result) float64 { return r.Allocs }),
		show("%.0f", func(r result) float64 { return r.DeviceReads }),
		show("%.2f", func(r result) float64 { return r.WriteAmp }),
		show("%.2f", func(r result) float64 { return r.Space }),
		show("%.2f", func(r result) float64 { return r.Tables }),
		show("%.2f", func(r result) float64 { return r.TablesWorst }),
		show("%.0f", func(r result) float64 { return r.PeakRSS / (1 << 20) }),
		show("%.2f", func(r result) float64 { return r.ofBudget() }),
		show("%.0f", func(r result) float64 { return r.AnonymousRSS / (1 << 20) }),
		show("%.1f", func(r result) float64 { return r.OpenSeconds * 1e3 }),
		show("%.2f", func(r result) float64 { return r.Steadiness }))
}

// groups gives the rounds of each workload and engine, in the order of workloads
// first and of the register of engines second.
func groups(results []result) [][]result {
	var workloads []string
	of := map[[2]string][]result{}
	for _, r := range results {
		if !slices.Contains(workloads, r.Workload) {
			workloads = append(workloads, r.Workload)
		}
		k := [2]string{r.Workload, r.Engine}
		of[k] = append(of[k], r)
	}
	var all [][]result
	for _, w := range workloads {
		for _, e := range append([]string{machine}, peerNames()...) {
			if g := of[[2]string{w, e}]; g != nil {
				all = append(all, g)
			}
		}
	}
	return all
}

// enginesOf gives the engines that have results, in the order of the register.
func enginesOf(results []result) []string {
	var names []string
	for _, name := range peerNames() {
		if slices.ContainsFunc(results, func(r result) bool { return r.Engine == name }) {
			names = append(names, name)
		}
	}
	return names
}

func without(names []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == one })
}

// rate shows four digits at least.
func rate(f float64) string {
	switch {
	case f >= 1e7:
		return fmt.Sprintf("%.1fM", f/1e6)
	case f >= 1e6:
		return fmt.Sprintf("%.2fM", f/1e6)
	case f >= 1e4:
		return fmt.Sprintf("%.1fk", f/1e3)
	}
	return fmt.Sprintf("%.0f", f)
}

// table writes a Markdown table that is also readable as text; the first line is
// the head, and shorter lines are filled up.
func table(b *strings.Builder, fill func(line func(...string))) {
	w := tabwriter.NewWriter(b, 0, 0, 1, ' ', 0)
	columns := 0
	fill(func(cells ...string) {
		head := columns == 0
		columns = max(columns, len(cells))
		for len(cells) < columns {
			cells = append(cells, "")
		}
		fmt.Fprintln(w, "| "+strings.Join(cells, "\t| ")+"\t|")
		if head {
			fmt.Fprintln(w, "|"+strings.Repeat("---\t|", columns))
		}
	})
	w.Flush()
}

// save writes name.md, and a plot for each family of workloads beside it.
func save(name string, results []result, report string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	errs := []error{os.WriteFile(name+".md", []byte(report), 0o644)}
	for family, svg := range plots(results) {
		errs = append(errs, os.WriteFile(name+"-"+family+".svg", svg, 0o644))
	}
	return errors.Join(errs...)
}

// readResults reads files of JSON lines. The rounds of each come after those of
// the one before.
func readResults(names []string) ([]result, error) {
	var all []result
	before := 0
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		last := before
		for lines := json.NewDecoder(f); ; {
			var r result
			if err := lines.Decode(&r); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			r.Round += before
			last = max(last, r.Round)
			all = append(all, r)
		}
		before = last
	}
	return all, nil
}
