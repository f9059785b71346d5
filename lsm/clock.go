package lsm

import "time"

// systemNow is the only place where the tree reads the time.
func systemNow() time.Time { return time.Now() }

// since gives the time that has passed, whatever was done to the clock.
func since(at time.Time) time.Duration { return time.Since(at) }

// maxOffset is how far ahead of the clock a dot in the tree may be for Put to
// stamp above it: a tree alone has nobody to compare its clock with.
const maxOffset = 100 * 365 * 24 * time.Hour

// stoppedTimer gives a timer that runs f once it was reset. It never fires by
// itself, so that virtual time does not run towards it.
func stoppedTimer(f func()) *time.Timer {
	t := time.AfterFunc(time.Hour, f)
	t.Stop()
	return t
}
