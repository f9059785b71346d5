package topology_test

import (
	"fmt"
	"time"

	"example.com/kvstore/ring"
	"example.com/kvstore/topology"
)

// Two agents, with function calls for a network and nothing for a disk.
func Example() {
	now := time.Unix(0, 0)
	a := topology.Member{Node: ring.Node{ID: "a", Weight: 1}, Addr: "10.0.0.1:7000", UID: 1}
	b := topology.Member{Node: ring.Node{ID: "b", Weight: 1}, Addr: "10.0.0.2:7000", UID: 2}
	first, err := topology.Bootstrap([16]byte{1}, "orchard", a, 64, 3, false)
	if err != nil {
		panic(err)
	}
	agents := make(map[string]*topology.Agent)
	agents[a.Addr], _ = topology.NewAgent(topology.Config{Self: a, Name: "orchard", Chain: []*topology.Epoch{first}})
	agents[b.Addr], _ = topology.NewAgent(topology.Config{Self: b, Name: "orchard", Seeds: func() []string { return []string{a.Addr} }})

	var apply func(fx topology.Effects)
	apply = func(fx topology.Effects) {
		// A real owner persists and syncs fx.Learned and fx.State here.
		for _, m := range fx.Send {
			apply(agents[m.Addr].Step(now, m.Body))
		}
	}
	apply(agents[b.Addr].Join(now))
	for agents[b.Addr].Current() == nil {
		now = now.Add(50 * time.Millisecond)
		apply(agents[a.Addr].Tick(now))
		apply(agents[b.Addr].Tick(now))
	}
	for _, e := range agents[b.Addr].Chain(0) {
		fmt.Printf("epoch %d: %d members, %d owners per partition\n", e.Number, len(e.Members), len(e.Ring.Owners(0)))
	}
	// Output:
	// epoch 1: 1 members, 1 owners per partition
	// epoch 2: 2 members, 2 owners per partition
}
