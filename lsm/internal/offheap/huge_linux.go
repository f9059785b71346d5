//go:build linux && !race

package offheap

import "golang.org/x/sys/unix"

// preferHuge asks for huge pages: one fault and one entry of the TLB for 2 MiB. The
// kernel may refuse, and nothing is lost then.
func preferHuge(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }
