package cache

import (
	"bytes"
	"sync"
	"sync/atomic"
	"unsafe"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/offheap"
)

const (
	// generations is how many counters of updates a shard has. A fill is dropped
	// in vain when one of the other tokens of its counter is written meanwhile.
	generations = 512
	// For each indexed word of 8 bytes there are this many bytes of segments, and
	// of ghosts: records that are smaller on average leave segments unused.
	wordBytes, ghostBytes, segmentShare = 8, 2, 80
	// minSegments is what a shard needs: one in each queue, and a free one.
	minSegments = 3
	// smallShare is the part of the segments that small is cut down to.
	smallShare = 10
	// spared is how many segments in a row one call drains without a gain before
	// it drops records that were used.
	spared = 3
	// maxTwins is how many records there may be with one tag. With tokens that are hashes
	// more of them mean that keys were chosen to collide: a search would visit them all.
	maxTwins = 8
	maxRef   = 1<<32 - 1
)

type shard struct {
	counters              [generations]atomic.Uint32
	hits, misses, dropped atomic.Uint64
	// filled says that there may be a copy: without one, writers need no lock.
	filled atomic.Bool

	// Readers share the lock; they change the uses in the index and nothing else.
	mu struct {
		sync.RWMutex
		share    int    // bytes that the shard may take
		memory   []byte // of index and ghosts; nil before the first record
		index    index
		ghosts   []uint32
		segments segments
		small    queue
		main     queue
	}
}

func (s *shard) generation(hash uint64) *atomic.Uint32 { return &s.counters[hash%generations] }

func (s *shard) bytesLocked() int64 {
	if s.mu.memory == nil {
		return 0
	}
	return int64(unsafe.Sizeof(*s)) + int64(len(s.mu.memory)) + int64(s.mu.segments.held*s.mu.segments.size)
}

// find gives the index's word for a key, or else how many other words have its tag. The
// lock is held, perhaps shared.
func (s *shard) find(hash, token uint64, key []byte) (i, twins int, ok bool) {
	x := &s.mu.index
	if x.used == 0 {
		return 0, 0, false
	}
	tag := tag(hash)
	for i = x.home(tag); ; i = x.after(i) {
		w := atomic.LoadUint64(&x.words[i])
		if w == 0 {
			return 0, twins, false
		}
		if w>>tagShift == tag {
			if r := record(s.mu.segments.at(ref(w))); r.Token == token && bytes.Equal(r.Key, key) {
				return i, 0, true
			}
			twins++
		}
	}
}

// get copies the record of a key. The lock is held, perhaps shared.
func (s *shard) get(hash, token uint64, key, dst []byte) (base.Record, bool) {
	i, _, ok := s.find(hash, token, key)
	if !ok {
		return base.Record{}, false
	}
	w := atomic.LoadUint64(&s.mu.index.words[i])
	s.mu.index.use(i, w)
	r := record(s.mu.segments.at(ref(w)))
	r.Key, r.Value = key, append(dst, r.Value...)[len(dst):]
	return r, true
}

// fillLocked adds a record unless its key is there, which it then is as new, or too many
// are with its tag.
func (s *shard) fillLocked(hash uint64, r *base.Record) {
	if s.mu.segments.limit == 0 {
		return
	}
	if s.mu.memory == nil {
		s.resizeLocked(s.mu.share, s.mu.segments.size, true)
	}
	if _, twins, held := s.find(hash, r.Token, r.Key); held || twins >= maxTwins {
		return
	}
	q := &s.mu.small
	if g := s.ghost(hash); *g == fingerprint(hash) {
		*g = 0
		q = &s.mu.main
	}
	s.addLocked(q, hash, 0, r)
}

// updateLocked brings the copy of r's key up to date. A plain record above the
// copy's dot takes its place; one below is in the copy already. Of anything else
// the join is not known here: the next read makes a new copy.
func (s *shard) updateLocked(hash uint64, r *base.Record) {
	i, _, held := s.find(hash, r.Token, r.Key)
	if !held {
		return
	}
	w := s.mu.index.words[i]
	b := s.mu.segments.at(ref(w))
	switch old := record(b); {
	case old.Kind == base.Causal || r.Kind == base.Causal, r.Max == old.Max && !same(r, &old):
		s.mu.index.remove(i)
	case !old.Max.Less(r.Max):
	case recordBytes(r) <= space(b):
		put(b[:space(b)], r)
	default:
		s.mu.index.remove(i)
		if recordBytes(r) <= s.mu.segments.size {
			s.addLocked(&s.mu.small, hash, usesOf(w), r)
		}
	}
}

func same(a, b *base.Record) bool {
	return a.Kind == b.Kind && a.Deadline == b.Deadline && bytes.Equal(a.Value, b.Value)
}

// addLocked appends a record, which fits into a segment, to a queue.
func (s *shard) addLocked(q *queue, hash, uses uint64, r *base.Record) {
	drained := 0
	for ; s.mu.index.full(); drained++ {
		s.drainLocked(drained >= spared)
	}
	n := (recordBytes(r) + unit - 1) &^ (unit - 1)
	b, at := s.mu.segments.room(q, n)
	for b == nil {
		if s.mu.segments.left() > 1 {
			q.order = append(q.order, s.mu.segments.take())
		} else {
			s.drainLocked(drained >= spared)
			drained++
		}
		b, at = s.mu.segments.room(q, n)
	}
	put(b, r)
	s.mu.index.add(word(tag(hash), uses, at))
}

// drainLocked frees the oldest segment of the queue that has too many, and with
// all everything in it; else what was used enough stays. There is a segment in
// a queue.
func (s *shard) drainLocked(all bool) {
	x, g := &s.mu.index, &s.mu.segments
	q, small := &s.mu.main, false
	if len(q.order) == 0 || len(s.mu.small.order) > g.limit/smallShare {
		q, small = &s.mu.small, true
	}
	number := q.pop()
	drained := g.all[number]
	for off := 0; off < drained.used; {
		b := drained.b[off : off+space(drained.b[off:])]
		hash := base.Mix(tokenOf(b))
		i, live := x.at(tag(hash), ref((number*g.size+off)/unit+1))
		off += len(b)
		if !live {
			continue
		}
		uses := usesOf(x.words[i])
		switch {
		case all, uses == 0:
			x.remove(i)
			if small {
				*s.ghost(hash) = fingerprint(hash)
			}
			continue
		case small:
			uses = 0
		default:
			uses--
		}
		x.words[i] = word(tag(hash), uses, s.keepLocked(b))
	}
	g.put(number)
}

// keepLocked appends a record of a segment that is being drained to main. What
// survives of one segment fits into another, and one is free.
func (s *shard) keepLocked(b []byte) ref {
	to, at := s.mu.segments.room(&s.mu.main, len(b))
	if to == nil {
		s.mu.main.order = append(s.mu.main.order, s.mu.segments.take())
		to, at = s.mu.segments.room(&s.mu.main, len(b))
	}
	copy(to, b)
	return at
}

// ghost gives the place of a hash among the ghosts.
func (s *shard) ghost(hash uint64) *uint32 {
	return &s.mu.ghosts[tag(hash)*uint64(len(s.mu.ghosts))>>tagBits]
}

func fingerprint(hash uint64) uint32 { return uint32(hash) | 1 }

// forgetLocked removes the records of all keys with the token.
func (s *shard) forgetLocked(hash, token uint64) {
	x := &s.mu.index
	if x.used == 0 {
		return
	}
	tag := tag(hash)
	for i := x.home(tag); x.words[i] != 0; {
		if w := x.words[i]; w>>tagShift == tag && tokenOf(s.mu.segments.at(ref(w))) == token {
			x.remove(i) // another word is at i now
		} else {
			i = x.after(i)
		}
	}
}

func (s *shard) forgetRangeLocked(lo, hi uint64) {
	x := &s.mu.index
	for i := 0; i < len(x.words); {
		w := x.words[i]
		if w == 0 {
			i++
			continue
		}
		if token := tokenOf(s.mu.segments.at(ref(w))); lo <= token && token <= hi {
			x.remove(i) // what is at i now comes from behind it, or was seen
		} else {
			i++
		}
	}
}

// resizeLocked gives the shard so many bytes. Without a record it takes none of
// them yet, unless one is about to come.
func (s *shard) resizeLocked(bytes, segmentBytes int, first bool) {
	x, g := &s.mu.index, &s.mu.segments
	words, memory, limit := shape(bytes, segmentBytes)
	s.mu.share, g.size, g.limit = bytes, segmentBytes, limit
	if s.mu.memory == nil && !first {
		return
	}
	if limit == 0 {
		// Nothing stays, so nothing need be looked up.
		g.free = append(g.free, append(s.mu.small.order, s.mu.main.order...)...)
		s.mu.small, s.mu.main, *x = queue{}, queue{}, index{}
	}
	for n := len(s.mu.small.order) + len(s.mu.main.order); n > max(limit-1, 0) || x.used > words-words/8; n-- {
		s.drainLocked(true)
	}
	g.trim()
	if memory == len(s.mu.memory) {
		return
	}
	old, oldWords := s.mu.memory, x.words
	s.mu.memory = offheap.Alloc(memory)
	*x = index{words: unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(s.mu.memory))), words)}
	s.mu.ghosts = nil
	if words > 0 {
		ghosts := s.mu.memory[words*wordBytes:]
		s.mu.ghosts = unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(ghosts))), len(ghosts)/4)
	}
	for _, w := range oldWords {
		if w != 0 {
			x.add(w)
		}
	}
	offheap.Free(old)
}

// shape divides the bytes of a shard into words of the index, the memory of index
// and ghosts, and segments: all 0 when that makes too few segments.
func shape(bytes, segmentBytes int) (words, memory, limit int) {
	const each = wordBytes + ghostBytes
	bytes -= int(unsafe.Sizeof(shard{}))
	memory = max(bytes*each/(each+segmentShare)&^(minSegmentBytes-1), minSegmentBytes)
	limit = min((bytes-memory)/segmentBytes, maxRef/(segmentBytes/unit))
	if limit < minSegments {
		return 0, 0, 0
	}
	return memory / each &^ 1, memory, limit
}
