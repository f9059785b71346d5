package kvtest

import (
	"runtime"
	"sync"
)

// threads counts the bubbles that need one thread.
var threads struct {
	sync.Mutex
	users, before int
}

// oneThread lets goroutines take turns on one thread until the function it
// returns is called: those that one event wakes then run in one order. With
// several threads about one trace in a thousand would vary.
func oneThread() (restore func()) {
	if parallel {
		return func() {}
	}
	threads.Lock()
	defer threads.Unlock()
	if threads.users++; threads.users == 1 {
		threads.before = runtime.GOMAXPROCS(1)
	}
	return func() {
		threads.Lock()
		defer threads.Unlock()
		if threads.users--; threads.users == 0 {
			runtime.GOMAXPROCS(threads.before)
		}
	}
}
