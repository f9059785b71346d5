//go:build linux && !race

package offheap

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// slowPage is longer than it takes to clear a huge page that is at hand.
	slowPage = 500 * time.Microsecond
	// goWithout is how many hasty allocations do without huge pages when one was slow.
	goWithout = 63

	smallPages = HugeBytes / pageBytes // that a huge one stands for
	probePages = 16                    // that are touched to see how long small ones take
	probes     = 4
)

var (
	without atomic.Int64 // that many still; below zero: none
	slow    atomic.Bool  // the last one was
)

// preferHuge asks for huge pages: one fault and one entry of the TLB for 2 MiB. The
// kernel may refuse, and nothing is lost then. In a virtual machine that gives free memory
// back to its host (free page reporting, a balloon) it is the huge pages that are not
// there, and to get one may take longer than the small ones that it stands for; in one
// whose faults the host handles, the small ones take longer. So the first of the hasty is
// touched, and where that takes longer than small ones, twice running (others may have had
// the processor), the next of them do without.
func preferHuge(b []byte, hasty bool) {
	if hasty && without.Add(-1) >= 0 {
		return
	}
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	if !hasty {
		return
	}
	took := touch(b[:1])
	if late := took > slowPage && took > smallPagesTake(); slow.Swap(late) && late {
		without.Store(goWithout)
	}
}

// touch tells how long it takes to have all pages of b.
func touch(b []byte) time.Duration {
	began := time.Now()
	for at := 0; at < len(b); at += pageBytes {
		b[at] = 0
	}
	return time.Since(began)
}

// smallPagesTake is how long the small pages take that a huge one stands for: the best of
// a few tries, since others may have the processor meanwhile.
var smallPagesTake = sync.OnceValue(func() time.Duration {
	best := time.Duration(math.MaxInt64)
	for range probes {
		b, err := unix.Mmap(-1, 0, probePages*pageBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return 0
		}
		best = min(best, touch(b))
		_ = unix.Munmap(b)
	}
	return best * (smallPages / probePages)
})

// preferSmall keeps the kernel from making a huge page of b again, all of it resident.
func preferSmall(b []byte) { _ = unix.Madvise(b, unix.MADV_NOHUGEPAGE) }
