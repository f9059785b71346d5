//go:build invariants

package offheap

// keepMapped makes Free leave the addresses of a mapping taken.
const keepMapped = true

// poison makes stale readers of b meet nonsense.
func poison(b []byte) {
	for i := range b {
		b[i] = 0xdb
	}
}
