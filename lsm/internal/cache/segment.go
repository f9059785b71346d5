package cache

import (
	"encoding/binary"
	"slices"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/offheap"
)

// A ref is the place of a record: segment number × segment size + offset, in
// units of 8 bytes, and 1.
type ref uint32

const unit = 8

// A record in a segment:
//
//	token u64 | max dot | units u16 | key length u16 | value length u16 | flags u8 | 0 u8 |
//	[min dot] | [deadline i64] | key | value | unused
//
// The flags, and which optional parts there are, are those of base.Record.Flags.
// The units say where the next record begins.
const headerBytes = 32

func recordBytes(r *base.Record) int {
	n := headerBytes + len(r.Key) + len(r.Value)
	if r.Min != r.Max {
		n += 16
	}
	if r.Deadline != 0 {
		n += 8
	}
	return n
}

// put writes r into b, all of which is the record's from now on.
func put(b []byte, r *base.Record) {
	binary.LittleEndian.PutUint64(b, r.Token)
	binary.LittleEndian.PutUint64(b[8:], r.Max.Stamp)
	binary.LittleEndian.PutUint64(b[16:], r.Max.Actor)
	binary.LittleEndian.PutUint16(b[24:], uint16(len(b)/unit))
	binary.LittleEndian.PutUint16(b[26:], uint16(len(r.Key)))
	binary.LittleEndian.PutUint16(b[28:], uint16(len(r.Value)))
	b[30] = r.Flags()
	b = b[headerBytes:]
	if r.Min != r.Max {
		binary.LittleEndian.PutUint64(b, r.Min.Stamp)
		binary.LittleEndian.PutUint64(b[8:], r.Min.Actor)
		b = b[16:]
	}
	if r.Deadline != 0 {
		binary.LittleEndian.PutUint64(b, uint64(r.Deadline))
		b = b[8:]
	}
	copy(b[copy(b, r.Key):], r.Value)
}

// record gives the record at the start of b, which it aliases.
func record(b []byte) base.Record {
	flags := b[30]
	r := base.Record{Token: binary.LittleEndian.Uint64(b), Max: base.Dot(b[8:]), Kind: base.Kind(flags & base.FlagKind)}
	klen, vlen := int(binary.LittleEndian.Uint16(b[26:])), int(binary.LittleEndian.Uint16(b[28:]))
	b = b[headerBytes:]
	r.Min = r.Max
	if flags&base.FlagRange != 0 {
		r.Min, b = base.Dot(b), b[16:]
	}
	if flags&base.FlagDeadline != 0 {
		r.Deadline, b = int64(binary.LittleEndian.Uint64(b)), b[8:]
	}
	r.Key, r.Value = b[:klen:klen], b[klen:klen+vlen:klen+vlen]
	return r
}

func tokenOf(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// space is how many bytes the record at the start of b takes.
func space(b []byte) int { return unit * int(binary.LittleEndian.Uint16(b[24:])) }

// A segment holds records one after another.
type segment struct {
	b     []byte // nil: not held
	used  int
	chunk int // of which it is a part, and where; -1: of none
	at    int
}

// A chunk is memory of several segments, a huge page where a shard has room for it.
type chunk struct {
	memory []byte // nil: given back
	held   int    // segments
}

// segments are the memory of a shard's records.
//
// Invariant: at least one is free, so that what survives in one that is drained
// has a place.
type segments struct {
	all    []segment
	chunks []chunk
	size   int   // of each
	limit  int   // how many may be held
	held   int   // how many are
	free   []int // held, and in no queue
}

// left is how many may be taken.
func (g *segments) left() int { return len(g.free) + g.limit - g.held }

// take gives a free one.
func (g *segments) take() int {
	if len(g.free) == 0 {
		g.grow()
	}
	n := len(g.free) - 1
	i := g.free[n]
	g.free = g.free[:n]
	return i
}

// grow holds one more, or a chunk of them.
func (g *segments) grow() {
	for i := range g.all {
		if s := &g.all[i]; s.b == nil && s.chunk >= 0 {
			g.hold(i)
			return
		}
	}
	n := 1
	if g.limit*g.size >= offheap.HugeBytes {
		n = min(offheap.HugeBytes/g.size, g.limit-g.held)
	}
	c := slices.IndexFunc(g.chunks, func(c chunk) bool { return c.memory == nil })
	if c < 0 {
		c = len(g.chunks)
		g.chunks = append(g.chunks, chunk{})
	}
	g.chunks[c].memory = offheap.Alloc(n * g.size)
	i := 0
	for at := range n {
		for i < len(g.all) && g.all[i].b != nil {
			i++
		}
		if i == len(g.all) {
			g.all = append(g.all, segment{})
		}
		g.all[i] = segment{chunk: c, at: at * g.size}
		g.hold(i)
	}
}

// hold makes a segment of a chunk free for use.
func (g *segments) hold(i int) {
	s := &g.all[i]
	c := &g.chunks[s.chunk]
	s.b = c.memory[s.at : s.at+g.size : s.at+g.size]
	c.held++
	g.held++
	g.free = append(g.free, i)
}

// put gives one back that is in no queue any more.
func (g *segments) put(i int) {
	g.all[i].used = 0
	g.free = append(g.free, i)
}

// trim gives memory above the limit back to the system. There are as many free. Whole
// chunks go first: a part of one costs the huge page that it is in.
func (g *segments) trim() {
	if g.held <= g.limit {
		return
	}
	free := make([]int, len(g.chunks))
	for _, i := range g.free {
		free[g.all[i].chunk]++
	}
	g.free = slices.DeleteFunc(g.free, func(i int) bool {
		k := g.all[i].chunk
		if k < 0 {
			return true // released with another one
		}
		held := g.chunks[k].held
		if free[k] < held || g.held-held < g.limit {
			return false
		}
		g.held -= held
		g.release(k)
		return true
	})
	for g.held > g.limit {
		n := len(g.free) - 1
		s := &g.all[g.free[n]]
		g.free = g.free[:n]
		g.held--
		part := s.b
		s.b, s.used = nil, 0
		if c := &g.chunks[s.chunk]; c.held > 1 {
			c.held--
			offheap.Discard(part)
		} else {
			g.release(s.chunk)
		}
	}
}

// release frees a chunk, of which no segment is in use.
func (g *segments) release(k int) {
	offheap.Free(g.chunks[k].memory)
	g.chunks[k] = chunk{}
	for i := range g.all {
		if g.all[i].chunk == k {
			g.all[i] = segment{chunk: -1}
		}
	}
}

// at gives the bytes from a record on.
func (g *segments) at(r ref) []byte {
	off := (int(r) - 1) * unit
	return g.all[off/g.size].b[off%g.size:]
}

// A queue is a ring of segments, oldest first.
type queue struct{ order []int }

func (q *queue) pop() int {
	i := q.order[0]
	q.order = q.order[:copy(q.order, q.order[1:])]
	return i
}

// room gives n bytes at the end of the queue, nil when its last segment has none.
func (g *segments) room(q *queue, n int) ([]byte, ref) {
	if len(q.order) == 0 {
		return nil, 0
	}
	i := q.order[len(q.order)-1]
	s := &g.all[i]
	if s.used+n > g.size {
		return nil, 0
	}
	off := s.used
	s.used += n
	return s.b[off:s.used:s.used], ref((i*g.size+off)/unit + 1)
}
