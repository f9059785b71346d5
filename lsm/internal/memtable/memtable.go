package memtable

import (
	"bytes"
	"sync/atomic"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/offheap"
	"example.com/kvstore/vclock"
)

// MaxShards bounds Options.Shards.
const MaxShards = 64

// Slabs are this large unless the memtable itself is small.
const (
	maxSlabBytes = 256 << 10
	minSlabBytes = 512
)

// indexShare bounds what an index takes before anything is in it: this part of
// the memtable.
const indexShare = 4

// Options shape a memtable.
type Options struct {
	// Shards is the number of locks, a power of two up to MaxShards.
	Shards int
	// Bytes is when Full begins to say so.
	Bytes int64
	// Keys is how many there may be, say those of the memtable before: then the
	// index need not grow. 0: unknown.
	Keys int
	// Pool is where the memory comes from.
	Pool *offheap.Pool
	// Join joins two records of one key of which one is causal or whose dots
	// are equal. It is called without a lock and must not keep its arguments.
	Join func(a, b base.Record) base.Record
}

// A Table is a memtable. All methods are for any goroutine.
//
// Its records lie outside the Go heap. Invariant: whoever calls Get, Apply or
// View, or holds what they gave, sees to it that Free was not called yet.
type Table struct {
	o      Options
	shift  uint
	shards []shard
	some   atomic.Bool // there may be a record; set before the first is published
	arena  arena

	writers atomic.Int64
	sealed  atomic.Bool
}

// New returns an empty memtable.
func New(o Options) *Table {
	t := &Table{o: o, shards: make([]shard, o.Shards), arena: arena{pool: o.Pool}}
	t.shift = 64
	for n := o.Shards; n > 1; n /= 2 {
		t.shift--
	}
	slab := int(min(max(o.Bytes/256, minSlabBytes), maxSlabBytes)) &^ 7
	slots := firstSlots
	for most := int(o.Bytes) / indexShare / o.Shards / slotBytes; crowded(o.Keys/o.Shards, slots) && 2*slots <= most; {
		slots *= 2
	}
	for i := range t.shards {
		t.shards[i].init(slab, slots, &t.arena)
	}
	return t
}

// Free gives the memory back.
func (t *Table) Free() {
	for i := range t.shards {
		t.shards[i].free()
	}
	t.arena.free()
}

func (t *Table) shard(token uint64) *shard { return &t.shards[t.shardOf(token)] }

func (t *Table) shardOf(token uint64) uint64 { return base.Mix(token) >> t.shift }

// Get gives the record of a key; its slices point into the memtable, and do not
// change until Free.
func (t *Table) Get(token uint64, key []byte) (base.Record, bool) {
	if !t.some.Load() {
		return base.Record{}, false // and no line of an index that is empty
	}
	m, p := t.shard(token).find(token, key)
	if p == 0 {
		return base.Record{}, false
	}
	return m.at(p), true
}

// Apply joins a copy of r into the memtable. It returns the highest dot held
// for the key before, if that is above r's own.
func (t *Table) Apply(r *base.Record) (newer vclock.Dot) {
	if !t.some.Load() {
		t.some.Store(true)
	}
	s := t.shard(r.Token)
	s.mu.Lock()
	if s.mu.top.Less(r.Max) {
		s.mu.top = r.Max
	}
	for {
		m, p := s.find(r.Token, r.Key)
		if p == 0 {
			s.setLocked(s.writeLocked(r))
			s.mu.count++
			break
		}
		old := m.at(p)
		if r.Max.Less(old.Max) {
			newer = old.Max
		}
		if old.Kind != base.Causal && r.Kind != base.Causal && old.Max != r.Max {
			if newer.IsZero() {
				s.setLocked(s.writeLocked(r))
			}
			break
		}
		s.mu.Unlock()
		j := t.o.Join(old, *r)
		if same(&j, &old) {
			return newer
		}
		s.mu.Lock()
		if _, now := s.find(r.Token, r.Key); now == p {
			s.setLocked(s.writeLocked(&j))
			break
		}
	}
	s.mu.Unlock()
	return newer
}

func same(a, b *base.Record) bool {
	return a.Kind == b.Kind && a.Max == b.Max && a.Min == b.Min && a.Deadline == b.Deadline && bytes.Equal(a.Value, b.Value)
}

// Bytes is the memory held.
func (t *Table) Bytes() int64 { return t.arena.bytes.Load() }

// Full reports whether the memtable has reached its size.
func (t *Table) Full() bool { return t.arena.bytes.Load() >= t.o.Bytes }

// Count is the number of keys.
func (t *Table) Count() int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += s.mu.count
		s.mu.Unlock()
	}
	return n
}

// Top is the highest dot of any record that was applied: no record here has one
// above it.
func (t *Table) Top() (top vclock.Dot) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		if top.Less(s.mu.top) {
			top = s.mu.top
		}
		s.mu.Unlock()
	}
	return top
}

// Enter announces a writer that will call Apply and then Leave. It reports false
// once the memtable is sealed: the writer goes to the next one.
func (t *Table) Enter() bool {
	t.writers.Add(1)
	return !t.sealed.Load()
}

// Leave ends what Enter began, whatever that reported. It reports whether the
// memtable is sealed and this was the last writer.
func (t *Table) Leave() bool { return t.writers.Add(-1) == 0 && t.sealed.Load() }

// Seal keeps further writers out.
func (t *Table) Seal() { t.sealed.Store(true) }

// Quiet reports whether the memtable is sealed and all writers have left, so
// that it never changes again.
func (t *Table) Quiet() bool { return t.sealed.Load() && t.writers.Load() == 0 }
