package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// A display shows the tour while it runs.
type display interface {
	open()
	stepDone(step)
	close()
}

// headless prints one line per step.
type headless struct{ out io.Writer }

func (h headless) open()           {}
func (h headless) close()          {}
func (h headless) stepDone(s step) { fmt.Fprintln(h.out, s) }

// String is one line.
func (s step) String() string {
	return fmt.Sprintf("%-12s %7s  %s", s.name, seconds(s.took), s.result)
}

// summarize prints the account of the whole tour.
func (t *tour) summarize(w io.Writer) {
	s := &t.score
	fmt.Fprintln(w)
	for _, l := range []struct {
		name   string
		number int64
		remark string
	}{
		{"acknowledged writes", s.acked.Load(), ""},
		{"reads compared", s.read.Load(), ""},
		{"lost writes", s.lost.Load(), "must be 0"},
		{"wrong bytes", s.wrong.Load(), "must be 0"},
		{"failed requests", s.errors.Load(), "must be 0"},
		{"failed over", failovers(t.client), "in flight to the killed node's service, sent again through another"},
		{"stale at one", s.staleAtOne.Load(), "before the kill; reads at one may be"},
	} {
		fmt.Fprintln(w, strings.TrimSpace(fmt.Sprintf("%-20s %11s  %s", l.name, count(int(l.number)), l.remark)))
	}
	for _, p := range s.problems() {
		fmt.Fprintln(w, "  problem:", p)
	}
	fmt.Fprintf(w, "\n%-20s %11s %10s %10s %10s   (as the services' user sees it, over HTTP)\n", "latency", "calls", "p50", "p99", "max")
	for _, d := range t.latencies.distributions() {
		fmt.Fprintf(w, "%-20s %11s %10s %10s %10s\n", d.verb+" "+d.level.String(), count(d.count), millis(d.p50), millis(d.p99), millis(d.max))
	}
	fmt.Fprintln(w)
}

func failovers(c *client) int64 {
	if c == nil {
		return 0
	}
	return c.failovers.Load()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// size gives a size in MB or KB, powers of ten.
func size(n int64) string {
	if n >= 1e6 {
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f KB", float64(n)/1e3)
}

// count groups the digits of n.
func count(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
