package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"example.com/kvstore"
)

// put writes the next version of the entry at Quorum and keeps account of it.
func (t *tour) put(ctx context.Context, e *entry, via int) {
	value, err := e.next()
	if err != nil {
		t.problem("read a file: %v", err)
		return
	}
	s := sha256.Sum256(value)
	began := time.Now()
	r := t.client.put(ctx, via, kvstore.Quorum, e.key, value)
	if r.err == nil {
		t.latencies.add(kind{"put", kvstore.Quorum}, time.Since(began))
		t.score.acked.Add(1)
		e.acknowledged(s)
		return
	}
	if r.outcome != kvstore.NotApplied {
		e.maybe = append(e.maybe, s)
	}
	if ctx.Err() == nil {
		t.problem("put %s: %v", e.key, r.err)
	}
}

// get reads the entry and judges the answer. mustSee says that an older version
// than the last acknowledged one is a loss.
func (t *tour) get(ctx context.Context, e *entry, via int, level kvstore.Consistency, mustSee bool) {
	began := time.Now()
	r := t.client.get(ctx, via, level, e.key)
	if r.err != nil {
		if ctx.Err() == nil {
			t.problem("get %s at %v: %v", e.key, level, r.err)
		}
		return
	}
	t.latencies.add(kind{"get", level}, time.Since(began))
	t.score.read.Add(1)
	switch e.judge(r.value, r.found) {
	case wrong:
		t.score.wrong.Add(1)
		t.score.note(fmt.Sprintf("get %s at %v: %d bytes that nobody wrote", e.key, level, len(r.value)))
	case stale:
		if !mustSee {
			t.score.staleAtOne.Add(1)
			return
		}
		if !e.lost {
			e.lost = true
			t.score.lost.Add(1)
		}
		t.score.note(fmt.Sprintf("get %s at %v through node %d: not the last acknowledged version (found %v)", e.key, level, via%len(t.nodes)+1, r.found))
	}
}

// problem counts a request that failed.
func (t *tour) problem(format string, a ...any) {
	t.score.errors.Add(1)
	t.score.note(fmt.Sprintf(format, a...))
}

// each calls do for every entry, many at a time, until ctx is over or too many
// requests have failed.
func (t *tour) each(ctx context.Context, do func(e *entry, i int)) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	t.progress.expect(len(t.files.entries))
	for range t.callers {
		wg.Go(func() {
			for ctx.Err() == nil && t.score.errors.Load() < maxErrors {
				i := int(next.Add(1)) - 1
				if i >= len(t.files.entries) {
					return
				}
				do(&t.files.entries[i], i)
				t.progress.done.Add(1)
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}
