package wal

import (
	"errors"
	"fmt"
	"path"
	"sync"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/vfs"
)

// MaxGroupBytes bounds the records of one group.
const MaxGroupBytes = 1 << 30

// aheadBytes is how much a synced log is filled ahead of its groups.
const aheadBytes = 256 << 10

// writeBackBytes is how much is written before the disk is asked to begin with it.
const writeBackBytes = 1 << 20

// WriterOptions says where and how large segments are.
type WriterOptions struct {
	FS  vfs.FS
	Dir string
	// SegmentBytes is allocated for a new segment. A segment may outgrow it.
	SegmentBytes int64
	// Number gives the number of the next file: above every number ever used
	// in the directory.
	Number func() uint64
	// Salt draws the salt of a segment, which nobody can foresee.
	Salt func() uint64
	// Ahead is for a log whose groups are synced one by one: blocks that were
	// never written are filled with zeros, many at a time, before groups come to
	// them. A sync of blocks that are allocated only has the file system note
	// that they are written now, which costs half as much again.
	Ahead bool
	// Segments is the log's allotment: released segments are kept for recycling
	// while there are no more than that in all. More may be in use.
	Segments int
}

// A Position is a place in the chain of groups.
type Position struct {
	Segment  uint64 // 0 before the first segment
	Sequence uint64 // of the last group before the place
	End      int64  // offset where that group ends
}

// A Writer appends groups to the chain. Prepare, Release, Segments and DropNext may
// be called by another goroutine; all other methods belong to the log's.
//
// Invariant: after an error from Write other than vfs.ErrNoSpace, after any error
// from Sync, and after one from Rotate that is not undone, nothing more is written: the kernel may have dropped the dirty pages, and a retry would call
// durable what is not.
type Writer struct {
	o       WriterOptions
	file    vfs.File // nil before the first Rotate
	at      Position // of the last group
	number  uint64   // of the segment that file is
	salt    uint64   // and its salt
	off     int64    // where its next group goes
	started int64    // up to which write-back was begun
	filled  int64    // up to which the segment's blocks were written, ever
	synced  uint64   // highest sequence known to be durable
	err     error

	making chan struct{} // capacity 1: a semaphore around making a segment
	next   *segment      // made ahead by Prepare, nil if there is none; owned by who holds making
	free   struct {
		sync.Mutex
		live  []uint64 // segments in use, ascending
		idle  []uint64 // released, to be recycled
		ahead int      // 1 while there is a next one

		// filled has, of segments that this Writer has filled and are not in use
		// now, how far.
		filled map[uint64]int64
	}
}

// A segment is a file with its head, durable under its name, and no group.
//
// Invariant: its number is above that of the segment in use, which is why one is
// made at a time, and used before another is made.
type segment struct {
	file   vfs.File
	number uint64
	salt   uint64
	filled int64 // as in Writer
}

// NewWriter continues the chain after at. Live are the numbers of the segments
// that hold groups, ascending; idle those that hold none that matter.
func NewWriter(o WriterOptions, at Position, live, idle []uint64) *Writer {
	w := &Writer{o: o, at: at, synced: at.Sequence, making: make(chan struct{}, 1)}
	w.free.filled = map[uint64]int64{}
	w.free.live = append(w.free.live, live...)
	w.free.idle = append(w.free.idle, idle...)
	return w
}

// Segment is the number of the segment that is written now.
func (w *Writer) Segment() uint64 { return w.number }

// Bytes is the size of its used part.
func (w *Writer) Bytes() int64 { return w.off }

// Err is the error after which nothing more is written, or nil.
func (w *Writer) Err() error { return w.err }

// At is where the last group that was written ends.
func (w *Writer) At() Position { return w.at }

// Unsynced reports whether the last group is not known to be durable.
func (w *Writer) Unsynced() bool { return w.synced < w.at.Sequence }

// Rotate syncs the current segment and begins the next one with the group b
// (see Write), which may be without records. On return that is durable, and so
// is the segment's name. When Rotate fails with vfs.ErrNoSpace and Err is nil, the
// current segment goes on. After a Prepare it costs one small write and its sync.
//
// Invariant: a segment in use begins with a valid group, so that recovery knows
// the sequence from there.
func (w *Writer) Rotate(b []byte) error {
	if base.Defences.SegmentSync {
		if err := w.Sync(); err != nil {
			return err
		}
	}
	s, err := w.take()
	if err != nil {
		if !errors.Is(err, vfs.ErrNoSpace) {
			w.err = err
		}
		return err
	}
	g, err := w.follow(b, s.salt)
	if err == nil {
		g.seal(b, s.number, headBytes)
		if _, err = s.file.WriteAt(b, headBytes); err == nil {
			err = s.file.SyncData()
		}
	}
	if err != nil {
		err = fmt.Errorf("lsm: beginning log segment %d: %w", s.number, err)
		if !errors.Is(err, vfs.ErrNoSpace) || !w.undo(s) {
			w.err = err
		}
		return err
	}
	if w.file != nil {
		if err := w.file.Close(); err != nil {
			w.err = fmt.Errorf("lsm: closing a log segment: %w", err)
			return errors.Join(w.err, s.file.Close())
		}
	}
	before, filled := w.number, max(w.filled, w.off)
	w.file, w.number, w.salt, w.off, w.filled = s.file, s.number, s.salt, headBytes+int64(len(b)), s.filled
	w.at = Position{Segment: s.number, Sequence: g.sequence, End: w.off}
	w.synced, w.started = g.sequence, w.off
	w.free.Lock()
	w.free.live = append(w.free.live, s.number)
	w.free.filled[before] = filled
	w.free.Unlock()
	return nil
}

// Prepare makes the next segment, unless there is one, so that Rotate need not.
// It may be called by any one goroutine at a time. After an error other than
// vfs.ErrNoSpace the log must not go on.
func (w *Writer) Prepare() error {
	w.making <- struct{}{}
	defer func() { <-w.making }()
	if w.next != nil {
		return nil
	}
	s, err := w.create()
	if err == nil {
		w.setNext(s)
	}
	return err
}

// take gives the segment that was made ahead, or makes one.
func (w *Writer) take() (*segment, error) {
	w.making <- struct{}{}
	defer func() { <-w.making }()
	if s := w.next; s != nil {
		w.setNext(nil)
		return s, nil
	}
	return w.create()
}

// setNext is called by who holds making.
func (w *Writer) setNext(s *segment) {
	w.next = s
	w.free.Lock()
	w.free.ahead = 0
	if s != nil {
		w.free.ahead = 1
	}
	w.free.Unlock()
}

// create makes a segment, from a released one if there is any.
func (w *Writer) create() (*segment, error) {
	s := &segment{number: w.o.Number(), salt: w.o.Salt()}
	name := w.name(s.number)
	err := w.recycle(s, name)
	if err == nil && s.file == nil {
		if s.file, err = w.o.FS.Create(name); err == nil {
			err = w.prepare(s.file, s)
		}
	}
	if err == nil {
		// Groups are acknowledged only in a file whose name is durable.
		err = w.o.FS.SyncDir(w.o.Dir)
	}
	if err != nil {
		if s.file != nil {
			s.file.Close()
			w.o.FS.Remove(name) // an empty leftover; recovery removes it too
		}
		return nil, fmt.Errorf("lsm: creating log segment %s: %w", name, err)
	}
	return s, nil
}

// prepare gives the file of a segment its space and its head.
func (w *Writer) prepare(f vfs.File, s *segment) error {
	// Without room for all of it, a segment that grows will do.
	if err := f.Allocate(0, w.o.SegmentBytes); err != nil && !errors.Is(err, vfs.ErrNoSpace) {
		return err
	}
	if _, err := f.WriteAt(appendHead(nil, s.number, s.salt), 0); err != nil {
		return err
	}
	return f.Sync()
}

// undo removes a segment that may hold its first group, for good, and reports
// whether it has. Did it come back after a crash, the chain would go on in both
// segments.
func (w *Writer) undo(s *segment) bool {
	s.file.Close()
	return w.o.FS.Remove(w.name(s.number)) == nil && w.o.FS.SyncDir(w.o.Dir) == nil
}

func (w *Writer) name(number uint64) string { return path.Join(w.o.Dir, base.LogName(number)) }

// recycle makes a released segment to s, under its name. Without one s gets no file.
//
// Invariant: the head is durable before the file has the name; so behind a head that
// does not verify nothing is from an earlier use.
func (w *Writer) recycle(s *segment, name string) error {
	w.free.Lock()
	n := len(w.free.idle)
	if n == 0 {
		w.free.Unlock()
		return nil
	}
	number := w.free.idle[n-1]
	w.free.idle = w.free.idle[:n-1]
	s.filled = w.free.filled[number]
	delete(w.free.filled, number)
	w.free.Unlock()
	old := w.name(number)
	f, err := w.o.FS.OpenReadWrite(old)
	if err != nil {
		return err
	}
	err = errors.Join(w.prepare(f, s), f.Close())
	if err == nil {
		err = w.o.FS.Rename(old, name)
	}
	if err != nil {
		w.o.FS.Remove(old)
		return err
	}
	s.file, err = w.o.FS.OpenReadWrite(name)
	return err
}

// Write appends the group in b, which is GroupHeaderBytes of room and then the
// records. It is durable after Sync.
func (w *Writer) Write(b []byte) error {
	if w.err != nil {
		return w.err
	}
	g, err := w.follow(b, w.salt)
	if err != nil {
		return err
	}
	g.seal(b, w.number, w.off)
	if _, err := w.file.WriteAt(b, w.off); err != nil {
		err = fmt.Errorf("lsm: writing the log: %w", err)
		if !errors.Is(err, vfs.ErrNoSpace) {
			w.err = err
		}
		// On a full volume nothing was acknowledged and nothing follows: the
		// next group takes the same place.
		return err
	}
	w.off += int64(len(b))
	if err := w.fill(); err != nil {
		w.err = err
		return err
	}
	if n := w.off - w.started; n >= writeBackBytes {
		// A lazy log is synced seldom: then there must not be much to do.
		w.file.WriteBack(w.started, n)
		w.started = w.off
	}
	w.at = Position{Segment: w.number, Sequence: g.sequence, End: w.off}
	return nil
}

// zeros is what a segment is filled with.
var zeros [aheadBytes]byte

// fill writes zeros behind the last group, which are synced with it, when that
// has come to blocks that were never written.
func (w *Writer) fill() error {
	if !w.o.Ahead || w.off <= w.filled {
		return nil
	}
	w.filled = min(w.off+aheadBytes, max(w.off, w.o.SegmentBytes))
	if w.filled == w.off {
		return nil
	}
	// Without room the groups do without.
	_, err := w.file.WriteAt(zeros[:w.filled-w.off], w.off)
	if err != nil && !errors.Is(err, vfs.ErrNoSpace) {
		return fmt.Errorf("lsm: filling the log: %w", err)
	}
	return nil
}

// follow gives the header of the group that follows the last one.
func (w *Writer) follow(b []byte, salt uint64) (group, error) {
	n := len(b) - GroupHeaderBytes
	if n > MaxGroupBytes {
		return group{}, fmt.Errorf("lsm: a log group of %d bytes is above the limit of %d: submit smaller batches", n, MaxGroupBytes)
	}
	return group{
		length:   uint32(n),
		salt:     salt,
		sequence: w.at.Sequence + 1,
		previous: uint64(w.at.End),
		synced:   w.synced,
	}, nil
}

// Sync makes everything written durable.
func (w *Writer) Sync() error {
	if w.err != nil {
		return w.err
	}
	if !w.Unsynced() {
		return nil
	}
	if base.Defences.GroupSync {
		if err := w.file.SyncData(); err != nil {
			err = fmt.Errorf("lsm: syncing the log: %w", err)
			if base.Defences.FailedSync {
				w.err = err
			}
			return err
		}
	}
	w.synced, w.started = w.at.Sequence, w.off
	return nil
}

// Release gives up all segments below number: their records are in tables, by a
// durable edit of the manifest. It may be called by any one goroutine at a time.
func (w *Writer) Release(number uint64) error {
	var remove []uint64
	w.free.Lock()
	for len(w.free.live) > 0 && w.free.live[0] < number {
		w.free.idle = append(w.free.idle, w.free.live[0])
		w.free.live = w.free.live[1:]
	}
	if n := len(w.free.live) + w.free.ahead + len(w.free.idle) - w.o.Segments; n > 0 {
		n = min(n, len(w.free.idle))
		remove = append(remove, w.free.idle[:n]...)
		w.free.idle = w.free.idle[n:]
	}
	w.free.Unlock()
	for _, s := range remove {
		w.free.Lock()
		delete(w.free.filled, s)
		w.free.Unlock()
		if err := w.o.FS.Remove(w.name(s)); err != nil {
			return fmt.Errorf("lsm: removing a log segment: %w", err)
		}
	}
	return nil
}

// Segments says how many segments are in use and how many wait to be recycled.
func (w *Writer) Segments() (live, idle int) {
	w.free.Lock()
	defer w.free.Unlock()
	return len(w.free.live), len(w.free.idle) + w.free.ahead
}

// DropNext removes the segment that was made ahead. No Prepare follows.
func (w *Writer) DropNext() error {
	w.making <- struct{}{}
	defer func() { <-w.making }()
	s := w.next
	if s == nil {
		return nil
	}
	w.setNext(nil)
	if err := s.file.Close(); err != nil {
		return err
	}
	if err := w.o.FS.Remove(w.name(s.number)); err != nil {
		return fmt.Errorf("lsm: removing a log segment: %w", err)
	}
	return nil
}

// Close syncs what was written, gives back the space allocated beyond it, and
// closes the segment.
func (w *Writer) Close() error {
	if w.file == nil {
		return nil
	}
	err := w.Sync()
	if err == nil {
		err = w.file.Truncate(w.off)
	}
	err = errors.Join(err, w.file.Close())
	w.file = nil
	return err
}
