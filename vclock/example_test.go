package vclock_test

import (
	"fmt"
	"time"

	"example.com/kvstore/vclock"
)

// Two people fill one shopping cart through two replicas that cannot hear each
// other. Both additions survive the join as siblings; a write that has seen both
// replaces them.
func Example() {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	clock := vclock.NewClock(func() time.Time { return now }, 500*time.Millisecond, 0)
	const left, right = 0xa, 0xb // one actor for each replica

	write := func(at vclock.Set, actor uint64, seen vclock.History, value string) vclock.Set {
		stamp, err := clock.Next(max(at.Max().Stamp, seen.Max().Stamp))
		if err != nil {
			panic(err)
		}
		return at.Write(seen, vclock.Sibling{Dot: vclock.Dot{Stamp: stamp, Actor: actor}, Value: []byte(value)})
	}
	show := func(name string, s vclock.Set) {
		fmt.Printf("%-6s", name)
		for _, w := range s.Siblings {
			fmt.Printf(" %s", w.Value)
		}
		fmt.Println()
	}

	start := write(vclock.Set{}, left, vclock.History{}, "milk")
	l := write(start, left, start.History, "milk+eggs")
	r := write(start, right, start.History, "milk+tea")
	fmt.Println("left is", l.Compare(r), "with right, and", l.Compare(start), "the start")

	both := vclock.Join(l, r)
	show("left", l)
	show("right", r)
	show("joined", both)
	show("merged", write(both, left, both.History, "milk+eggs+tea"))

	// Output:
	// left is concurrent with right, and after the start
	// left   milk+eggs
	// right  milk+tea
	// joined milk+tea milk+eggs
	// merged milk+eggs+tea
}

// A plain write has seen every smaller dot: of two, the later one stays.
func ExamplePlain() {
	x := vclock.Plain(vclock.Sibling{Dot: vclock.Dot{Stamp: 5, Actor: 1}, Value: []byte("first")})
	y := vclock.Plain(vclock.Sibling{Dot: vclock.Dot{Stamp: 5, Actor: 2}, Value: []byte("second")})
	fmt.Printf("%s\n", vclock.Join(y, x).Siblings[0].Value)
	// Output: second
}

// The text of a history serves as an HTTP entity tag.
func ExampleHistory_MarshalText() {
	h := vclock.Plain(vclock.Sibling{Dot: vclock.Dot{Stamp: 5, Actor: 1}}).History
	text, err := h.MarshalText()
	fmt.Printf("%s %v\n", text, err)
	// Output: AQAAAAAAAAAABQAAAAAAAAAB <nil>
}
