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

// WriterOptions says where and how large segments are.
type WriterOptions struct {
	FS  vfs.FS
	Dir string
	// SegmentBytes is allocated for a new segment. A segment may outgrow it.
	SegmentBytes int64
	// Number gives the number of the next file: above every number ever used
	// in the directory, so that a recycled file never holds a valid group.
	Number func() uint64
	// Free is how many released segments are kept for recycling.
	Free int
}

// A Position is a place in the chain of groups.
type Position struct {
	Segment  uint64 // 0 before the first segment
	Sequence uint64 // of the last group before the place
	End      int64  // offset where that group ends
}

// A Writer appends groups to the chain. All methods but Release belong to the
// log's goroutine.
//
// Invariant: after an error from Write other than vfs.ErrNoSpace, and after any
// error from Sync, nothing more is written: the kernel may have dropped the
// dirty pages, and a retry would call durable what is not.
type Writer struct {
	o      WriterOptions
	file   vfs.File // nil before the first Rotate
	at     Position // of the last group
	number uint64   // of the segment that file is
	off    int64    // where its next group goes
	synced uint64   // highest sequence known to be durable
	err    error

	free struct {
		sync.Mutex
		live []uint64 // segments in use, ascending
		idle []uint64 // released, to be recycled
	}
}

// NewWriter continues the chain after at. Live are the numbers of the segments
// in the directory, ascending.
func NewWriter(o WriterOptions, at Position, live []uint64) *Writer {
	w := &Writer{o: o, at: at, synced: at.Sequence}
	w.free.live = append(w.free.live, live...)
	return w
}

// Segment is the number of the segment that is written now.
func (w *Writer) Segment() uint64 { return w.number }

// Bytes is the size of its used part.
func (w *Writer) Bytes() int64 { return w.off }

// Err is the error after which nothing more is written, or nil.
func (w *Writer) Err() error { return w.err }

// Unsynced reports whether the last group is not known to be durable.
func (w *Writer) Unsynced() bool { return w.synced < w.at.Sequence }

// Rotate syncs the current segment and begins the next one with the group b
// (see Write), which may be without records. On return that is durable, and so
// is the segment's name. When Rotate fails with vfs.ErrNoSpace the current
// segment goes on.
//
// Invariant: a segment in use begins with a valid group, so that recovery knows
// the sequence from there.
func (w *Writer) Rotate(b []byte) error {
	if err := w.Sync(); err != nil {
		return err
	}
	number := w.o.Number()
	g, err := w.next(b, number)
	if err != nil {
		return err
	}
	g.seal(b, base.HeaderBytes)
	f, err := w.create(number, b)
	if err != nil {
		if !errors.Is(err, vfs.ErrNoSpace) {
			w.err = err
		}
		return err
	}
	if w.file != nil {
		if err := w.file.Close(); err != nil {
			w.err = fmt.Errorf("lsm: closing a log segment: %w", err)
			return errors.Join(w.err, f.Close())
		}
	}
	w.file, w.number, w.off = f, number, base.HeaderBytes+int64(len(b))
	w.at = Position{Segment: number, Sequence: g.sequence, End: w.off}
	w.synced = g.sequence
	w.free.Lock()
	w.free.live = append(w.free.live, number)
	w.free.Unlock()
	return nil
}

// create makes segment number with its first group, from a released segment if
// there is any.
func (w *Writer) create(number uint64, first []byte) (vfs.File, error) {
	name := path.Join(w.o.Dir, base.LogName(number))
	f, err := w.recycle(name)
	if err == nil && f == nil {
		f, err = w.o.FS.Create(name)
	}
	if err == nil {
		// Without room for all of it, a segment that grows will do.
		if aerr := f.Allocate(0, w.o.SegmentBytes); aerr != nil && !errors.Is(aerr, vfs.ErrNoSpace) {
			err = aerr
		}
	}
	if err == nil {
		header := base.AppendHeader(nil, base.LogMagic, base.Header{Version: Version, Number: number})
		_, err = f.WriteAt(append(header, first...), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		// Groups are acknowledged only in a file whose name is durable.
		err = w.o.FS.SyncDir(w.o.Dir)
	}
	if err != nil {
		if f != nil {
			f.Close()
			w.o.FS.Remove(name) // an empty leftover; recovery removes it too
		}
		return nil, fmt.Errorf("lsm: creating log segment %s: %w", name, err)
	}
	return f, nil
}

// recycle renames a released segment to name. It returns nil when there is none.
func (w *Writer) recycle(name string) (vfs.File, error) {
	w.free.Lock()
	n := len(w.free.idle)
	if n == 0 {
		w.free.Unlock()
		return nil, nil
	}
	old := w.free.idle[n-1]
	w.free.idle = w.free.idle[:n-1]
	w.free.Unlock()
	if err := w.o.FS.Rename(path.Join(w.o.Dir, base.LogName(old)), name); err != nil {
		return nil, err
	}
	return w.o.FS.OpenReadWrite(name)
}

// Write appends the group in b, which is GroupHeaderBytes of room and then the
// records. It is durable after Sync.
func (w *Writer) Write(b []byte) error {
	if w.err != nil {
		return w.err
	}
	g, err := w.next(b, w.number)
	if err != nil {
		return err
	}
	g.seal(b, w.off)
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
	w.at = Position{Segment: w.number, Sequence: g.sequence, End: w.off}
	return nil
}

// next gives the header of the group that follows the last one.
func (w *Writer) next(b []byte, segment uint64) (group, error) {
	n := len(b) - GroupHeaderBytes
	if n > MaxGroupBytes {
		return group{}, fmt.Errorf("lsm: a log group of %d bytes is above the limit of %d: submit smaller batches", n, MaxGroupBytes)
	}
	return group{
		length:   uint32(n),
		segment:  segment,
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
	if err := w.file.SyncData(); err != nil {
		w.err = fmt.Errorf("lsm: syncing the log: %w", err)
		return w.err
	}
	w.synced = w.at.Sequence
	return nil
}

// Release gives up all segments below number: their records are in tables, by a
// durable edit of the manifest. It may be called by any one goroutine at a time.
func (w *Writer) Release(number uint64) error {
	var remove []uint64
	w.free.Lock()
	for len(w.free.live) > 0 && w.free.live[0] < number {
		if s := w.free.live[0]; len(w.free.idle) < w.o.Free {
			w.free.idle = append(w.free.idle, s)
		} else {
			remove = append(remove, s)
		}
		w.free.live = w.free.live[1:]
	}
	w.free.Unlock()
	for _, s := range remove {
		if err := w.o.FS.Remove(path.Join(w.o.Dir, base.LogName(s))); err != nil {
			return fmt.Errorf("lsm: removing a log segment: %w", err)
		}
	}
	return nil
}

// Segments says how many segments are in use and how many wait to be recycled.
func (w *Writer) Segments() (live, idle int) {
	w.free.Lock()
	defer w.free.Unlock()
	return len(w.free.live), len(w.free.idle)
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
