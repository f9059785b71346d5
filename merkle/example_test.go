package merkle_test

import (
	"fmt"

	"example.com/kvstore/merkle"
)

// Two replicas of a partition find out which of their records differ.
func Example() {
	type record struct {
		token   uint64
		content string // key, version and value
	}
	here := []record{{10, "ant 1"}, {20, "bee 1"}, {30, "cat 1"}, {40, "dog 1"}, {50, "eel 1"}}
	there := []record{{10, "ant 1"}, {20, "bee 2"}, {30, "cat 1"}, {50, "eel 1"}, {60, "fox 1"}}

	// Agree on a shape, then build both trees from a scan.
	shape := merkle.NewShape(0, 99, 5)
	build := func(replica []record) (*merkle.Tree, merkle.Reader) {
		b := merkle.NewBuilder(shape)
		for _, r := range replica {
			if err := b.Add(r.token, merkle.Sum([]byte(r.content))); err != nil {
				panic(err)
			}
		}
		return b.Tree(), func(lo, hi uint64, each func(uint64, merkle.Digest)) error {
			for _, r := range replica {
				if lo <= r.token && r.token <= hi {
					each(r.token, merkle.Sum([]byte(r.content)))
				}
			}
			return nil
		}
	}
	mine, readMine := build(here)
	theirs, readTheirs := build(there)

	// The roots and these requests and replies would be messages.
	salt := merkle.Salt{1, 2, 3} // 16 random bytes
	d := merkle.NewDiff(mine, theirs.Root(), salt, readMine)
	for !d.Done() {
		reply, err := theirs.Answer(nil, d.Request(nil), readTheirs)
		if err != nil {
			panic(err)
		}
		err = d.Step(reply, func(f merkle.Difference) { fmt.Printf("token %d, here: %v\n", f.Token, f.Here) })
		if err != nil {
			panic(err)
		}
	}
	fmt.Println("leaves", d.Ranges())
	// Output:
	// token 20, here: true
	// token 20, here: false
	// token 40, here: true
	// token 60, here: false
	// leaves [{0 74}]
}
