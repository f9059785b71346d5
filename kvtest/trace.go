package kvtest

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A trace is a hash over events, in the order of their virtual instants. Events
// of one instant are sorted first, since goroutines that are woken together run
// in any order.
type trace struct {
	events atomic.Uint64 // so far; the watchdog looks at it
	keep   bool          // lines are kept
	mu     struct {
		sync.Mutex
		at      time.Duration
		instant []string
		hash    uint64
		lines   []string
	}
}

// add takes in an event that happens now.
func (t *trace) add(at time.Duration, format string, args ...any) {
	event := fmt.Sprintf(format, args...)
	t.events.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	if at != t.mu.at {
		t.foldLocked()
		t.mu.at = at
	}
	t.mu.instant = append(t.mu.instant, event)
}

// foldLocked takes the events of a past instant into the hash.
func (t *trace) foldLocked() {
	slices.Sort(t.mu.instant)
	for _, e := range t.mu.instant {
		t.mu.hash = mix(t.mu.hash ^ hashString(uint64(t.mu.at), e))
		if t.keep {
			t.mu.lines = append(t.mu.lines, fmt.Sprint(t.mu.at, " ", e))
		}
	}
	t.mu.instant = t.mu.instant[:0]
}

func (t *trace) sum() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.foldLocked()
	return t.mu.hash
}

// hashString hashes a seed and parts.
func hashString(seed uint64, parts ...string) uint64 {
	h := fnv.New64a()
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], seed)
	h.Write(b[:])
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return mix(h.Sum64())
}

// mix spreads a hash over all bits (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// between draws from [lo, hi) by a hash.
func between(h uint64, lo, hi time.Duration) time.Duration {
	return lo + time.Duration(h%uint64(hi-lo))
}
