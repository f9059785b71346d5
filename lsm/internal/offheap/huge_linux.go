//go:build linux && !race

package offheap

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// slowPage is longer than 512 small pages take.
	slowPage = 500 * time.Microsecond
	// goWithout is how many hasty allocations do without huge pages when one was slow.
	goWithout = 63
)

var without atomic.Int64 // that many still; below zero: none

// preferHuge asks for huge pages: one fault and one entry of the TLB for 2 MiB. The
// kernel may refuse, and nothing is lost then. In a virtual machine that gives free memory
// back to its host (free page reporting, a balloon) it is the huge pages that are not
// there, and to get one takes longer than the small ones that it stands for. So the first
// of the hasty is touched, and where that is slow the next of them do without.
func preferHuge(b []byte, hasty bool) {
	if hasty && without.Add(-1) >= 0 {
		return
	}
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	if !hasty {
		return
	}
	began := time.Now()
	b[0] = 0
	if time.Since(began) > slowPage {
		without.Store(goWithout)
	}
}

// preferSmall keeps the kernel from making a huge page of b again, all of it resident.
func preferSmall(b []byte) { _ = unix.Madvise(b, unix.MADV_NOHUGEPAGE) }
