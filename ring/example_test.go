package ring_test

import (
	"fmt"

	"example.com/kvstore/ring"
)

func Example() {
	nodes := []ring.Node{
		{ID: "ash", Zone: "north", Weight: 1},
		{ID: "birch", Zone: "south", Weight: 1},
		{ID: "cedar", Zone: "north", Weight: 1},
	}
	r, err := ring.New(64, 2, nodes)
	if err != nil {
		panic(err)
	}
	p := r.Partition(ring.Token("apple"))
	for i, x := range r.AppendPreference(nil, p) {
		role := "owner"
		if i >= len(r.Owners(p)) {
			role = "fallback"
		}
		fmt.Println(r.Nodes()[x].ID, r.Nodes()[x].Zone, role)
	}

	_, report, err := ring.Rebalance(r, append(nodes, ring.Node{ID: "elm", Zone: "south", Weight: 1}))
	if err != nil {
		panic(err)
	}
	fmt.Println(len(report.Moves), "of 128 replicas move, the first to", report.Moves[0].To)
	// Output:
	// birch south owner
	// ash north owner
	// cedar north fallback
	// 32 of 128 replicas move, the first to elm
}
