package lsm

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/cache"
	"example.com/kvstore/lsm/internal/manifest"
	"example.com/kvstore/lsm/internal/memtable"
	"example.com/kvstore/lsm/internal/offheap"
	"example.com/kvstore/lsm/internal/wal"
	"example.com/kvstore/vclock"
)

// A Tree is an open directory. All methods are for any goroutine.
//
// Locks are leaves: none is held while another is taken, except that a
// memtable's View takes all of its shards in order, and that a shard takes
// memory from its memtable's arena, which takes it from the pool. None is held
// across I/O, channel operations or callbacks, apart from Options.Join and Dots,
// which a shard calls to merge two values and which may not wait for anything; and
// mu is held while a compaction is picked, which computes only.
type Tree struct {
	o          Options
	dir        string
	pageCache  uint64 // bytes of tables that the system may keep in memory, about
	cold       string // where cold tables are; empty without Options.ColdDir
	clock      *vclock.Clock
	lock       io.Closer
	coldLock   io.Closer // of cold; nil while that is not there; owned by recovery, then by who has the turn to move
	sliceShift uint
	waiters    sync.Pool // of *waiter
	lookups    sync.Pool // of *lookup
	memory     *offheap.Pool
	cache      *cache.Cache // nil: none
	metadata   metadata
	balance    balance

	version  atomic.Pointer[version] // nil after Close
	active   atomic.Pointer[mem]     // the first mem of version
	nextFile atomic.Uint64           // the next unused file number
	// memtables were made so far; flushed is the number of the last one in tables.
	memtables, flushed atomic.Uint64

	queue *wal.Buffer
	// Owned by logLoop, or who stands in for it, except where noted.
	log     *wal.Writer // but Prepare, Release, Segments and DropNext
	sync    syncTimer
	company bool // the last group was of several writers

	manifest *manifest.Manifest
	edits    chan struct{} // capacity 1: the turn to edit the manifest

	room        chan struct{} // capacity 1: wakes logLoop when a memtable was flushed
	flushKick   chan struct{} // capacity 1: wakes flushLoop
	prepareKick chan struct{} // capacity 1: wakes prepareLoop
	compactKick chan struct{} // capacity 1: wakes a compactLoop
	tendKick    chan struct{} // capacity 1: wakes tendLoop
	sweeping    sync.Mutex    // held by the one sweep
	moving      chan struct{} // capacity 1: the turn to move tables to the cold directory
	rest        rest
	load        load
	opened      time.Time     // for differences
	idle        chan struct{} // closed when no version is held any more, after Close
	failed      chan struct{} // closed by fail
	stopping    chan struct{} // closed when the background is to end
	stopped     atomic.Bool   // the same, to be polled
	closing     atomic.Bool   // Close has begun, and has closed the queue
	ending      chan struct{} // closed by Close at its beginning
	full        atomic.Bool   // flushes find no space, or wait for a merge that does not, or the reserve has none
	reserved    atomic.Bool   // there is a reserve
	refusing    atomic.Bool   // a lazy log waits for space: see waitForSpace
	stats       stats

	mu struct {
		sync.Mutex
		rotations []*rotation   // asked for by Flush
		refused   chan struct{} // closed, and replaced, when a flush finds no space
		merges    []*merge      // asked for by Compact
		busy      map[*run]bool // inputs of the compactions that run
		bottoms   int           // how many of those make a bottom
		dead      []*tableFile
		suspects  []*tableFile // damaged, to be set aside
		sick      []sickTable  // that could not be read
		versions  int          // that are held, and pinned tables
		logDone   bool         // logLoop has ended
		closed    bool
		err       error // of the first failure
	}
	closeDone  chan struct{} // closed when Close has finished; closeErr is set before
	closeErr   error
	background sync.WaitGroup // logLoop
	workers    sync.WaitGroup // prepareLoop, flushLoop, each compactLoop, tendLoop, scrubLoop
	holders    sync.WaitGroup // calls that Close waits for; see hold
}

// Identity tells the directory from all others: a restored checkpoint has another
// than the tree that it was made of.
func (t *Tree) Identity() [16]byte { return t.manifest.State().Directory }

// failure gives the error that ended writing, or nil.
func (t *Tree) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.err
}

// newMem makes a memtable for about that many keys, whose log begins with the
// given segment.
func (t *Tree) newMem(first uint64, keys int) *mem {
	return &mem{
		Table: memtable.New(memtable.Options{
			Shards: t.o.Shards, Bytes: t.o.MemtableBytes, Keys: keys, Pool: t.memory, Join: t.join,
		}),
		number: t.memtables.Add(1), first: first, segments: 1, flushed: make(chan struct{}),
	}
}

// fail ends all writing, for good. The first cause counts.
func (t *Tree) fail(cause error) error {
	f := &failure{cause}
	t.queue.Close(f)
	t.mu.Lock()
	first := t.mu.err == nil
	if first {
		t.mu.err = f
	}
	err := t.mu.err
	t.mu.Unlock()
	if first {
		t.o.Logger.Error("lsm: no more writes", "cause", cause)
		tell(t.o.Events.Failed, ErrorInfo{cause})
		close(t.failed)
		t.queue.Kick()
		kick(t.room)
		kick(t.flushKick)
		kick(t.compactKick)
	}
	return err
}

// A failure is an ErrReadOnly with its cause.
type failure struct{ cause error }

func (f *failure) Error() string   { return ErrReadOnly.Error() + ": " + f.cause.Error() }
func (f *failure) Unwrap() []error { return []error{ErrReadOnly, f.cause} }

// Close writes and syncs what was submitted, ends the background work and calls
// like Ingest and Checkpoint, waits for reads and scans that still run, and unlocks
// the directory. It gives the error that ended writing, if there was one. It may be
// called twice, but not from a completion, nor from the body of a Scan, nor from the
// records of an Ingest.
func (t *Tree) Close() error {
	t.mu.Lock()
	again := t.mu.closed
	t.mu.closed = true
	t.mu.Unlock()
	if again {
		<-t.closeDone
		return t.closeErr
	}
	err := t.failure()
	t.queue.Close(ErrClosed)
	t.closing.Store(true)
	close(t.ending)
	t.queue.Kick()
	kick(t.room)
	t.background.Wait()
	if err == nil {
		err = t.failure()
	}
	t.closeErr = errors.Join(err, t.shut())
	close(t.closeDone)
	return t.closeErr
}

// shut ends everything but the log's goroutine, which has ended.
func (t *Tree) shut() error {
	t.stopped.Store(true)
	close(t.stopping)
	t.workers.Wait()
	t.holders.Wait()
	t.rest.timer.Stop()
	t.replace(t.version.Swap(nil))
	<-t.idle
	t.memory.Close()
	t.queue.Free()
	t.cache.Close()
	err := t.sweep()
	t.releaseAll(t.metadata.close()...)
	return errors.Join(err, t.markEnd(), t.log.DropNext(), t.manifest.Close(), t.unlockCold(), t.lock.Close())
}

// markEnd has the manifest say where the log ended, so that the next Open misses
// what is cut off. Without room it goes without.
func (t *Tree) markEnd() error {
	at := t.log.At()
	end := base.LogEnd{Segment: at.Segment, Sequence: at.Sequence}
	if t.failure() != nil || t.log.Unsynced() || t.manifest.State().LogEnd == end {
		return nil
	}
	if err := t.manifest.Apply(manifest.Edit{LogEnd: end, NextFile: t.nextFile.Load()}); !errors.Is(err, ErrNoSpace) {
		return err
	}
	return nil
}

// sweep discards the tables that no version holds any more; after it, those that
// another call took are gone too.
func (t *Tree) sweep() error {
	t.sweeping.Lock()
	defer t.sweeping.Unlock()
	t.mu.Lock()
	dead := t.mu.dead
	t.mu.dead = nil
	t.mu.Unlock()
	var errs []error
	for _, f := range dead {
		errs = append(errs, f.discard())
	}
	return errors.Join(errs...)
}
