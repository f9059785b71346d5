package memtable

import (
	"bytes"
	"sync"
	"sync/atomic"
	"unsafe"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/vclock"
)

const (
	firstSlots = 16
	slotBytes  = 16
	// maxProbe bounds the slots that one lookup looks at. At 60 % full most find
	// theirs among the first four; 32 are rarely all taken.
	maxProbe = 32
)

// A slot is free while its ref is 0. Its token is set before its ref.
type slot struct {
	token, ref atomic.Uint64
}

// An index finds refs. It is replaced as a whole when it grows. The memory of
// the slots is the arena's: readers may be in those of an index that was replaced.
//
// Invariant: slots are never freed, and a key is in the overflow only if all
// slots it could use are taken. So a free slot ends a search.
type index struct {
	slots []slot // a power of two
	over  *overflow
}

type shard struct {
	// What readers use. Invariant: slabs hold what index refers to; so readers
	// load index first, writers store slabs first.
	index atomic.Pointer[index]
	slabs atomic.Pointer[slabs]

	mu struct {
		sync.Mutex
		used  int        // slots taken
		room  int        // bytes free in the last slab
		count int        // keys
		top   vclock.Dot // the highest ever applied
	}
	slabBytes int
	arena     *arena   // of the whole memtable
	_         [64]byte // shards are locked by different cores
}

func (s *shard) init(slabBytes, slots int, a *arena) {
	s.slabBytes, s.arena = slabBytes, a
	s.index.Store(newIndex(a, slots))
	s.slabs.Store(&slabs{})
}

// free makes a use of the shard after it panic.
func (s *shard) free() {
	s.index.Store(nil)
	s.slabs.Store(nil)
}

func newIndex(a *arena, slots int) *index {
	b := a.alloc(slots * slotBytes)
	clear(b)
	return &index{slots: unsafe.Slice((*slot)(unsafe.Pointer(unsafe.SliceData(b))), slots), over: newOverflow()}
}

// crowded reports whether a key more is too many for so many slots.
func crowded(used, slots int) bool { return 5*used >= 3*slots }

// find gives the ref of a key, 0 when there is none.
func (s *shard) find(token uint64, key []byte) (slabs, ref) {
	x := s.index.Load()
	mask := uint64(len(x.slots) - 1)
	for i, n := base.Mix(token), 0; n < maxProbe; i, n = i+1, n+1 {
		t := &x.slots[i&mask]
		p := ref(t.ref.Load())
		if p == 0 {
			return nil, 0
		}
		if t.token.Load() != token {
			continue
		}
		m := *s.slabs.Load()
		if _, k := m.key(p); bytes.Equal(k, key) {
			return m, p
		}
	}
	if n := x.over.find(token, key, nil); n != nil {
		p := ref(n.ref.Load())
		return *s.slabs.Load(), p
	}
	return nil, 0
}

// writeLocked copies r into a slab.
func (s *shard) writeLocked(r *base.Record) ref {
	n := recordBytes(r)
	all := *s.slabs.Load()
	if s.mu.room < n {
		// A record that is larger than a slab gets one of its own.
		grown := append(all[:len(all):len(all)], s.arena.alloc(max(n, s.slabBytes)))
		s.mu.room = len(grown[len(grown)-1])
		s.slabs.Store(&grown)
		all = grown
	}
	last := len(all) - 1
	off := len(all[last]) - s.mu.room
	put(all[last][off:off+n], r)
	s.mu.room -= min((n+7)&^7, s.mu.room)
	return makeRef(last, off)
}

// setLocked points the key of the record at p to it.
func (s *shard) setLocked(p ref) {
	x := s.index.Load()
	if crowded(s.mu.used, len(x.slots)) {
		x = s.growLocked(x)
	}
	m := *s.slabs.Load()
	token, key := m.key(p)
	nodes := x.over.n
	if x.set(m, token, key, p) {
		s.mu.used++
	} else if x.over.n > nodes {
		s.arena.note(nodeBytes)
	}
}

// set points a key to p and reports whether that took a free slot.
func (x *index) set(m slabs, token uint64, key []byte, p ref) bool {
	mask := uint64(len(x.slots) - 1)
	for i, n := base.Mix(token), 0; n < maxProbe; i, n = i+1, n+1 {
		t := &x.slots[i&mask]
		old := ref(t.ref.Load())
		if old == 0 {
			t.token.Store(token)
			t.ref.Store(uint64(p))
			return true
		}
		if t.token.Load() != token {
			continue
		}
		if _, k := m.key(old); bytes.Equal(k, key) {
			t.ref.Store(uint64(p))
			return false
		}
	}
	x.over.set(token, key, p)
	return false
}

// growLocked publishes an index of twice the size.
func (s *shard) growLocked(old *index) *index {
	x := newIndex(s.arena, 2*len(old.slots))
	m := *s.slabs.Load()
	s.mu.used = 0
	move := func(token uint64, key []byte, p ref) {
		if x.set(m, token, key, p) {
			s.mu.used++
		}
	}
	for i := range old.slots {
		if p := ref(old.slots[i].ref.Load()); p != 0 {
			token, key := m.key(p)
			move(token, key, p)
		}
	}
	old.over.all(move)
	s.index.Store(x)
	return x
}
