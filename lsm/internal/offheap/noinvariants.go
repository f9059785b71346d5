//go:build !invariants

package offheap

const keepMapped = false

func poison([]byte) {}
