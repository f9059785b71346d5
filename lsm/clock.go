package lsm

import "time"

// systemNow is the only place where the tree reads the time.
func systemNow() time.Time { return time.Now() }

// maxOffset is how far ahead of the clock a dot in the tree may be for Put to
// stamp above it: a tree alone has nobody to compare its clock with.
const maxOffset = 100 * 365 * 24 * time.Hour
