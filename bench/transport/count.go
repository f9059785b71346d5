package main

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// counter counts calls, each caller in a cache line of its own.
type counter struct{ slots []slot }

type slot struct {
	n atomic.Uint64
	_ [56]byte
}

func newCounter(callers int) *counter { return &counter{make([]slot, callers)} }

func (c *counter) add(caller int, n uint64) { c.slots[caller].n.Add(n) }

func (c *counter) sum() (n uint64) {
	for i := range c.slots {
		n += c.slots[i].n.Load()
	}
	return n
}

// cpuTime is the user and system time of this process.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

func stopped(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}
