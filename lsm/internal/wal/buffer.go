package wal

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/offheap"
)

// ErrFull says that the buffer is at its limit: the log is slower than its
// writers. Nothing was appended.
var ErrFull = errors.New("lsm: too many writes are waiting for the log; try again later")

// An Entry is one batch on its way through the log.
type Entry struct {
	// Batch is what was appended. Keys and values are in the buffer and must be
	// read from there; the other fields stay valid until Done was called.
	Batch []base.Record
	// Done is called once with the outcome.
	Done func(error)
	// Sync says that the batch waits for a sync whatever the policy.
	Sync bool
	// Applied says that the records are in the memtable already.
	Applied bool
}

// A Group is what one Take returns. It belongs to the log's goroutine until its
// next Take.
type Group struct {
	// Bytes is room for a header, then the encoded records of the entries. It
	// lies off the Go heap.
	Bytes   []byte
	Entries []Entry
}

// Drop takes the entries out of a group whose Done was not called yet, with their records,
// and gives them.
func (g *Group) Drop() (dropped []Entry) {
	if len(g.Entries) == 0 {
		return nil
	}
	rest, kept := g.Bytes[GroupHeaderBytes:], 0
	g.Bytes = g.Bytes[:GroupHeaderBytes]
	for _, e := range g.Entries {
		n := 0
		for range e.Batch {
			_, size, err := base.DecodeRecord(rest[n:])
			if err != nil {
				panic(fmt.Sprintf("lsm: a record in the log's buffer: %v", err))
			}
			n += size
		}
		if e.Done != nil {
			dropped = append(dropped, e)
		} else {
			g.Bytes = append(g.Bytes, rest[:n]...)
			g.Entries[kept] = e
			kept++
		}
		rest = rest[n:]
	}
	clear(g.Entries[kept:])
	g.Entries = g.Entries[:kept]
	return dropped
}

// A Parker is what a writer waits on while the buffer is full. It is reused, by
// one writer at a time.
type Parker struct{ room chan struct{} } // capacity 1, never closed

// NewParker returns a parker.
func NewParker() *Parker { return &Parker{room: make(chan struct{}, 1)} }

// A Buffer collects batches for the log's goroutine, which takes them whole. A
// writer who finds it asleep may stand in for it: see Lead. All methods but Wait,
// Take, Taken and HandBack are for any goroutine; nothing blocks under the lock.
type Buffer struct {
	limit int
	wake  chan struct{} // capacity 1; never closed

	mu struct {
		sync.Mutex
		group  Group
		parked []*Parker // writers waiting for room
		asleep bool      // the log's goroutine waits for wake
		alone  bool      // and a writer may stand in for it
		kicked bool      // it has something else to look at
		err    error     // why nothing is accepted any more
	}
	spare  Group // the half that is not filled now; owned by the log's goroutine, or who stands in
	memory atomic.Int64
}

// NewBuffer returns an empty buffer that accepts batches while it holds less
// than limit bytes. Free it.
func NewBuffer(limit int) *Buffer {
	b := &Buffer{limit: limit, wake: make(chan struct{}, 1)}
	b.reset(&b.mu.group)
	b.reset(&b.spare)
	return b
}

// firstBytes is how much room a half has at first. It doubles as it fills.
const firstBytes = 64 << 10

// reset empties a half. One that a large batch has made twice as large as the
// limit is given up.
func (b *Buffer) reset(g *Group) {
	if cap(g.Bytes) > max(2*b.limit, firstBytes) {
		b.memory.Add(-int64(cap(g.Bytes)))
		offheap.Free(g.Bytes)
		g.Bytes = nil
	}
	if g.Bytes == nil {
		g.Bytes = offheap.AllocHasty(firstBytes)
		b.memory.Add(int64(cap(g.Bytes)))
	}
	clear(g.Entries)
	g.Bytes, g.Entries = g.Bytes[:GroupHeaderBytes], g.Entries[:0]
}

// reserve makes room for n bytes more.
func (b *Buffer) reserve(g *Group, n int) {
	if n <= cap(g.Bytes)-len(g.Bytes) {
		return
	}
	more := offheap.AllocHasty(max(len(g.Bytes)+n, min(2*cap(g.Bytes), b.limit+firstBytes)))
	b.memory.Add(int64(cap(more)) - int64(cap(g.Bytes)))
	copied := copy(more, g.Bytes)
	offheap.Free(g.Bytes)
	g.Bytes = more[:copied]
}

// MemoryBytes is what both halves hold, filled or not.
func (b *Buffer) MemoryBytes() int64 { return b.memory.Load() }

// Free gives the memory back. The buffer is closed, nobody takes from it any
// more, and nobody holds a group.
func (b *Buffer) Free() {
	b.mu.Lock()
	first := b.mu.group.Bytes
	b.mu.group = Group{}
	b.mu.Unlock()
	offheap.Free(first)
	offheap.Free(b.spare.Bytes)
	b.spare = Group{}
	b.memory.Store(0)
}

// Append copies the records of the entry's batch into the buffer, or fails with
// ErrFull. It never blocks.
func (b *Buffer) Append(e Entry) error {
	_, err := b.append(e, false)
	return err
}

// Lead is Append for a writer that waits for its batch anyway. With true the
// caller stands in for the log's goroutine, which sleeps on: it saves the way
// there and back, must Take, and then HandBack.
func (b *Buffer) Lead(e Entry) (bool, error) { return b.append(e, true) }

func (b *Buffer) append(e Entry, willing bool) (leads bool, err error) {
	size := 0
	for i := range e.Batch {
		size += base.EncodedLen(&e.Batch[i])
	}
	b.mu.Lock()
	if err := b.mu.err; err != nil {
		b.mu.Unlock()
		return false, err
	}
	g := &b.mu.group
	if len(g.Bytes) >= b.limit {
		b.mu.Unlock()
		return false, ErrFull
	}
	b.reserve(g, size)
	for i := range e.Batch {
		g.Bytes = base.AppendRecord(g.Bytes, &e.Batch[i])
	}
	g.Entries = append(g.Entries, e)
	wake := b.mu.asleep
	leads = wake && willing && b.mu.alone
	b.mu.asleep = false
	b.mu.Unlock()
	if wake && !leads {
		b.wake <- struct{}{}
	}
	return leads, nil
}

// WaitRoom blocks on p until the buffer has been emptied or closed, or Unpark. Others may
// have filled it again by then.
func (b *Buffer) WaitRoom(p *Parker) {
	b.mu.Lock()
	if b.mu.err != nil || len(b.mu.group.Bytes) < b.limit {
		b.mu.Unlock()
		return
	}
	b.mu.parked = append(b.mu.parked, p)
	b.mu.Unlock()
	<-p.room
}

// Spare reports whether less than half of the buffer is filled.
func (b *Buffer) Spare() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.mu.group.Bytes) < b.limit/2
}

// Drop is Group.Drop for what is to be taken next.
func (b *Buffer) Drop() []Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.group.Drop()
}

// Unpark has the writers that wait for room look again.
func (b *Buffer) Unpark() {
	b.mu.Lock()
	parked := b.mu.parked
	b.mu.parked = nil
	b.mu.Unlock()
	release(parked)
}

// Kick makes the running or next Wait return.
func (b *Buffer) Kick() {
	b.mu.Lock()
	b.mu.kicked = true
	wake := b.mu.asleep
	b.mu.asleep = false
	b.mu.Unlock()
	if wake {
		b.wake <- struct{}{}
	}
}

// Close makes every later Append, and every waiting one, fail with err. What was
// appended before stays to be taken. The first err counts.
func (b *Buffer) Close(err error) {
	b.mu.Lock()
	if b.mu.err == nil {
		b.mu.err = err
	}
	b.mu.Unlock()
	b.Unpark()
	b.Kick()
}

// Wait blocks the log's goroutine until there is something to take or it was
// kicked. With alone, the next writer may stand in for it.
func (b *Buffer) Wait(alone bool) {
	if b.idle(alone) {
		// Invariant: who clears asleep sends exactly one wake, or leads and hands
		// back, so that the channel is empty whenever asleep is set.
		<-b.wake
		b.mu.Lock()
		b.mu.kicked = false
		b.mu.Unlock()
	}
}

// HandBack ends what Lead began. The log's goroutine sleeps on unless there is
// something for it.
func (b *Buffer) HandBack(alone bool) {
	if !b.idle(alone) {
		b.wake <- struct{}{}
	}
}

// idle has the next writer wake the log's goroutine, unless there is something
// for it already.
func (b *Buffer) idle(alone bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	idle := len(b.mu.group.Entries) == 0 && !b.mu.kicked
	b.mu.asleep, b.mu.alone = idle, alone
	b.mu.kicked = false
	return idle
}

// Take gives all that was appended since the last Take and makes room for more.
// The group returned before is reused.
func (b *Buffer) Take() Group {
	b.reset(&b.spare)
	b.mu.Lock()
	b.mu.group, b.spare = b.spare, b.mu.group
	parked := b.mu.parked
	b.mu.parked = nil
	b.mu.Unlock()
	release(parked)
	return b.spare
}

// Taken is what the last Take gave.
func (b *Buffer) Taken() Group { return b.spare }

// release wakes parked writers. Each is in the list once, so that its channel
// is empty.
func release(parked []*Parker) {
	for _, p := range parked {
		p.room <- struct{}{}
	}
}
