//go:build unix && !race

package offheap

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

func alloc(n int, hasty bool) []byte {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return onHeap(n)
	}
	if n >= HugeBytes {
		preferHuge(b, hasty)
	}
	return b
}

func free(b []byte) {
	if isOnHeap(b) {
		poison(b)
		return
	}
	if Traps {
		// Nobody gets these addresses again, so that every later access faults.
		if unix.Madvise(b, unix.MADV_DONTNEED) == nil && unix.Mprotect(b, unix.PROT_NONE) == nil {
			return
		}
	}
	if err := unix.Munmap(b); err != nil {
		panic(fmt.Sprintf("offheap: freeing %d bytes that Alloc did not give, or freed before: %v", len(b), err))
	}
}

// discard keeps the memory where the system's pages are larger than ours, and the part is
// not made of them.
func discard(part []byte) {
	poison(part)
	page := uintptr(unix.Getpagesize())
	if uintptr(unsafe.Pointer(unsafe.SliceData(part)))%page == 0 && uintptr(len(part))%page == 0 {
		preferSmall(part)
		_ = unix.Madvise(part, unix.MADV_DONTNEED)
	}
}
