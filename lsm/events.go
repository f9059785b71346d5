package lsm

import (
	"fmt"
	"time"
)

// An EventListener is told what a tree does in the background. Every field may
// be nil. The functions are called from the tree's own goroutines, some from that
// of the log: they must not block, and must not call Flush, Compact or Close. Each
// gets one value that prints as one line.
type EventListener struct {
	Flushed    func(FlushInfo)      // a memtable is in tables
	Compacted  func(CompactionInfo) // runs were replaced by their join
	StallBegan func(StallInfo)      // the log waits, and soon all writers
	StallEnded func(StallInfo)
	LogRotated func(LogInfo)   // the log goes on in another segment
	NoSpace    func(SpaceInfo) // a flush, a compaction, or the log under a lazy policy found the volume full; it will be tried again
	Failed     func(ErrorInfo) // the tree takes no more writes, for good
}

// A FlushInfo tells of a memtable that was written to tables.
type FlushInfo struct {
	Records, Tables int
	MemtableBytes   int64
	Bytes           uint64 // of the tables
	Took            time.Duration
}

func (i FlushInfo) String() string {
	return fmt.Sprintf("flushed %d records, %d bytes of memory, to %d tables of %d bytes in %v", i.Records, i.MemtableBytes, i.Tables, i.Bytes, i.Took)
}

// A CompactionInfo tells of runs of one slice that became one.
type CompactionInfo struct {
	Slice, Runs             int
	Level                   int // of the result; MaxLevel is the bottom
	ReadBytes, WrittenBytes uint64
	Tables                  int // written
	Took                    time.Duration
}

func (i CompactionInfo) String() string {
	return fmt.Sprintf("compacted %d runs of slice %d, %d bytes, to %s: %d tables of %d bytes in %v",
		i.Runs, i.Slice, i.ReadBytes, levelName(i.Level), i.Tables, i.WrittenBytes, i.Took)
}

// A StallInfo tells why writers have to wait; after the end also for how long
// they did.
type StallInfo struct {
	Reason string
	Took   time.Duration // 0 at the beginning
}

func (i StallInfo) String() string {
	if i.Took == 0 {
		return "writers wait: " + i.Reason
	}
	return fmt.Sprintf("writers waited %v: %s", i.Took, i.Reason)
}

// A LogInfo tells of a segment of the log that is full.
type LogInfo struct {
	Segment, Next uint64 // file numbers
	Bytes         int64  // of Segment
}

func (i LogInfo) String() string {
	return fmt.Sprintf("the log goes on in segment %d: segment %d has %d bytes", i.Next, i.Segment, i.Bytes)
}

// A SpaceInfo tells what found the volume full.
type SpaceInfo struct {
	Op  string
	Err error
}

func (i SpaceInfo) String() string { return fmt.Sprintf("no space for a %s: %v", i.Op, i.Err) }

// An ErrorInfo tells what ended all writing.
type ErrorInfo struct{ Err error }

func (i ErrorInfo) String() string { return fmt.Sprintf("no more writes: %v", i.Err) }

// tell calls a function of the listener, if there is one.
func tell[I any](f func(I), i I) {
	if f != nil {
		f(i)
	}
}
