package vclock

import "time"

const (
	counterBits = 16
	maxMillis   = 1<<(64-counterBits) - 1
)

// NewStamp returns the first stamp of t's millisecond. Times before 1970 and
// after the year 10889 give the smallest and the greatest such stamp.
func NewStamp(t time.Time) uint64 {
	return uint64(min(max(t.UnixMilli(), 0), maxMillis)) << counterBits
}

// StampTime returns the time in a stamp, to the millisecond.
func StampTime(stamp uint64) time.Time {
	return time.UnixMilli(int64(stamp >> counterBits))
}
