package kvstore_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"example.com/kvstore"
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
