package lsm

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"example.com/kvstore/lsm/internal/table"
)

// An opened table is a reader with its index and filter in memory, and a count of
// those who need it: one for being the table's current one, one for each pin.
type opened struct {
	*table.Reader
	f     *tableFile
	bytes int64
	pins  atomic.Int64
	used  atomic.Bool // since the clock's hand was here
	at    int         // its place in the ring, or -1; guarded by metadata.mu
	gone  uint64      // the moment of grace when it was taken out
}

// release gives up a pin. The last one closes the reader.
func (o *opened) release() error {
	if o.pins.Add(-1) > 0 {
		return nil
	}
	if err := o.Close(); err != nil {
		return fmt.Errorf("lsm: closing a table: %w", err)
	}
	return nil
}

// touch notes a use.
func (o *opened) touch() {
	if !o.used.Load() {
		o.used.Store(true)
	}
}

// metadata bounds what tables hold in memory, and their open files. A table
// beyond the bounds is opened again when it is needed.
//
// Readers ask a filter within the grace, without a pin; what does I/O, or stays
// long, pins. So an opened table is closed when the grace has passed after it was
// taken out, and the last pin is gone.
//
// The bounds hold for what is not pinned: with r reads at a time there may be r
// tables more, and maxGoing that wait for the grace.
type metadata struct {
	limit atomic.Int64 // bytes
	files int
	grace grace

	opens, evictions atomic.Uint64

	mu struct {
		sync.Mutex
		ring  []*opened // in the order of the clock
		hand  int
		bytes int64     // in ring
		going []*opened // taken out, waiting for the grace
	}
}

// maxGoing bounds the tables that were taken out and wait for the grace. Readers
// that are in it are not waiting for anything but a processor.
const maxGoing = 4

// add counts a table in, and takes others out to make room. It gives those that
// nobody can be in any more, for the caller to release. The caller is not in the
// grace.
func (m *metadata) add(o *opened) (free []*opened) {
	m.opens.Add(1)
	m.mu.Lock()
	o.at = len(m.mu.ring)
	m.mu.ring = append(m.mu.ring, o)
	m.mu.bytes += o.bytes
	m.trimLocked(o)
	free = m.passedLocked()
	for len(m.mu.going) > maxGoing {
		m.mu.Unlock()
		runtime.Gosched()
		m.mu.Lock()
		free = append(free, m.passedLocked()...)
	}
	m.mu.Unlock()
	return free
}

// trimLocked takes tables out until the rest is within the bounds; all but keep.
func (m *metadata) trimLocked(keep *opened) {
	for spared := 0; len(m.mu.ring) > 0 && (m.mu.bytes > m.limit.Load() || len(m.mu.ring) > m.files); {
		if m.mu.hand >= len(m.mu.ring) {
			m.mu.hand = 0
		}
		o := m.mu.ring[m.mu.hand]
		switch {
		case o == keep && len(m.mu.ring) == 1:
			return
		case o == keep || o.used.Swap(false) && spared < 2*len(m.mu.ring):
			m.mu.hand++
			spared++
		default:
			m.removeLocked(o)
			if !o.f.reader.CompareAndSwap(o, nil) {
				continue // the table is being discarded, and is released by that
			}
			o.gone = m.grace.now()
			m.mu.going = append(m.mu.going, o)
			m.evictions.Add(1)
		}
	}
}

func (m *metadata) removeLocked(o *opened) {
	m.mu.bytes -= o.bytes
	last := m.mu.ring[len(m.mu.ring)-1]
	m.mu.ring[o.at], last.at = last, o.at
	m.mu.ring[len(m.mu.ring)-1] = nil
	m.mu.ring = m.mu.ring[:len(m.mu.ring)-1]
	o.at = -1
}

// remove takes out a table that no version has any more, so that nobody can be
// in it without a pin.
func (m *metadata) remove(o *opened) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o.at >= 0 {
		m.removeLocked(o)
	}
}

// close gives what was taken out and not freed yet, when all readers have ended.
func (m *metadata) close() (free []*opened) {
	m.mu.Lock()
	defer m.mu.Unlock()
	free, m.mu.going = m.mu.going, nil
	return free
}

// held is what is counted now: bytes in memory and open files.
func (m *metadata) held() (bytes int64, files int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	bytes, files = m.mu.bytes, len(m.mu.ring)+len(m.mu.going)
	for _, o := range m.mu.going {
		bytes += o.bytes
	}
	return bytes, files
}

// passedLocked gives the tables that were taken out long enough ago.
func (m *metadata) passedLocked() (free []*opened) {
	for len(m.mu.going) > 0 && m.grace.passed(m.mu.going[0].gone) {
		free = append(free, m.mu.going[0])
		m.mu.going[0] = nil
		m.mu.going = m.mu.going[1:]
	}
	return free
}
