package cache

import (
	"math/bits"
	"sync/atomic"

	"example.com/kvstore/lsm/internal/base"
)

// A Cache is for any goroutine, except for Close. A nil *Cache holds nothing.
type Cache struct {
	shards       []shard
	shift        uint
	segmentBytes int
	capacity     atomic.Int64
	holds        atomic.Int32  // Hold without Release
	changes      atomic.Uint32 // one up at Hold and at Release
}

const (
	maxShards = 64
	// minShardBytes is what a shard has before there are several.
	minShardBytes = 256 << 10
	// A segment is at most this large, and the largest record with it.
	maxSegmentBytes = 64 << 10
	minSegmentBytes = 4 << 10 // a page
	shardSegments   = 16      // that a shard has at least, if pages allow
)

// New makes a cache of at most so many bytes, all of its memory included. The
// shards and the largest record (a segment: a sixteenth of a shard, from 4 KiB to
// 64 KiB) follow from the capacity and stay as they are when that is changed.
func New(capacity int64) *Cache {
	n := 1
	for n < maxShards && capacity/int64(2*n) >= minShardBytes {
		n *= 2
	}
	segment := capacity / int64(n) / shardSegments &^ (minSegmentBytes - 1)
	c := &Cache{
		shards: make([]shard, n), shift: uint(64 - bits.TrailingZeros(uint(n))),
		segmentBytes: int(min(max(segment, minSegmentBytes), maxSegmentBytes)),
	}
	c.SetCapacity(capacity)
	return c
}

func (c *Cache) shard(hash uint64) *shard { return &c.shards[hash>>c.shift] }

// SetCapacity changes how many bytes the cache may take. On return it takes no
// more. Too few for a few segments: it is empty until there are more.
func (c *Cache) SetCapacity(capacity int64) {
	if c == nil {
		return
	}
	c.capacity.Store(capacity)
	each := int(max(capacity, 0) / int64(len(c.shards)))
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.resizeLocked(each, c.segmentBytes, false)
		s.mu.Unlock()
	}
}

// Capacity is what SetCapacity was given last.
func (c *Cache) Capacity() int64 {
	if c == nil {
		return 0
	}
	return c.capacity.Load()
}

// Close gives the memory back. Nothing else may be running, nor follow.
func (c *Cache) Close() { c.SetCapacity(0) }

// Get gives the copy of a key. Its value is appended to dst, so that it is dst's
// memory where that suffices; its key is the argument.
func (c *Cache) Get(token uint64, key, dst []byte) (base.Record, bool) {
	if c == nil {
		return base.Record{}, false
	}
	hash := base.Mix(token)
	s := c.shard(hash)
	s.mu.RLock()
	r, ok := s.get(hash, token, key, dst)
	s.mu.RUnlock()
	if ok {
		s.hits.Add(1)
	} else {
		s.misses.Add(1)
	}
	return r, ok
}

// Update takes in a record that the tree shows from now on: it brings the copy of
// its key up to date or removes it. r is copied.
func (c *Cache) Update(r *base.Record) {
	if c == nil {
		return
	}
	hash := base.Mix(r.Token)
	s := c.shard(hash)
	// Before the copy is looked for: a fill that comes later then sees it, one
	// that came before left the copy.
	s.generation(hash).Add(1)
	if !s.filled.Load() {
		return
	}
	s.mu.Lock()
	s.updateLocked(hash, r)
	s.mu.Unlock()
}

// A Ticket says when a read began.
type Ticket struct{ generation, changes uint32 }

// Begin gives the ticket of a read of the token that begins now.
func (c *Cache) Begin(token uint64) Ticket {
	if c == nil {
		return Ticket{}
	}
	hash := base.Mix(token)
	return Ticket{changes: c.changes.Load(), generation: c.shard(hash).generation(hash).Load()}
}

// Fill takes in a copy of what a read found, unless that may be out of date: see
// the package comment. r is copied.
func (c *Cache) Fill(t Ticket, r *base.Record) {
	if c == nil || recordBytes(r) > c.segmentBytes {
		return
	}
	hash := base.Mix(r.Token)
	s := c.shard(hash)
	s.mu.Lock()
	if !s.filled.Load() { // before the generation is looked at: see Update
		s.filled.Store(true)
	}
	fresh := c.holds.Load() == 0 && c.changes.Load() == t.changes && s.generation(hash).Load() == t.generation
	if fresh {
		s.fillLocked(hash, r)
	}
	s.mu.Unlock()
	if !fresh {
		s.dropped.Add(1)
	}
}

// Hold makes every fill be dropped whose read has begun or begins before Release.
// Holds may overlap.
func (c *Cache) Hold() {
	if c != nil {
		c.holds.Add(1)
		c.changes.Add(1)
	}
}

// Release ends a Hold.
func (c *Cache) Release() {
	if c != nil {
		c.changes.Add(1)
		c.holds.Add(-1)
	}
}

// Forget removes the copies of all keys with the token. The caller holds.
func (c *Cache) Forget(token uint64) {
	if c == nil {
		return
	}
	hash := base.Mix(token)
	s := c.shard(hash)
	s.mu.Lock()
	s.forgetLocked(hash, token)
	s.mu.Unlock()
}

// ForgetRange removes the copies of all keys with tokens from lo to hi, both
// included. It visits every copy. The caller holds.
func (c *Cache) ForgetRange(lo, hi uint64) {
	if c == nil {
		return
	}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.forgetRangeLocked(lo, hi)
		s.mu.Unlock()
	}
}

// Stats are counts since New, and what is held now.
type Stats struct {
	Hits, Misses uint64
	Dropped      uint64 // fills that may have been out of date
	Records      int
	Bytes        int64 // of all memory, at most the capacity
}

// Stats gives a snapshot.
func (c *Cache) Stats() Stats {
	var t Stats
	if c == nil {
		return t
	}
	for i := range c.shards {
		s := &c.shards[i]
		t.Hits += s.hits.Load()
		t.Misses += s.misses.Load()
		t.Dropped += s.dropped.Load()
		s.mu.RLock()
		t.Records += s.mu.index.used
		t.Bytes += s.bytesLocked()
		s.mu.RUnlock()
	}
	return t
}
