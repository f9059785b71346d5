package replica_test

import (
	"fmt"

	"example.com/kvstore/replica"
	"example.com/kvstore/vclock"
)

// A read at a quorum of three owners: one of the first two answers has missed the
// newest write, so that it is to be repaired.
func ExampleRead() {
	value := func(stamp uint64, text string) replica.Record {
		return replica.Record{Dot: vclock.Dot{Stamp: stamp, Actor: 1}, Value: []byte(text)}
	}
	read := replica.NewRead(replica.Need{Count: 2}, 3)
	read.Answer(0, value(1, "old"))
	fmt.Println(read.Verdict() == replica.Done)
	read.Answer(2, value(2, "new"))
	fmt.Println(read.Verdict() == replica.Done)
	fmt.Println(string(read.Joined().Value), "is held by", read.Holders(), "of", read.Answered())
	// Output:
	// false
	// true
	// new is held by 1 of 2
}
