package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"example.com/kvstore"
)

// A workload is one kind of request against one kind of cluster.
type workload struct {
	name   string
	synced bool // which cluster: SyncAlways or SyncEvery
	op     func(ctx context.Context, db *kvstore.DB, key string, value []byte) error
}

var workloads = []workload{
	{"put-quorum-synced", true, put},
	{"put-quorum-unsynced", false, put},
	{"get-quorum", true, get(kvstore.Quorum)},
	{"get-one", true, get(kvstore.One)},
}

func put(ctx context.Context, db *kvstore.DB, key string, value []byte) error {
	_, err := db.Put(ctx, key, value, kvstore.Quorum)
	return err
}

// get reads a key and checks that the value is of this key and whole.
func get(level kvstore.Consistency) func(context.Context, *kvstore.DB, string, []byte) error {
	return func(ctx context.Context, db *kvstore.DB, key string, value []byte) error {
		item, err := db.Get(ctx, key, level)
		if err == nil && (len(item.Value) != len(value) || string(item.Value[:len(key)]) != key) {
			return fmt.Errorf("key %s has a wrong value: %q", key, item.Value)
		}
		return err
	}
}

func workloadNames() []string {
	var names []string
	for _, w := range workloads {
		names = append(names, w.name)
	}
	return names
}

// chosen gives the workloads of a comma-separated list, or all.
func chosen(list string) ([]workload, error) {
	if list == "" {
		return workloads, nil
	}
	var some []workload
	for name := range strings.SplitSeq(list, ",") {
		w, err := named(name)
		if err != nil {
			return nil, err
		}
		some = append(some, w)
	}
	return some, nil
}

func named(name string) (workload, error) {
	for _, w := range workloads {
		if w.name == name {
			return w, nil
		}
	}
	return workload{}, fmt.Errorf("no workload %q; there are %s", name, strings.Join(workloadNames(), ", "))
}

// keyNames gives n keys of 16 bytes.
func keyNames(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("key-%012d", i)
	}
	return keys
}

// A load keeps callers busy with one operation each at a time and counts those
// that end between from and until.
type load struct {
	db          *kvstore.DB
	keys        []string
	valueBytes  int
	callers     int
	rate        float64 // operations a second; 0: one after the other
	from, until time.Time
}

// run returns when until has passed and all callers have stopped.
func (l load) run(ctx context.Context, op func(context.Context, *kvstore.DB, string, []byte) error) (tally, error) {
	tallies := make([]tally, l.callers)
	errs := make([]error, l.callers)
	var wg sync.WaitGroup
	for i := range l.callers {
		wg.Go(func() {
			// Differs from node to node and round to round by its start.
			rng := rand.New(rand.NewPCG(uint64(i), uint64(l.from.UnixNano())))
			value := make([]byte, l.valueBytes)
			for j := range value {
				value[j] = byte(rng.Uint32())
			}
			// With a rate the latency counts from when the operation was due.
			due := time.Now()
			every := time.Duration(0)
			if l.rate > 0 {
				every = time.Duration(float64(l.callers) / l.rate * float64(time.Second))
				due = due.Add(rand.N(every))
			}
			for began := due; began.Before(l.until); {
				time.Sleep(time.Until(began))
				key := l.keys[rng.IntN(len(l.keys))]
				copy(value, key)
				err := op(ctx, l.db, key, value)
				ended := time.Now()
				if ended.After(l.from) && ended.Before(l.until) {
					if err != nil {
						tallies[i].Errors++
						errs[i] = err
					} else {
						tallies[i].add(ended.Sub(began))
					}
				}
				if began = began.Add(every); every == 0 {
					began = ended
				}
			}
		})
	}
	wg.Wait()
	var sum tally
	for i := range tallies {
		sum.merge(&tallies[i])
	}
	for _, err := range errs {
		if err != nil {
			return sum, err // one of them, to show
		}
	}
	return sum, nil
}

// fill puts the keys whose number modulo parts is part, all at once over the
// callers.
func (l load) fill(ctx context.Context, part, parts int) error {
	var wg sync.WaitGroup
	errs := make([]error, l.callers)
	for c := range l.callers {
		wg.Go(func() {
			value := make([]byte, l.valueBytes)
			for i := part + c*parts; i < len(l.keys) && errs[c] == nil; i += l.callers * parts {
				copy(value, l.keys[i])
				errs[c] = put(ctx, l.db, l.keys[i], value)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
