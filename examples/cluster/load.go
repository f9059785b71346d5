package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"example.com/kvstore"
)

// A load reads and writes random entries at Quorum until it is stopped, or too
// many requests have failed. Every caller has entries of its own, so it knows
// what each read must return.
type load struct {
	stopping atomic.Bool
	callers  sync.WaitGroup
}

func (t *tour) startLoad(ctx context.Context) *load {
	l := &load{}
	for c := range min(t.callers, len(t.files.entries)) {
		l.callers.Go(func() { l.run(ctx, t, c) })
	}
	return l
}

// run is the caller with number c.
func (l *load) run(ctx context.Context, t *tour, c int) {
	draw := rand.New(rand.NewPCG(1, uint64(c)))
	own := (len(t.files.entries) - c + t.callers - 1) / t.callers
	for ctx.Err() == nil && !l.stopping.Load() && t.score.errors.Load() < maxErrors {
		e := &t.files.entries[c+t.callers*draw.IntN(own)]
		via := draw.IntN(len(t.nodes))
		if draw.IntN(2) == 0 {
			t.put(ctx, e, via)
		} else {
			t.get(ctx, e, via, kvstore.Quorum, true)
		}
	}
}

// stop waits for the requests in flight.
func (l *load) stop() {
	l.stopping.Store(true)
	l.callers.Wait()
}
