package gossip_test

import (
	"fmt"
	"time"

	"example.com/kvstore/gossip"
)

// Three nodes in one loop: time and network are a few lines of the caller.
func Example() {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	nodes := map[string]*gossip.Gossip{}
	for i, id := range []string{"a", "b", "c"} {
		nodes[id] = gossip.New(gossip.Config{
			ID: id, Addr: id, Incarnation: uint64(now.UnixMilli()), Seeds: []string{"a"}, Seed: uint64(i),
		})
	}
	run := func(d time.Duration) {
		for end := now.Add(d); now.Before(end); now = now.Add(100 * time.Millisecond) {
			var queue []gossip.Message
			for _, id := range []string{"a", "b", "c"} {
				if n := nodes[id]; n != nil && !now.Before(n.Next()) {
					queue = append(queue, n.Tick(now)...)
				}
			}
			for len(queue) > 0 {
				m := queue[0]
				queue = queue[1:]
				if n := nodes[m.Addr]; n != nil {
					queue = append(queue, n.Step(now, m.Body)...)
				}
			}
		}
	}
	show := func(c gossip.Change) { fmt.Printf("%s: %v -> %v\n", c.ID, c.Before, c.State) }

	run(5 * time.Second)
	for _, c := range nodes["b"].Changes() {
		show(c)
	}
	delete(nodes, "c") // crashes
	run(8 * time.Second)
	for _, c := range nodes["b"].Changes() {
		show(c)
	}
	run(10 * time.Second)
	for _, c := range nodes["b"].Changes() {
		show(c)
	}
	// Output:
	// a: unknown -> alive
	// c: unknown -> alive
	// c: alive -> suspect
	// c: suspect -> dead
}
