package kvstore_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"example.com/kvstore"
	"example.com/kvstore/crdt"
	"example.com/kvstore/lsm/vfs"
)

// A node with nil options is a store of its own, here in memory.
func Example() {
	ctx := context.Background()
	db, err := kvstore.Open("", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	if _, err := db.Put(ctx, "user/42", []byte("Ada")); err != nil {
		log.Fatal(err)
	}
	item, err := db.Get(ctx, "user/42")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s is %s\n", item.Key, item.Value)

	if err := db.Delete(ctx, "user/42"); err != nil {
		log.Fatal(err)
	}
	_, err = db.Get(ctx, "user/42")
	fmt.Println(errors.Is(err, kvstore.ErrNotFound))
	// Output:
	// user/42 is Ada
	// true
}

// Three nodes of one process form a cluster. In life each would be in a service
// of its own.
func Example_cluster() {
	ctx := context.Background()
	var nodes []*kvstore.DB
	var seeds []string
	for range 3 {
		db, err := kvstore.Open("", &kvstore.Options{Listen: "127.0.0.1:0", Seeds: seeds})
		if err != nil {
			log.Fatal(err)
		}
		defer db.Close()
		if len(nodes) == 0 {
			status, err := db.Status(ctx)
			if err != nil {
				log.Fatal(err)
			}
			seeds = []string{status.Members[0].Addr}
		}
		nodes = append(nodes, db)
	}
	for _, db := range nodes {
		if err := db.Ready(ctx); err != nil {
			log.Fatal(err)
		}
	}
	if _, err := nodes[0].Put(ctx, "k", []byte("everywhere"), kvstore.All); err != nil {
		log.Fatal(err)
	}
	for _, db := range nodes {
		item, err := db.Get(ctx, "k", kvstore.One)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", item.Value)
	}
	// Output:
	// everywhere
	// everywhere
	// everywhere
}

// Increments add up, whichever nodes they are made through, and a request that is sent
// again counts once.
func ExampleDB_Counter() {
	ctx := context.Background()
	db, err := kvstore.Open("", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	likes := db.Counter("likes/42")
	for range 3 { // as a client does that gets no answer
		if err := likes.Add(ctx, 1, kvstore.RequestID("request 1")); err != nil {
			log.Fatal(err)
		}
	}
	if err := likes.Add(ctx, 10); err != nil {
		log.Fatal(err)
	}
	fmt.Println(likes.Value(ctx))
	// Output: 11 <nil>
}

// A set keeps what was added, until somebody who could see that removes it.
func ExampleDB_Set() {
	ctx := context.Background()
	db, err := kvstore.Open("", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	tags := db.Set("tags/42")
	if err := tags.Update(ctx, []string{"blue", "round", "small"}, nil); err != nil {
		log.Fatal(err)
	}
	if err := tags.Remove(ctx, "round"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(tags.Elements(ctx))
	// Output: [blue small] <nil>
}

// A map has registers, counters and sets, each of which merges by itself.
func ExampleDB_Map() {
	ctx := context.Background()
	db, err := kvstore.Open("", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	user := db.Map("user/7")
	for _, err := range []error{
		user.Register("name").Put(ctx, []byte("Ada")),
		user.Counter("visits").Add(ctx, 1),
		user.Set("groups").Add(ctx, "staff"),
		user.Set("groups").Add(ctx, "authors"),
		user.Remove(ctx, crdt.Field{Name: "visits", Kind: crdt.CounterKind}),
	} {
		if err != nil {
			log.Fatal(err)
		}
	}
	state, err := user.State(ctx) // all of it with one read
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range state.Fields() {
		v, _ := state.Field(f)
		fmt.Printf("%s, a %v: %v %q\n", f.Name, f.Kind, v.Elements(), v.Values())
	}
	// Output:
	// groups, a set: [authors staff] []
	// name, a register: [] ["Ada"]
}

// A checkpoint is a copy of a node's data that opens as the node again.
func ExampleDB_Checkpoint() {
	ctx := context.Background()
	disk := vfs.NewMem(1) // by default the operating system's
	db, err := kvstore.Open("/node", &kvstore.Options{FS: disk})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := db.Put(ctx, "greeting", []byte("hello")); err != nil {
		log.Fatal(err)
	}
	if err := db.Checkpoint(ctx, "/backup/monday"); err != nil {
		log.Fatal(err)
	}
	if err := db.Close(); err != nil {
		log.Fatal(err)
	}

	restored, err := kvstore.Open("/backup/monday", &kvstore.Options{FS: disk})
	if err != nil {
		log.Fatal(err)
	}
	defer restored.Close()
	it, err := restored.Get(ctx, "greeting")
	fmt.Println(string(it.Value), err)
	// Output: hello <nil>
}
