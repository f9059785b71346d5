// Package offheap gives memory that the garbage collector neither scans nor
// counts: large slabs in it do not raise the heap's goal, and go back to the
// operating system the moment they are freed.
//
// Whoever calls Alloc owns the memory and frees it once, when nobody holds a
// slice into it any more: an access after that may fault, which ends the
// process. It must hold no Go pointers, since the collector does not see them.
package offheap

import (
	"fmt"
	"sync/atomic"
)

// pageBytes is the unit of all sizes: that of most systems, and a part of the
// page of the others.
const pageBytes = 4 << 10

// minMapped is the size from which memory is mapped. To unmap it interrupts all
// processors, which for a few pages costs more than the collector does.
const minMapped = 4 * pageBytes

// HugeBytes is the size from which memory lies in huge pages where the operating
// system has them: touching a byte may then make that much resident.
const HugeBytes = 2 << 20

var live atomic.Int64

// Live is how many bytes are allocated and not yet freed, whole pages.
func Live() int64 { return live.Load() }

// AllocHasty is Alloc for memory that somebody waits to write: it does without huge
// pages while they are slow to come. What is read at random for long is worth the wait.
func AllocHasty(n int) []byte { return take(n, true) }

// Discard gives the memory of a part of what Alloc gave, whole pages, back to the operating
// system. The part stays the caller's, and is zero or as it was.
func Discard(part []byte) { discard(part) }

// Alloc gives n bytes, all zero. Its capacity is larger by the rest of the last
// page, and may be used. A few pages, and what the operating system refuses (a limit on
// mappings or on memory), come from the Go heap. n must not be negative; Alloc(0)
// is nil.
func Alloc(n int) []byte { return take(n, false) }

func take(n int, hasty bool) []byte {
	if n < 0 {
		panic(fmt.Sprintf("offheap: Alloc(%d)", n))
	}
	if n == 0 {
		return nil
	}
	size := (n + pageBytes - 1) &^ (pageBytes - 1)
	var b []byte
	if size < minMapped && !Traps {
		b = onHeap(size)
	} else {
		b = alloc(size, hasty)
	}
	live.Add(int64(cap(b)) &^ (pageBytes - 1))
	return b[:n]
}

// Free gives back what Alloc gave: a slice that begins where that one began, and
// has its capacity. Anything else is a bug, and panics where it can be told.
// Free(nil) does nothing.
func Free(b []byte) {
	if cap(b) == 0 {
		return
	}
	live.Add(-(int64(cap(b)) &^ (pageBytes - 1)))
	free(b[:cap(b)])
}

// onHeap gives n bytes of the Go heap.
//
// Invariant: their capacity is not a whole number of pages, that of a mapping
// is. So free knows the two apart.
func onHeap(n int) []byte { return make([]byte, n, n+1) }

func isOnHeap(b []byte) bool { return cap(b)%pageBytes != 0 }
