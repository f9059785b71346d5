//go:build race

package kvtest

// parallel: under the race detector goroutines run side by side, to be watched,
// and one seed has many traces.
const parallel = true
