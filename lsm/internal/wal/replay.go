package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/vfs"
)

// Recovered is what Replay found.
type Recovered struct {
	// At is the durable end of the chain: the last group that a later one calls
	// synced. The next group to be written follows it.
	At Position
	// Tail holds the records of the groups after At, which may never have been
	// synced. The caller shows them only after it has written them again, in the
	// first group of a new segment: the kernel may keep pages in memory that a
	// failed sync never brought to the disk.
	Tail []byte
	// Live are the numbers of the segments that hold groups.
	Live []uint64
	// Groups and Bytes count what was replayed.
	Groups, Bytes uint64
	// Damaged is, with an error that is damage, the first segment that may hold
	// some of it: that of the last good group.
	Damaged uint64
}

// A Visitor gets the records of each group in turn, encoded one behind the
// other, with the place of the first one. They are never written to again, so that it
// may keep them for later.
type Visitor func(segment uint64, off int64, records []byte) error

// Replay reads the chain of groups through the given segments, ascending, and
// stops at its end. From is the segment where the chain must begin, 0 when there
// may be none; closed is where the log ended when it was closed, if that was in one of
// these segments. It writes nothing. It fails with a *base.CorruptError when the
// chain was longer once: see the package comment. All good groups before the
// damage were visited then, and nothing behind it.
func Replay(fs vfs.FS, dir string, from uint64, closed base.LogEnd, numbers []uint64, visit Visitor) (Recovered, error) {
	r := replayer{visit: visit}
	if closed.Segment >= from {
		r.closed = closed
	}
	if from != 0 && (len(numbers) == 0 || numbers[0] != from) {
		return Recovered{Damaged: from}, base.Corrupt(path.Join(dir, base.LogName(from)), 0, "a log segment", "no such file")
	}
	var damage error
	for _, n := range numbers {
		err := r.missing(dir, n)
		if err == nil {
			err = r.segment(fs, dir, n, n == from)
		}
		if errors.Is(err, base.ErrCorrupt) {
			r.out.Damaged, damage = n, err
			if len(r.out.Live) > 0 {
				r.out.Damaged = r.out.Live[len(r.out.Live)-1]
			}
			break
		}
		if err != nil {
			return Recovered{}, err
		}
	}
	if r.refused {
		return r.out, damage // nothing follows a group that was not taken
	}
	if damage == nil {
		if damage = r.missing(dir, math.MaxUint64); damage != nil {
			r.out.Damaged = r.closed.Segment
		}
	}
	i := r.find(r.synced)
	for _, e := range r.ends[i+1:] {
		if err := r.show(&e); err != nil {
			r.out.Damaged = e.Segment
			return r.out, err
		}
		r.out.Tail = append(r.out.Tail, e.records...)
	}
	if !base.Defences.RewriteTail {
		i, r.out.Tail = len(r.ends)-1, nil
	}
	if i >= 0 {
		r.out.At = r.ends[i].Position
	} else if len(r.ends) > 0 { // the very first group of a directory
		r.out.At = Position{Sequence: r.ends[0].Sequence - 1, End: r.ends[0].previous}
	}
	return r.out, damage
}

// An end is where a valid group ends. A group above the synced sequence keeps its
// records: the next segment may replace it.
type end struct {
	Position
	previous int64
	off      int64 // of the records
	records  []byte
}

type replayer struct {
	visit  Visitor
	closed base.LogEnd
	whole  bool // that was reached
	out    Recovered
	// ends are those of the last groups, ascending by sequence without gaps:
	// all from the synced one on.
	ends   []end
	synced uint64 // the highest sequence that is known to be durable
	shown  uint64 // the highest sequence that was shown
	// refused says that a visit failed.
	refused bool
}

// find gives the index in ends of a sequence, or -1.
func (r *replayer) find(sequence uint64) int {
	if len(r.ends) == 0 || sequence < r.ends[0].Sequence {
		return -1
	}
	i := sequence - r.ends[0].Sequence
	if i >= uint64(len(r.ends)) {
		return -1
	}
	return int(i)
}

// missing says that the log was longer when it was closed, if so. Next is the segment
// to be read now: what an Open that was cut short began to write is no part of it.
func (r *replayer) missing(dir string, next uint64) error {
	if next <= r.closed.Segment || r.closed.Segment == 0 || r.whole || !base.Defences.LogEnd {
		return nil
	}
	var end int64
	if len(r.ends) > 0 && r.last().Segment == r.closed.Segment {
		end = r.last().End
	}
	return base.Corrupt(path.Join(dir, base.LogName(r.closed.Segment)), end, fmt.Sprintf("groups up to %d", r.closed.Sequence), "the end of the log")
}

// segment reads the groups of one segment. A segment without any valid group
// was never used, unless it must be there.
func (r *replayer) segment(fs vfs.FS, dir string, number uint64, must bool) error {
	name := path.Join(dir, base.LogName(number))
	f, err := fs.Open(name)
	if err != nil {
		return fmt.Errorf("lsm: opening a log segment: %w", err)
	}
	defer f.Close()
	w, err := newWindow(f)
	if err != nil {
		return fmt.Errorf("lsm: reading %s: %w", name, err)
	}
	head, err := w.bytes(0, headBytes)
	if err != nil {
		return fmt.Errorf("lsm: reading %s: %w", name, err)
	}
	salt, bad := decodeHead(head, number, name)
	if errors.Is(bad, base.ErrIncompatible) {
		return bad
	}
	salted := bad == nil
	off := int64(headBytes)
	for first := true; bad == nil; first = false {
		g, records, ok, err := w.group(number, salt, off)
		if err != nil {
			return fmt.Errorf("lsm: reading %s: %w", name, err)
		}
		switch {
		case !ok:
			bad = base.Corrupt(name, off, "a log group", "bytes that do not verify")
		case g.synced >= g.sequence:
			err = base.Corrupt(name, off, "a group that was not durable when it was written", fmt.Sprintf("group %d with %d durable", g.sequence, g.synced))
		case first:
			err = r.follow(g, name, off)
		case g.sequence != r.last().Sequence+1 || int64(g.previous) != r.last().End:
			bad = base.Corrupt(name, off, fmt.Sprintf("group %d", r.last().Sequence+1), fmt.Sprintf("group %d", g.sequence))
		}
		if err != nil {
			return err
		}
		if bad != nil {
			break
		}
		if first {
			r.out.Live = append(r.out.Live, number)
		}
		if err := r.add(g, number, off, records); err != nil {
			return err
		}
		off += g.bytes()
	}
	unused := len(r.out.Live) == 0 || r.out.Live[len(r.out.Live)-1] != number
	if unused && must {
		return bad
	}
	// Bytes behind the end are old or torn, unless a group among them says
	// that what should be here was durable.
	next := uint64(1)
	if !unused {
		next = r.last().Sequence + 1
	}
	var found bool
	if salted {
		found, err = w.search(number, salt, off, next)
	} else {
		// A segment has its head before anything else, also when it is recycled.
		found, err = w.written(off)
	}
	if err != nil {
		return fmt.Errorf("lsm: reading %s: %w", name, err)
	}
	if found && base.Defences.TornOrDamaged {
		return bad
	}
	return nil
}

func (r *replayer) last() *end { return &r.ends[len(r.ends)-1] }

// follow checks that g, the first group of a segment, continues the chain, and
// drops the groups that it replaces: a segment made by recovery begins with the
// unproven groups of the one before.
func (r *replayer) follow(g group, name string, off int64) error {
	if len(r.ends) == 0 {
		return nil
	}
	if g.sequence <= r.shown {
		return base.Corrupt(name, off, fmt.Sprintf("a group above %d", r.shown), fmt.Sprintf("group %d", g.sequence))
	}
	if first := &r.ends[0]; g.sequence == first.Sequence && int64(g.previous) == first.previous {
		r.ends = r.ends[:0]
		return nil
	}
	i := r.find(g.sequence - 1)
	if i < 0 || r.ends[i].End != int64(g.previous) {
		return base.Corrupt(name, off, fmt.Sprintf("group %d", r.last().Sequence+1), fmt.Sprintf("group %d after offset %d", g.sequence, g.previous))
	}
	r.ends = r.ends[:i+1]
	return nil
}

// add takes in a valid group, and shows those that it calls durable. The others
// wait: a sync of them may have failed, a recovery may have found them missing
// and gone on without them, and yet the disk may show them now.
func (r *replayer) add(g group, segment uint64, off int64, records []byte) error {
	r.ends = append(r.ends, end{
		Position: Position{Segment: segment, Sequence: g.sequence, End: off + g.bytes()},
		previous: int64(g.previous),
		off:      off + GroupHeaderBytes,
		records:  bytes.Clone(records),
	})
	r.synced = max(r.synced, g.synced)
	if segment == r.closed.Segment {
		r.synced = max(r.synced, min(g.sequence, r.closed.Sequence))
		r.whole = r.whole || g.sequence >= r.closed.Sequence
	}
	proven := min(r.synced, g.sequence)
	if proven <= r.shown {
		return nil
	}
	i := r.find(proven)
	for j := range r.ends[:i+1] {
		if e := &r.ends[j]; e.Sequence > r.shown {
			if err := r.show(e); err != nil {
				return err
			}
			e.records = nil
		}
	}
	r.shown = proven
	if i > 0 {
		r.ends = slices.Delete(r.ends, 0, i)
	}
	return nil
}

func (r *replayer) show(e *end) error {
	r.out.Groups++
	r.out.Bytes += uint64(len(e.records))
	err := r.visit(e.Segment, e.off, e.records)
	r.refused = err != nil
	return err
}

// windowBytes is how much of a segment is read at once.
const windowBytes = 1 << 20

// A window is the part of a segment that is in memory.
type window struct {
	f     vfs.File
	size  int64
	start int64
	buf   []byte
}

func newWindow(f vfs.File) (*window, error) {
	size, err := f.Size()
	return &window{f: f, size: size}, err
}

// bytes gives n bytes at off, or fewer at the end of the file, until its next
// call.
func (w *window) bytes(off, n int64) ([]byte, error) {
	n = max(min(n, w.size-off), 0)
	if off < w.start || off+n > w.start+int64(len(w.buf)) {
		w.start = off
		w.buf = slices.Grow(w.buf[:0], int(max(n, windowBytes)))[:max(n, min(windowBytes, w.size-off))]
		if k, err := w.f.ReadAt(w.buf, off); k < len(w.buf) {
			w.buf = w.buf[:0]
			return nil, err
		}
	}
	return w.buf[off-w.start:][:n], nil
}

// group reads the group of a segment at off. Not ok means that there is none.
func (w *window) group(segment, salt uint64, off int64) (g group, records []byte, ok bool, err error) {
	b, err := w.bytes(off, GroupHeaderBytes)
	if err != nil || len(b) < GroupHeaderBytes {
		return group{}, nil, false, err
	}
	g, sum := decodeGroup(b)
	if g.salt != salt || g.bytes() > w.size-off {
		return group{}, nil, false, nil
	}
	b, err = w.bytes(off, g.bytes())
	if err != nil || base.Checksum(segment, off, b[4:]) != sum {
		return group{}, nil, false, err
	}
	return g, b[GroupHeaderBytes:], true, nil
}

// written reports whether anything but zeros follows off.
func (w *window) written(off int64) (bool, error) {
	for ; off < w.size; off += windowBytes {
		b, err := w.bytes(off, windowBytes)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
			return true, nil
		}
	}
	return false, nil
}

// searchFactor bounds the work of search: candidates are verified for as many
// bytes in all as this multiple of the segment. Only values that are copies of the
// very segment reach it, and they count as damage.
const searchFactor = 16

// search reports whether a valid group of the segment after off calls the
// sequence next durable.
func (w *window) search(segment, salt uint64, off int64, next uint64) (bool, error) {
	const saltAt = 8 // in a group's header
	mark := binary.LittleEndian.AppendUint64(nil, salt)
	budget := searchFactor * w.size
	for off+GroupHeaderBytes <= w.size {
		if _, err := w.bytes(off, GroupHeaderBytes); err != nil {
			return false, err
		}
		b := w.buf[off-w.start:] // all that is in memory
		i := bytes.Index(b[saltAt:], mark)
		if i < 0 {
			off += max(int64(len(b)-saltAt-len(mark)), 0) + 1
			continue
		}
		off += int64(i)
		h, err := w.bytes(off, GroupHeaderBytes)
		if err != nil || len(h) < GroupHeaderBytes {
			return false, err
		}
		if g, _ := decodeGroup(h); g.synced >= next && g.sequence > next && g.bytes() <= w.size-off {
			budget -= g.bytes()
			_, _, ok, err := w.group(segment, salt, off)
			if ok || err != nil || budget < 0 {
				return true, err
			}
		}
		off++
	}
	return false, nil
}
