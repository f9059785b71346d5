//go:build invariants

package offheap

// Traps says that freed memory is never used again, so that a stale access
// faults. Who recycles memory does not, then.
const Traps = true

// poison makes stale readers of b meet nonsense.
func poison(b []byte) {
	b[0] = 0xdb
	for n := 1; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}
