package gossip

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// world runs many nodes under virtual time: a queue of deliveries and wake-ups
// ordered by (time, number), so that one seed gives one history.
type world struct {
	now    time.Time
	random *rand.Rand
	queue  events
	number uint64
	nodes  []*node
	byAddr map[string]*node

	loss  float64
	delay func() time.Duration
	cut   func(from, to *node) bool              // nil: everybody reaches everybody
	late  func(to *node, at time.Time) time.Time // nil: delay is all

	onChange func(n *node, c Change)
	trace    func(to *node, body []byte)
}

type node struct {
	*Gossip
	index  int
	down   bool
	skew   time.Duration             // of the clock it is handed
	wake   time.Time                 // of the queued wake-up
	frozen func(time.Time) time.Time // when an event due now is handled; nil: at once
}

type event struct {
	at     time.Time
	number uint64
	to     *node
	body   []byte // nil: a wake-up
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	if c := q[i].at.Compare(q[j].at); c != 0 {
		return c < 0
	}
	return q[i].number < q[j].number
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return e
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld(seed uint64) *world {
	w := &world{now: epoch, random: rand.New(rand.NewPCG(seed, 1)), byAddr: map[string]*node{}}
	w.delay = func() time.Duration { return time.Duration(500+w.random.IntN(4500)) * time.Microsecond }
	return w
}

func nodeID(i int) string { return fmt.Sprintf("node-%04d", i) }

func (w *world) config(i int) Config {
	return Config{
		ID: nodeID(i), Addr: fmt.Sprintf("10.0.%d.%d:7000", i/256, i%256),
		Incarnation: uint64(w.now.UnixMilli()), Seed: uint64(i),
	}
}

// start adds a node, or replaces the one with the same id after a restart.
func (w *world) start(c Config) *node {
	n := &node{Gossip: New(c), index: len(w.nodes)}
	if i := slices.IndexFunc(w.nodes, func(m *node) bool { return m.self.id == c.ID }); i >= 0 {
		w.nodes[i].down = true
		n.index = i
		w.nodes[i] = n
	} else {
		w.nodes = append(w.nodes, n)
	}
	w.byAddr[c.Addr] = n
	n.clock.advance(w.now, 0)
	n.round = time.Duration(w.random.Int64N(int64(n.config.interval()))) // phases differ
	w.schedule(n)
	return n
}

// cluster starts count nodes that all know each other.
func (w *world) cluster(count int, adjust ...func(*Config)) {
	for i := range count {
		c := w.config(i)
		for _, f := range adjust {
			f(&c)
		}
		w.start(c)
	}
	for _, n := range w.nodes {
		for _, m := range w.nodes {
			n.introduce(m.Gossip)
		}
	}
}

// introduce makes g know other as if for long.
func (g *Gossip) introduce(other *Gossip) {
	if g == other {
		return
	}
	o := other.self
	m := &member{id: o.id, version: o.version, body: o.body, bodyAt: o.bodyAt, seen: g.clock.last}
	g.sorted = append(g.sorted, m)
	if len(g.sorted) > 1 && g.sorted[len(g.sorted)-2].id > m.id {
		slices.SortFunc(g.sorted, func(a, b *member) int { return strings.Compare(a.id, b.id) })
	}
	g.count[Alive]++
}

func (w *world) push(e event) {
	w.number++
	e.number = w.number
	heap.Push(&w.queue, e)
}

func (w *world) schedule(n *node) {
	at := n.Next().Add(-n.skew)
	if at.Before(w.now) {
		at = w.now
	}
	if !at.Equal(n.wake) {
		n.wake = at
		w.push(event{at: at, to: n})
	}
}

func (w *world) send(from *node, messages []Message) {
	for _, m := range messages {
		to := w.byAddr[m.Addr]
		if to == nil || w.cut != nil && w.cut(from, to) || w.random.Float64() < w.loss {
			continue
		}
		at := w.now.Add(w.delay())
		if w.late != nil {
			at = w.late(to, at)
		}
		w.push(event{at: at, to: to, body: m.Body})
	}
}

// run handles all events of the next d.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.queue) > 0 && !w.queue[0].at.After(end) {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		n := e.to
		if n.down {
			continue
		}
		if n.frozen != nil {
			if at := n.frozen(w.now); at.After(w.now) {
				e.at = at
				if e.body != nil {
					e.at = at.Add(time.Millisecond) // timers fire before sockets are read
				}
				w.push(e)
				continue
			}
		}
		var out []Message
		if e.body == nil {
			if !e.at.Equal(n.wake) && n.frozen == nil {
				continue // moved since
			}
			n.wake = time.Time{}
			out = n.Tick(w.now.Add(n.skew))
		} else {
			if w.trace != nil {
				w.trace(n, e.body)
			}
			out = n.Step(w.now.Add(n.skew), e.body)
		}
		if w.onChange != nil {
			for _, c := range n.Changes() {
				w.onChange(n, c)
			}
		}
		w.send(n, out)
		w.schedule(n)
	}
	w.now = end
}

// runUntil runs until done holds, checking every step, and returns how long it took.
func (w *world) runUntil(t *testing.T, limit, step time.Duration, done func() bool) time.Duration {
	t.Helper()
	start := w.now
	for !done() {
		if w.now.Sub(start) > limit {
			t.Fatalf("not within %v of virtual time", limit)
		}
		w.run(step)
	}
	return w.now.Sub(start)
}

// state returns what n believes about id.
func (n *node) state(id string) State {
	if m := n.find([]byte(id)); m != nil {
		return m.state
	}
	return 0
}

// everywhere reports whether all running nodes except id believe s about id.
func (w *world) everywhere(id string, s State) bool {
	for _, n := range w.nodes {
		if !n.down && n.self.id != id && n.state(id) != s {
			return false
		}
	}
	return true
}
