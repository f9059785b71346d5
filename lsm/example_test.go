package lsm_test

import (
	"fmt"
	"math"

	"example.com/kvstore/lsm"
	"example.com/kvstore/lsm/vfs"
)

func Example() {
	tree, err := lsm.Open("db", &lsm.Options{FS: vfs.NewMem(1)}) // in memory; leave FS out for the disk
	if err != nil {
		panic(err)
	}
	defer tree.Close()

	if err := tree.Put([]byte("greeting"), []byte("hello")); err != nil { // durable on return
		panic(err)
	}
	value, ok, err := tree.Get([]byte("greeting"))
	fmt.Println(string(value), ok, err)

	tree.Delete([]byte("greeting"))
	_, ok, _ = tree.Get([]byte("greeting"))
	fmt.Println(ok)
	// Output:
	// hello true <nil>
	// false
}

func ExampleTree_Scan() {
	tree, err := lsm.Open("db", &lsm.Options{FS: vfs.NewMem(1)})
	if err != nil {
		panic(err)
	}
	defer tree.Close()
	for _, planet := range []string{"venus", "earth", "pluto"} {
		if err := tree.Put([]byte(planet), []byte("a planet")); err != nil {
			panic(err)
		}
	}
	tree.Delete([]byte("pluto"))

	for r, err := range tree.Scan(0, math.MaxUint64) { // all tokens: in the order of hashes
		if err != nil {
			panic(err)
		}
		if r.Kind == lsm.Value { // not a tombstone
			fmt.Printf("%s: %s\n", r.Key, r.Value)
		}
	}
	// Unordered output:
	// venus: a planet
	// earth: a planet
}

func ExampleTree_Checkpoint() {
	disk := vfs.NewMem(1)
	tree, err := lsm.Open("db", &lsm.Options{FS: disk})
	if err != nil {
		panic(err)
	}
	defer tree.Close()
	tree.Put([]byte("before"), []byte("1"))
	if err := tree.Checkpoint("copy"); err != nil {
		panic(err)
	}
	tree.Put([]byte("after"), []byte("2"))

	copied, err := lsm.Open("copy", &lsm.Options{FS: disk}) // becomes a tree of its own
	if err != nil {
		panic(err)
	}
	defer copied.Close()
	_, before, _ := copied.Get([]byte("before"))
	_, after, _ := copied.Get([]byte("after"))
	fmt.Println(before, after)
	// Output: true false
}
