package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// An outage is what callers of two nodes feel, at half of the load that the cluster
// can take, before the third is killed, while it is away, and while it catches up.
type outage struct {
	Round   int     `json:"round"`
	Rate    float64 `json:"ops_per_second"` // of all callers
	Away    float64 `json:"away_seconds"`
	Before  float64 `json:"p99_before_us"`
	During  float64 `json:"p99_during_us"`
	After   float64 `json:"p99_catching_up_us"`
	CatchUp float64 `json:"catch_up_seconds"` // from the start of its process until no node keeps a hint
	Hints   int     `json:"hints"`            // that were kept at the end of the outage
	Errors  uint64  `json:"errors"`
}

const (
	outagePiece = time.Second     // of load, between looks at the hints
	maxCatchUp  = 5 * time.Minute // after that the round has failed
)

// measureOutages runs all rounds on one cluster, whose third node dies in each.
func measureOutages(ctx context.Context, o options) (results []outage, err error) {
	if o.nodes != 3 || o.callers < 3 || o.rounds < 1 {
		return nil, errors.New("an outage takes 3 nodes, and a caller for each")
	}
	dir, err := os.MkdirTemp(o.dir, "kvstore-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c, err := start(ctx, o, filepath.Join(dir, "outage"), 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	w, err := named("put-quorum-synced")
	if err != nil {
		return nil, err
	}
	for round := range o.rounds {
		full, err := c.run(ctx, o, w)
		if err != nil {
			return nil, err
		}
		r, err := c.outage(ctx, o, full.OpsPerSecond/2)
		if err != nil {
			return nil, err
		}
		r.Round = round + 1
		results = append(results, r)
		fmt.Fprintf(os.Stderr, "round %d: %.0f puts/s, p99 %.0f us before, %.0f during, %.0f after; %d hints, caught up in %.1f s\n",
			r.Round, r.Rate, r.Before, r.During, r.After, r.Hints, r.CatchUp)
	}
	return results, nil
}

// outage kills the third node, starts it again after a while, and waits for it to catch
// up.
func (c *cluster) outage(ctx context.Context, o options, rate float64) (outage, error) {
	r := outage{Rate: rate, Away: o.outage.Seconds()}
	living := &cluster{nodes: c.nodes[:2]}
	load := func(d time.Duration) (tally, error) {
		const lead = 50 * time.Millisecond
		from := time.Now().Add(lead)
		answers, err := living.all(func(int) command {
			return command{Do: "run", Workload: "put-quorum-synced", Callers: o.callers / 2, Rate: rate / 2, From: from, Until: from.Add(d)}
		})
		var sum tally
		for i := range answers {
			sum.merge(&answers[i].Tally)
		}
		r.Errors += sum.Errors
		return sum, err
	}
	p99 := func(t tally) float64 { return float64(t.quantile(0.99)) / 1e3 }
	if _, err := load(o.outage / 12); err != nil { // what full load left to do is not of before
		return r, err
	}
	before, err := load(o.outage / 3)
	if err != nil {
		return r, err
	}
	third := c.nodes[2]
	if err := third.cmd.Process.Kill(); err != nil {
		return r, err
	}
	_ = third.cmd.Wait() // it was killed
	during, err := load(o.outage)
	if err != nil {
		return r, err
	}
	if r.Hints, err = living.hints(); err != nil {
		return r, err
	}
	began := time.Now()
	if c.nodes[2], err = startNode(ctx, third.config); err != nil {
		return r, err
	}
	var after tally
	for left := r.Hints; left > 0; {
		if time.Since(began) > maxCatchUp {
			return r, fmt.Errorf("%d hints are left after %v", left, maxCatchUp)
		}
		piece, err := load(outagePiece)
		if err != nil {
			return r, err
		}
		after.merge(&piece)
		if left, err = living.hints(); err != nil {
			return r, err
		}
	}
	r.CatchUp = time.Since(began).Seconds()
	r.Before, r.During, r.After = p99(before), p99(during), p99(after)
	_, err = (&cluster{nodes: c.nodes[2:]}).all(func(int) command { return command{Do: "ready"} })
	return r, err
}

// hints is how many hints the nodes keep.
func (c *cluster) hints() (n int, err error) {
	answers, err := c.all(func(int) command { return command{Do: "hints"} })
	for _, a := range answers {
		n += a.Hints
	}
	return n, err
}

// tabulateOutages shows all rounds, and the medians.
func tabulateOutages(results []outage) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| round\t| puts/s\t| away s\t| p99 before us\t| during us\t| catching up us\t| during / before\t| catching up / before\t| hints\t| catch-up s\t| errors\t|")
	fmt.Fprintln(w, "|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|")
	for _, r := range results {
		fmt.Fprintf(w, "| %d\t| %.0f\t| %.0f\t| %.0f\t| %.0f\t| %.0f\t| %.2f\t| %.2f\t| %d\t| %.1f\t| %d\t|\n",
			r.Round, r.Rate, r.Away, r.Before, r.During, r.After, r.During/r.Before, r.After/r.Before, r.Hints, r.CatchUp, r.Errors)
	}
	median := func(figure func(outage) float64) float64 {
		var all []float64
		for _, r := range results {
			all = append(all, figure(r))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	fmt.Fprintf(w, "| median\t| \t| \t| \t| \t| \t| %.2f\t| %.2f\t| \t| %.1f\t| \t|\n",
		median(func(r outage) float64 { return r.During / r.Before }),
		median(func(r outage) float64 { return r.After / r.Before }),
		median(func(r outage) float64 { return r.CatchUp }))
	w.Flush()
	return b.String()
}
