package lsm

import (
	"path"
	"runtime"
	"sync"

	"example.com/kvstore/lsm/internal/base"
)

// A refill applies what the log holds to memtables, on several goroutines and
// while the next groups are read. A memtable joins, so the order is all the same;
// each goroutine takes the tokens that are its own.
type refill struct {
	dir   string
	batch []logged
	bytes int // in batch

	running sync.WaitGroup // of the batch before
	mu      struct {
		sync.Mutex
		err     error
		damaged uint64 // with err, the segment of the first group that holds no records
		top     uint64 // the highest stamp
	}
}

// A logged group is one of the log, with the memtable that it belongs to.
type logged struct {
	m       *mem
	segment uint64
	off     int64
	records []byte
}

const (
	// refillBytes is when a batch is handed over. Two are in memory.
	refillBytes = 1 << 20
	maxRefills  = 4 // goroutines
)

// add takes in a group, whose records are the refill's from then on.
func (f *refill) add(g logged) error {
	f.batch = append(f.batch, g)
	f.bytes += len(g.records)
	if f.bytes < refillBytes {
		return nil
	}
	return f.hand()
}

// hand has the batch applied, after the one before.
func (f *refill) hand() error {
	err := f.wait()
	batch := f.batch
	f.batch, f.bytes = nil, 0
	if err != nil || len(batch) == 0 {
		return err
	}
	n := min(max(runtime.GOMAXPROCS(0), 1), maxRefills)
	for i := range n {
		f.running.Go(func() { f.apply(batch, uint64(i), uint64(n)) })
	}
	return nil
}

func (f *refill) wait() error {
	f.running.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.err
}

// flush returns when all that was added is in its memtable.
func (f *refill) flush() error {
	if err := f.hand(); err != nil {
		return err
	}
	return f.wait()
}

// apply applies the part of a batch whose tokens have the remainder i by n.
func (f *refill) apply(batch []logged, i, n uint64) {
	top, damaged := uint64(0), uint64(0)
	var bad error
	for _, g := range batch {
		for b, off := g.records, g.off; len(b) > 0 && bad == nil; {
			rec, size, err := base.DecodeRecord(b)
			if err != nil {
				bad = base.Corrupt(path.Join(f.dir, base.LogName(g.segment)), off, "a record", err)
				damaged = g.segment
				break
			}
			if rec.Token%n == i {
				top = max(top, rec.Max.Stamp)
				g.m.Apply(&rec)
			}
			b, off = b[size:], off+int64(size)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.top = max(f.mu.top, top)
	if f.mu.err == nil {
		f.mu.err, f.mu.damaged = bad, damaged
	}
}

// damaged gives the segment of the group that flush has failed for.
func (f *refill) damaged() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.damaged
}

// highest gives the highest stamp of all that was applied.
func (f *refill) highest() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.top
}
