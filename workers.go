package kvstore

import "sync"

// maxWorkers bounds the goroutines that do for peers what may touch the disk or
// wait: reads that memory cannot answer, requests of a newer epoch.
const maxWorkers = 256

// maxReaders bounds the goroutines that read this node's own copy from the disk for
// its own callers. Each may take a thread while the disk does not answer.
const maxReaders = 4096

// workers runs functions on a bounded number of goroutines.
type workers struct {
	slots chan struct{} // its capacity is the bound: one per running goroutine
	wg    sync.WaitGroup
}

func newWorkers(bound int) *workers { return &workers{slots: make(chan struct{}, bound)} }

// run starts fn on its own goroutine, or reports that all are busy. It never
// blocks.
func (w *workers) run(fn func()) bool {
	select {
	case w.slots <- struct{}{}:
	default:
		return false
	}
	w.wg.Go(func() {
		defer func() { <-w.slots }()
		fn()
	})
	return true
}

// wait returns when the last function has. Nobody may call run any more.
func (w *workers) wait() { w.wg.Wait() }
