package lsm

import (
	"fmt"
	"sync"
)

// What Options.MemoryBytes is for, and the only place that divides it:
//
//	memtables  MaxMemtables x MemtableBytes     the active one, sealed ones, and memory kept for the next
//	log        2 x LogBufferBytes               one half is filled while the other is written
//	work       MemtableBytes/2 + M/16 <= 32 MiB sorting for a flush; tokens and buffers of flush and compaction; the Go heap
//	tables     the rest                         indexes and filters of tables, and the record cache
//
// Fields that are zero follow from M = MemoryBytes: MemtableBytes = M/4/MaxMemtables
// up to 64 MiB, LogBufferBytes = M/64 up to 8 MiB, both at least 64 KiB, CacheBytes =
// tables. Without M the other fields have their defaults, tables = CacheBytes, and M
// is the sum.
//
// In tables, indexes and filters come first, since without them a read of one
// record reads megabytes; up to 3/4. The cache has what they leave, and gives way
// when they need more. Without a cache they have all.
//
// The process takes a few MiB more, for Go itself, and for what readers hold on
// to: a memtable that was flushed, as long as a read or scan of before is in it,
// and tables that are pinned (see metadata).
const (
	poolPieces      = 16 // of a memtable
	minMemoryBytes  = 512 << 10
	minLogBuffer    = 64 << 10
	maxWorkBytes    = 32 << 20
	memtableShare   = 4  // of M
	logShare        = 64 // of M, for each half
	workShare       = 16 // of M
	metadataShare   = 4  // what is not for metadata, of tables
	metadataNoCache = 64 << 20
)

// divide fills in the fields of o that have to do with memory.
func (o *Options) divide() error {
	if o.MaxMemtables == 0 {
		o.MaxMemtables = defaultMaxMemtables
	}
	m := o.MemoryBytes
	if m != 0 && m < minMemoryBytes {
		return fmt.Errorf("%w: MemoryBytes is %d, set at least %d", ErrInvalid, m, minMemoryBytes)
	}
	if o.MemtableBytes == 0 {
		o.MemtableBytes = defaultMemtableBytes
		if m != 0 {
			o.MemtableBytes = min(max(m/memtableShare/int64(max(o.MaxMemtables, 1)), minMemtableBytes), defaultMemtableBytes)
		}
	}
	if o.LogBufferBytes == 0 {
		o.LogBufferBytes = defaultLogBuffer
		if m != 0 {
			o.LogBufferBytes = int(min(max(m/logShare, minLogBuffer), defaultLogBuffer))
		}
	}
	others := int64(o.MaxMemtables)*o.MemtableBytes + 2*int64(o.LogBufferBytes) + o.MemtableBytes/2
	if m == 0 {
		switch {
		case o.CacheBytes == 0:
			o.CacheBytes = defaultCacheBytes
			o.tableMemory = defaultCacheBytes
		case o.CacheBytes < 0:
			o.tableMemory = metadataNoCache
		default:
			o.tableMemory = o.CacheBytes
		}
		o.MemoryBytes = others + maxWorkBytes + o.tableMemory
	} else {
		others += min(m/workShare, maxWorkBytes)
		if o.tableMemory = m - others; o.tableMemory < max(o.CacheBytes, 1) {
			return fmt.Errorf("%w: MemoryBytes is %d, but %d memtables of %d, a log buffer of %d, a cache of %d and buffers need %d",
				ErrInvalid, m, o.MaxMemtables, o.MemtableBytes, o.LogBufferBytes, max(o.CacheBytes, 0), others+max(o.CacheBytes, 1))
		}
		if o.CacheBytes == 0 {
			o.CacheBytes = o.tableMemory
		}
	}
	if o.metadataBytes == 0 {
		o.metadataBytes = o.tableMemory
		if o.CacheBytes > 0 {
			o.metadataBytes -= o.tableMemory / metadataShare
		}
	}
	return nil
}

// cacheSteps is how finely the cache follows what indexes and filters take.
const cacheSteps = 64

// A balance gives the cache what the metadata leaves.
type balance struct {
	mu       sync.Mutex // also around SetCapacity, so that the last one set is right
	capacity int64
}

// rebalance resizes the cache after tables were opened or closed. It takes
// locks in this order: balance, metadata, cache.
func (t *Tree) rebalance() {
	if t.cache == nil {
		return
	}
	step := max(t.o.tableMemory/cacheSteps, 1)
	t.balance.mu.Lock()
	defer t.balance.mu.Unlock()
	held, _ := t.metadata.held()
	want := min(t.o.CacheBytes, max(t.o.tableMemory-(held+step-1)/step*step, 0))
	// It grows again a step late, so that it does not go back and forth.
	if want < t.balance.capacity || want > t.balance.capacity+step || want == t.o.CacheBytes && want > t.balance.capacity {
		t.balance.capacity = want
		t.cache.SetCapacity(want)
	}
}
