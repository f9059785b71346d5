package lsm_test

import (
	"fmt"

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
