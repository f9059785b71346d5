package table

import (
	"encoding/binary"
	"fmt"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/offheap"
	"example.com/kvstore/lsm/vfs"
)

// A Reader reads a table. It holds the index and the filter in memory, off the
// Go heap, and reads blocks with ReadAt; nothing it gives out is unverified. It
// is safe for concurrent use.
type Reader struct {
	f      vfs.File
	name   string
	meta   Meta
	foot   footer
	filter filter
	index  index
	actors []uint64
	around *around // nil: nothing is read around blocks
}

// ReadAround has the first Get that reads in a stretch of the file bring all of it
// into memory, each time that allowed says yes. It is for the Reader's owner, before
// the first Get.
func (r *Reader) ReadAround(allowed func() bool) { r.around = newAround(r.meta.Bytes, allowed) }

// Open opens the table that m describes, with which the file must agree. The
// Reader owns f from then on; after an error f is still the caller's.
func Open(f vfs.File, m Meta) (*Reader, error) {
	r := &Reader{f: f, name: base.TableName(m.ID), meta: m}
	found, actors, foot, err := readMeta(f, m.ID)
	if err != nil {
		return nil, err
	}
	if found != m {
		return nil, base.Corrupt(r.name, int64(foot.properties), fmt.Sprintf("the table of the manifest, %+v", m), fmt.Sprintf("%+v", found))
	}
	r.foot, r.actors = foot, actors
	err = r.readFilter()
	if err == nil {
		err = r.readIndex()
	}
	if err != nil {
		r.free()
		return nil, err
	}
	return r, nil
}

func (r *Reader) readFilter() error {
	b, err := readSection(r.f, r.meta.ID, r.foot.filter, r.foot.index)
	if err != nil {
		return err
	}
	defer offheap.Free(b)
	var known, ok bool
	if r.filter, known, ok = decodeFilter(b); !known {
		return fmt.Errorf("%w: %s has filter scheme %d", base.ErrIncompatible, r.name, b[0])
	} else if !ok {
		return base.Corrupt(r.name, int64(r.foot.filter), "a filter", "something else")
	}
	return nil
}

func (r *Reader) readIndex() error {
	b, err := readSection(r.f, r.meta.ID, r.foot.index, r.foot.properties)
	if err != nil {
		return err
	}
	defer offheap.Free(b)
	var ok bool
	if r.index, ok = decodeIndex(b, r.foot.filter); !ok || (r.meta.Count == 0) != (len(r.index.first) == 0) {
		return base.Corrupt(r.name, int64(r.foot.index), "an index of blocks that end at the filter", "something else")
	}
	return nil
}

func (r *Reader) free() {
	r.filter.free()
	r.index.free()
}

// readMeta gives the Meta of the table with file number id from the file alone.
// It reads only the properties; Verify checks the rest.
func readMeta(f vfs.File, id uint64) (Meta, []uint64, footer, error) {
	foot, err := readFooter(f, id)
	if err != nil {
		return Meta{}, nil, footer{}, err
	}
	b, err := readSection(f, id, foot.properties, foot.at)
	if err != nil {
		return Meta{}, nil, footer{}, err
	}
	defer offheap.Free(b)
	m, actors, ok := decodeProperties(b)
	if !ok || m.ID != id {
		return Meta{}, nil, footer{}, base.Corrupt(base.TableName(id), int64(foot.properties), fmt.Sprintf("properties of table %d", id), "something else")
	}
	m.Bytes, m.Hash = foot.at+footerBytes, foot.hash
	return m, actors, foot, nil
}

// Meta describes the table.
func (r *Reader) Meta() Meta { return r.meta }

// readerBytes is about what a Reader holds on the Go heap, with its open file.
const readerBytes = 1 << 10

// MemoryBytes is what the Reader holds in memory, mostly index and filter. To
// give it back, close the Reader and open the table again when needed.
func (r *Reader) MemoryBytes() int {
	return readerBytes + r.index.memoryBytes() + r.filter.memoryBytes() + 8*len(r.actors)
}

// MayContain is false when no record of the table has the token. A false
// positive is as likely as the filter's bits a key make it.
func (r *Reader) MayContain(token uint64) bool {
	return token >= r.meta.MinToken && token <= r.meta.MaxToken && r.filter.mayContain(token)
}

// Close closes the file and frees the memory of index and filter. Nobody may use
// the Reader any more, nor an Iter of it.
func (r *Reader) Close() error {
	r.free()
	return r.f.Close()
}

// scratchBytes is what a Scratch keeps; memory of a larger block is let go when
// the next smaller one is read.
const scratchBytes = 256 << 10

// Scratch is the memory of a Get. The zero value is ready; one Get uses it at a
// time. Once it has grown to the size of a block, Get does not allocate.
type Scratch struct {
	stored, content []byte
}

func resize(b []byte, n int) []byte {
	if n > cap(b) || (cap(b) > scratchBytes && n <= scratchBytes) {
		return make([]byte, n, max(n, 2*defaultBlockBytes))
	}
	return b[:n]
}

// Get gives the record of (token, key). Its slices lie in the Scratch and are
// valid until that is used again. It does not ask the filter: MayContain first.
// Damage is a *base.CorruptError, never an absent record.
func (r *Reader) Get(token uint64, key []byte, s *Scratch) (base.Record, bool, error) {
	if token > r.meta.MaxToken {
		return base.Record{}, false, nil
	}
	lo, hi := r.index.blocks(token)
	if hi < lo {
		return base.Record{}, false, nil
	}
	var b block
	loaded := -1
	for lo < hi { // chosen keys only: a token that goes on over blocks
		mid := int(uint(lo+hi+1) >> 1)
		var err error
		if b, err = r.load(mid, s); err != nil {
			return base.Record{}, false, err
		}
		loaded = mid
		c, ok := b.compare(place{}, token, key)
		switch {
		case !ok:
			return base.Record{}, false, r.malformed(mid)
		case c <= 0:
			lo = mid
		default:
			hi = mid - 1
		}
	}
	if loaded != lo {
		var err error
		if b, err = r.load(lo, s); err != nil {
			return base.Record{}, false, err
		}
	}
	var rec base.Record
	p, found, ok := b.search(token, key)
	if !ok || found && !b.record(p, r.actors, &rec) {
		return base.Record{}, false, r.malformed(lo)
	}
	return rec, found, nil
}

// load reads block i into the Scratch.
func (r *Reader) load(i int, s *Scratch) (block, error) {
	from, to := r.index.offset[i], r.index.offset[i+1]
	s.stored = resize(s.stored, int(to-from)) // at most maxStoredBytes, and within the file
	if r.around != nil {
		r.around.touch(r.f, from)
	}
	if err := ReadAt(r.f, r.name, s.stored, int64(from)); err != nil {
		return block{}, err
	}
	return r.unpack(i, s.stored, s)
}

// unpack verifies, decompresses and parses block i.
func (r *Reader) unpack(i int, stored []byte, s *Scratch) (block, error) {
	off, n := int64(r.index.offset[i]), len(stored)-4
	if want, found := base.Checksum(r.meta.ID, off, stored[:n]), binary.LittleEndian.Uint32(stored[n:]); want != found && base.Defences.BlockChecksum {
		return block{}, base.Corrupt(r.name, off, want, found)
	}
	kind := stored[n-1]
	content, memory, known, ok := decompress(stored[:n-1], kind, s.content)
	s.content = memory
	switch {
	case !known:
		return block{}, fmt.Errorf("%w: %s has compression %d at offset %d", base.ErrIncompatible, r.name, kind, off)
	case !ok:
		return block{}, r.malformed(i)
	}
	b, ok := parseBlock(content, r.index.first[i])
	if !ok || b.slot(0) != 0 {
		return block{}, r.malformed(i)
	}
	return b, nil
}

// malformed says that block i passes its checksum and still is no block of
// records.
func (r *Reader) malformed(i int) error {
	return base.Corrupt(r.name, int64(r.index.offset[i]), "a block of records", "something else")
}
