package transport

import (
	"container/heap"
	"sync"
	"time"
)

// timeline runs functions at their times: one after the other, ordered by time,
// then by the order in which they came. It is idle, without a goroutine, when
// nothing is due.
type timeline struct {
	mu      sync.Mutex // guards what follows; not held while a function runs
	due     dueHeap
	number  uint64
	running bool
	timer   *time.Timer
}

type due struct {
	at     time.Time
	number uint64
	run    func()
}

func (q *timeline) schedule(at time.Time, run func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.number++
	heap.Push(&q.due, due{at, q.number, run})
	if !q.running && q.due[0].number == q.number {
		q.wakeLocked()
	}
}

// wakeLocked sets the timer for the first function.
func (q *timeline) wakeLocked() {
	d := q.due[0].at.Sub(now())
	if q.timer == nil {
		q.timer = time.AfterFunc(d, q.run)
	} else {
		q.timer.Reset(d)
	}
}

func (q *timeline) run() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running {
		return // a timer that was set again while it fired
	}
	q.running = true
	for len(q.due) > 0 && !q.due[0].at.After(now()) {
		d := heap.Pop(&q.due).(due)
		q.mu.Unlock()
		d.run()
		q.mu.Lock()
	}
	q.running = false
	if len(q.due) > 0 {
		q.wakeLocked()
	}
}

type dueHeap []due

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].number < h[j].number
}
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)   { *h = append(*h, x.(due)) }
func (h *dueHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = due{}
	*h = old[:len(old)-1]
	return x
}
