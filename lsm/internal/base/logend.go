package base

// A LogEnd is the last group that a log had, durably, when it was closed. The zero
// value is that of none.
type LogEnd struct{ Segment, Sequence uint64 }
