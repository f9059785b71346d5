package crdt_test

import (
	"fmt"

	"example.com/kvstore/crdt"
	"example.com/kvstore/vclock"
)

// Two replicas change a set apart. What one of them removes stays removed, unless
// the other added it again.
func Example() {
	apply := func(s crdt.State, stamp, actor uint64, add, drop []string) crdt.State {
		s, err := s.Apply(crdt.Mutation{Kind: crdt.SetKind, Add: add, Drop: drop}, vclock.Dot{Stamp: stamp, Actor: actor})
		if err != nil {
			panic(err)
		}
		return s
	}
	const left, right = 1, 2
	both := apply(crdt.State{}, 1, left, []string{"eggs", "milk", "tea"}, nil)

	l := apply(both, 2, left, nil, []string{"milk", "tea"})
	r := apply(both, 3, right, []string{"bread", "tea"}, nil)

	merged, err := l.Merge(r)
	fmt.Println(merged.Elements(), err)
	// Output: [bread eggs tea] <nil>
}
