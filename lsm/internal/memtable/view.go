package memtable

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"unsafe"

	"example.com/kvstore/lsm/internal/base"
)

// A View lists the records of a memtable at one instant, in (token, key) order.
type View struct {
	t     *Table
	items []item
	block []byte // where items are, from the pool; nil when they are on the Go heap
	sum   byte   // of what touch reads, so that it is read
}

// An item is a record's token and place: shard << 58 | ref.
type item struct{ token, at uint64 }

const shardShift = 58

// itemBytes is the size of an item.
const itemBytes = 16

// View lists the records with tokens from lo to hi, both included. All writers
// wait while it collects them; for one token only those of its shard do, and it
// does not look at the others. Close it.
func (t *Table) View(lo, hi uint64) *View {
	if lo == hi {
		return t.viewOne(lo)
	}
	n := 0
	for i := range t.shards {
		t.shards[i].mu.Lock()
		n += t.shards[i].mu.count
	}
	v := &View{t: t}
	if lo == 0 && hi == ^uint64(0) && n >= radixMin {
		v.block, v.items = t.items(n)
		v.items = v.items[:0]
	}
	for i := range t.shards {
		t.shards[i].collectLocked(lo, hi, func(token uint64, p ref) {
			v.items = append(v.items, item{token, uint64(i)<<shardShift | uint64(p)})
		})
		t.shards[i].mu.Unlock()
	}
	v.sort()
	return v
}

// viewOne is View for one token.
func (t *Table) viewOne(token uint64) *View {
	v := &View{t: t}
	i := t.shardOf(token)
	s := &t.shards[i]
	s.mu.Lock()
	s.collectTokenLocked(token, func(p ref) {
		v.items = append(v.items, item{token, uint64(i)<<shardShift | uint64(p)})
	})
	s.mu.Unlock()
	v.sort()
	return v
}

// At visits all records of a token, in any order.
func (t *Table) At(token uint64, visit func(r base.Record)) {
	if !t.some.Load() {
		return
	}
	s := t.shard(token)
	s.mu.Lock()
	defer s.mu.Unlock()
	slabs := *s.slabs.Load()
	s.collectTokenLocked(token, func(p ref) { visit(slabs.at(p)) })
}

// items gives room for n items, and the block from the pool that it is in.
func (t *Table) items(n int) ([]byte, []item) {
	size := t.o.Pool.PieceBytes()
	for size < n*itemBytes {
		size *= 2
	}
	block := t.o.Pool.Get(size)
	return block, unsafe.Slice((*item)(unsafe.Pointer(unsafe.SliceData(block))), n)
}

// Close gives the view's memory back. The view must not be used any more; what
// At gave is the memtable's.
func (v *View) Close() {
	v.items = nil
	if v.block != nil {
		v.t.o.Pool.Put(v.block)
		v.block = nil
	}
}

func (s *shard) collectLocked(lo, hi uint64, f func(token uint64, p ref)) {
	x := s.index.Load()
	for i := range x.slots {
		if p := ref(x.slots[i].ref.Load()); p != 0 {
			if token := x.slots[i].token.Load(); lo <= token && token <= hi {
				f(token, p)
			}
		}
	}
	x.over.all(func(token uint64, _ []byte, p ref) {
		if lo <= token && token <= hi {
			f(token, p)
		}
	})
}

// collectTokenLocked is collectLocked for one token. It probes as find does.
func (s *shard) collectTokenLocked(token uint64, f func(p ref)) {
	x := s.index.Load()
	mask := uint64(len(x.slots) - 1)
	for i, n := base.Mix(token), 0; n < maxProbe; i, n = i+1, n+1 {
		t := &x.slots[i&mask]
		p := ref(t.ref.Load())
		if p == 0 {
			return
		}
		if t.token.Load() == token {
			f(p)
		}
	}
	x.over.all(func(other uint64, _ []byte, p ref) {
		if other == token {
			f(p)
		}
	})
}

// Len is the number of records.
func (v *View) Len() int { return len(v.items) }

// Split gives two views that share v's records: those below token, and the others. Each
// is for one goroutine, and must not be used once v is closed.
func (v *View) Split(token uint64) (below, rest *View) {
	i, _ := slices.BinarySearchFunc(v.items, token, func(it item, token uint64) int { return cmp.Compare(it.token, token) })
	return &View{t: v.t, items: v.items[:i:i]}, &View{t: v.t, items: v.items[i:]}
}

// At gives the i-th record; its slices point into the memtable.
func (v *View) At(i int) base.Record {
	if i%touchItems == 0 {
		v.touch(v.items[i:min(i+touchItems, len(v.items))])
	}
	s, p := v.place(v.items[i])
	return s.at(p)
}

const (
	// touchItems is how many records are brought into the processor's caches
	// at once.
	touchItems = 16
	lineBytes  = 64
	touchLines = 3 // of each record
)

// touch reads a byte of each cache line of records that lie all over the memory,
// first where they begin and then the rest of them: the processor waits for all
// of them at once, not for one after the other. It keeps within the records,
// since writers may be at work behind them.
func (v *View) touch(items []item) {
	for _, it := range items {
		s, p := v.place(it)
		v.sum += s[p.slab()][p.off()]
	}
	for _, it := range items {
		s, p := v.place(it)
		b := s[p.slab()][p.off():]
		n := headerBytes + int(binary.LittleEndian.Uint32(b[24:])) + int(binary.LittleEndian.Uint16(b[28:]))
		for at := lineBytes; at < min(n, touchLines*lineBytes); at += lineBytes {
			v.sum += b[at]
		}
	}
}

func (v *View) place(it item) (slabs, ref) {
	return *v.t.shards[it.at>>shardShift].slabs.Load(), ref(it.at & (1<<shardShift - 1))
}

const (
	radixBits  = 11
	radixSteps = 4
	radixSize  = 1 << radixBits
	// Below this many items a comparison sort is as fast.
	radixMin = 512
)

// sort orders the items by token with a radix sort over the top 44 bits, and
// then the runs of items that agree on those by comparison.
func (v *View) sort() {
	if len(v.items) < radixMin {
		slices.SortFunc(v.items, v.compare)
		return
	}
	block, to := v.t.items(len(v.items))
	defer func() { v.t.o.Pool.Put(block) }()
	from := v.items
	for step := range radixSteps {
		shift := 64 - radixBits*(radixSteps-step)
		var at [radixSize]int
		for _, it := range from {
			at[it.token>>shift&(radixSize-1)]++
		}
		sum := 0
		for i, n := range at {
			at[i] = sum
			sum += n
		}
		for _, it := range from {
			d := it.token >> shift & (radixSize - 1)
			to[at[d]] = it
			at[d]++
		}
		from, to = to, from
	}
	// After an even number of steps the items are where they were.
	const low = 64 - radixBits*radixSteps
	for i := 0; i < len(from); {
		j := i + 1
		for j < len(from) && from[j].token>>low == from[i].token>>low {
			j++
		}
		if j > i+1 {
			slices.SortFunc(from[i:j], v.compare)
		}
		i = j
	}
}

func (v *View) compare(a, b item) int {
	if a.token != b.token {
		return cmp.Compare(a.token, b.token)
	}
	s, p := v.place(a)
	_, x := s.key(p)
	s, p = v.place(b)
	_, y := s.key(p)
	return bytes.Compare(x, y)
}
