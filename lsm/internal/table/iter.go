package table

import "example.com/kvstore/lsm/internal/base"

const (
	firstReadBytes   = 16 << 10  // of an iterator's first read
	largestReadBytes = 256 << 10 // reads double up to this
)

// Iter gives the records of a range of tokens in (token, key) order. It reads
// several blocks at once, more the longer it runs. It is not safe for
// concurrent use.
type Iter struct {
	r      *Reader
	lo, hi uint64
	rec    base.Record
	err    error

	next, end int // blocks: the one after the current, the one after the last
	block     block
	at        place // of the record of the block that comes next

	window  []byte // stored bytes of the blocks up to ahead
	from    uint64 // offset of the window
	ahead   int
	read    int // size of the next read
	scratch Scratch
}

// Iter iterates over the tokens from lo to hi, both included.
func (r *Reader) Iter(lo, hi uint64) *Iter {
	it := &Iter{r: r, lo: lo, hi: hi, read: firstReadBytes}
	if lo > hi || lo > r.meta.MaxToken {
		return it
	}
	first, _ := r.index.blocks(lo)
	_, last := r.index.blocks(hi)
	it.next, it.ahead, it.end = first, first, last+1
	return it
}

// Next moves to the next record. False: there is none, or Err tells why.
func (it *Iter) Next() bool {
	for it.err == nil {
		if it.at.i < it.block.n {
			if !it.block.record(it.at, it.r.actors, &it.rec) {
				it.err = it.r.malformed(it.next - 1)
				return false
			}
			it.at = it.block.next(it.at)
			if it.rec.Token > it.hi {
				it.end, it.block.n = 0, 0
				return false
			}
			return true
		}
		if it.next >= it.end {
			return false
		}
		it.load()
	}
	return false
}

// load makes block next the current one.
func (it *Iter) load() {
	x := &it.r.index
	if it.next >= it.ahead {
		it.from, it.ahead = x.offset[it.next], it.next+1
		for it.ahead < it.end && x.offset[it.ahead+1]-it.from <= uint64(it.read) {
			it.ahead++
		}
		it.read = min(2*it.read, largestReadBytes)
		it.window = resize(it.window, int(x.offset[it.ahead]-it.from))
		if it.err = ReadAt(it.r.f, it.r.name, it.window, int64(it.from)); it.err != nil {
			return
		}
	}
	stored := it.window[x.offset[it.next]-it.from : x.offset[it.next+1]-it.from]
	if it.block, it.err = it.r.unpack(it.next, stored, &it.scratch); it.err != nil {
		return
	}
	it.next++
	it.at = place{}
	if it.block.first < it.lo {
		var ok bool
		if it.at, _, ok = it.block.search(it.lo, nil); !ok {
			it.err = it.r.malformed(it.next - 1)
		}
	}
}

// Record is the current record. It, and what its slices point to, is valid
// until Next.
func (it *Iter) Record() *base.Record { return &it.rec }

// Err is the error that ended the iteration, nil at its natural end.
func (it *Iter) Err() error { return it.err }

// Close ends the iteration and lets its memory go. It gives Err.
func (it *Iter) Close() error {
	it.end, it.block, it.window, it.scratch = 0, block{}, nil, Scratch{}
	it.next = 0
	return it.err
}
