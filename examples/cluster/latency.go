package main

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"example.com/kvstore"
)

// A kind of call is a verb at a level.
type kind struct {
	verb  string
	level kvstore.Consistency
}

// latencies are how long each call took, seen by its caller.
type latencies struct {
	mu struct {
		sync.Mutex
		took map[kind][]time.Duration
	}
}

func newLatencies() *latencies {
	l := &latencies{}
	l.mu.took = map[kind][]time.Duration{}
	return l
}

func (l *latencies) add(k kind, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.took[k] = append(l.mu.took[k], d)
}

// A distribution sums up the calls of one kind.
type distribution struct {
	kind
	count         int
	p50, p99, max time.Duration
}

// distributions are sorted by verb and level.
func (l *latencies) distributions() []distribution {
	l.mu.Lock()
	defer l.mu.Unlock()
	kinds := slices.SortedFunc(maps.Keys(l.mu.took), func(a, b kind) int {
		return cmp.Or(cmp.Compare(b.verb, a.verb), cmp.Compare(a.level, b.level))
	})
	var all []distribution
	for _, k := range kinds {
		took := slices.Sorted(slices.Values(l.mu.took[k]))
		at := func(q float64) time.Duration { return took[int(q*float64(len(took)-1))] }
		all = append(all, distribution{k, len(took), at(0.50), at(0.99), at(1)})
	}
	return all
}
