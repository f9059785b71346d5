package crdt_test

import (
	"fmt"
	"testing"

	"example.com/kvstore/crdt"
	"example.com/kvstore/vclock"
)

// BenchmarkChange is what a coordinator does for one change of a set: read the state,
// apply, write it down.
func BenchmarkChange(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("elements=%d", n), func(b *testing.B) {
			a := &author{t: b, actor: 1}
			var all []string
			for i := range n {
				all = append(all, fmt.Sprint("element ", i))
			}
			a.apply(crdt.Mutation{Kind: crdt.SetKind, Add: all})
			encoded := a.state.Append(nil)
			m := crdt.Mutation{Kind: crdt.SetKind, Add: []string{"element 5"}}
			d := vclock.Dot{Stamp: a.stamp + 1, Actor: 1}
			b.SetBytes(int64(len(encoded)))
			b.ReportAllocs()
			for b.Loop() {
				s, err := crdt.Decode(encoded)
				if err != nil {
					b.Fatal(err)
				}
				if s, err = s.Apply(m, d); err != nil {
					b.Fatal(err)
				}
				s.Append(nil)
			}
		})
	}
}
