package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"example.com/kvstore"
)

const (
	// paintEvery is also how often the nodes are asked for their status.
	paintEvery = 250 * time.Millisecond
	// width fits the terminals of old; longer lines would wrap and spoil the
	// repainting.
	width = 80

	heading   = "%-4s %6s %-7s %-7s %9s %8s %7s %7s %7s %7s"
	rowFormat = "%-4s %6d %-7s %-7s %9s %8s %7s %7s %7s %7s"

	hideCursor  = "\x1b[?25l"
	showCursor  = "\x1b[?25h"
	clearLine   = "\x1b[2K"
	moveUpLines = "\x1b[%dA\r"
	clearBelow  = "\x1b[J"
	bold        = "\x1b[1m"
	plain       = "\x1b[0m"
)

// A screen repaints a table of the nodes and the steps in a terminal.
type screen struct {
	out  io.Writer
	tour *tour
	http http.Client
	stop chan struct{} // closed by close
	loop sync.WaitGroup

	// Owned by the painting goroutine.
	lines   int // painted last
	painted time.Time
	rows    map[string]row
}

// A row is what was last heard of a node, and about it.
type row struct {
	report    report
	calls     uint64 // coordinated
	perSecond float64
	seen      kvstore.MemberStatus // by another node
}

func newScreen(out io.Writer, t *tour) *screen {
	return &screen{out: out, tour: t, http: http.Client{Transport: &http.Transport{}}, stop: make(chan struct{}), rows: map[string]row{}}
}

func (s *screen) open() {
	fmt.Fprint(s.out, hideCursor)
	s.loop.Go(func() {
		tick := time.NewTicker(paintEvery)
		defer tick.Stop()
		for {
			s.paint(false)
			select {
			case <-tick.C:
			case <-s.stop:
				s.paint(true)
				return
			}
		}
	})
}

func (s *screen) stepDone(step) {} // the next painting shows it

func (s *screen) close() {
	close(s.stop)
	s.loop.Wait()
	s.http.CloseIdleConnections()
	fmt.Fprint(s.out, showCursor)
}

// paint draws everything over what was drawn before. Lines are cut to the width,
// but for the last painting, which nothing follows.
func (s *screen) paint(last bool) {
	var lines []string
	if nodes := s.tour.progress.nodes(); nodes != nil {
		s.ask(nodes)
		lines = append(lines, fmt.Sprintf(heading, "node", "pid", "state", "seen as",
			"heartbeat", "calls", "calls/s", "syncs", "repairs", "records"))
		for _, n := range nodes {
			lines = append(lines, s.line(n))
		}
		lines = append(lines, "")
	}
	over, running := s.tour.progress.steps()
	for _, step := range over {
		lines = append(lines, step.String())
	}
	if running.name != "" {
		lines = append(lines, fmt.Sprintf("%-12s %7s  %s", running.name, seconds(running.took), s.tour.progress.bar()))
	}
	sc := &s.tour.score
	lines = append(lines, "", fmt.Sprintf("%s writes acknowledged, %s reads compared, %d lost, %d wrong, %d failed",
		count(int(sc.acked.Load())), count(int(sc.read.Load())), sc.lost.Load(), sc.wrong.Load(), sc.errors.Load()))

	var b strings.Builder
	if s.lines > 0 {
		fmt.Fprintf(&b, moveUpLines+clearBelow, s.lines)
	}
	for i, l := range lines {
		if r := []rune(l); len(r) >= width && !last {
			l = string(r[:width-2]) + "…"
		}
		if i == 0 {
			l = bold + l + plain
		}
		b.WriteString(clearLine + l + "\n")
	}
	s.lines = len(lines)
	_, _ = io.WriteString(s.out, b.String())
}

// ask gets the status of all nodes that serve.
func (s *screen) ask(nodes []*node) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var mu sync.Mutex
	reports := map[string]report{}
	_ = together(nodes, func(n *node) error {
		r, err := n.report(ctx, &s.http)
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			reports[n.config.ID] = r
		}
		return nil
	})
	now := time.Now()
	for id, r := range reports {
		row := s.rows[id]
		calls := r.Metrics.Gets + r.Metrics.Puts
		row.perSecond = 0
		if calls >= row.calls { // it starts again at 0 with the node
			row.perSecond = float64(calls-row.calls) / now.Sub(s.painted).Seconds()
		}
		row.report, row.calls = r, calls
		s.rows[id] = row
	}
	for id, r := range reports {
		for _, m := range r.Status.Members {
			if m.ID != id {
				row := s.rows[m.ID]
				row.seen = m
				s.rows[m.ID] = row
			}
		}
	}
	s.painted = now
}

// line is one node's row of the table.
func (s *screen) line(n *node) string {
	state, p := n.state()
	r := s.rows[n.config.ID]
	pid := 0
	if p != nil {
		pid = p.pid()
	}
	if state != stateServing {
		r.perSecond = 0
	}
	m := r.report.Metrics
	records := int(m.Engine.MemtableRecords + m.Engine.Records) // a key may have one in memory and some in tables
	return fmt.Sprintf(rowFormat, n.config.ID, pid, state, r.seen.State, seconds(r.seen.HeartbeatAge),
		count(int(r.calls)), count(int(r.perSecond)), count(int(m.Engine.Syncs)), count(int(m.WriteBacks)), count(records))
}

// bar shows how far the running step is.
func (p *progress) bar() string {
	const cells = 30
	done, total := p.done.Load(), p.total.Load()
	if total == 0 {
		return "…"
	}
	full := int(cells * done / total)
	return fmt.Sprintf("[%s%s] %s of %s", strings.Repeat("=", full), strings.Repeat(" ", cells-full), count(int(done)), count(int(total)))
}
