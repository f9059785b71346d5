package table

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/offheap"
	"example.com/kvstore/lsm/vfs"
)

const (
	blockTrailerBytes = 5 // compression u8, checksum u32
	maxStoredBytes    = maxBlockBytes + blockTrailerBytes
)

const (
	defaultBlockBytes = 4 << 10
	minBlockBytes     = 256
	largestBlockBytes = 32 << 10
	defaultBitsPerKey = 10
	maxBitsPerKey     = 64

	writeBytes       = 256 << 10 // of one write
	writeBackBytes   = 1 << 20   // of what is on its way to the disk at a time
	recordExtraBytes = 16        // that a plain record takes beyond key and value
)

// WriterOptions are settings; the zero value is the default.
type WriterOptions struct {
	Compression Compression
	// BlockBytes is the size that a block is filled up to before compression,
	// 256 B to 32 KiB; 0: 4 KiB. Doubling it costs a read 0.2 to 0.7 us and saves
	// little space.
	BlockBytes int
	// BitsPerKey of the filter, at most 64; the rate of false positives is about
	// 0.62 to its power. 0: 10 bits, 0.8 %. Negative: no filter.
	BitsPerKey float64
	// Memory is where tokens are gathered for the filter; nil: anywhere.
	Memory *offheap.Pool
}

func (o WriterOptions) blockBytes() int {
	if o.BlockBytes == 0 {
		return defaultBlockBytes
	}
	return min(max(o.BlockBytes, minBlockBytes), largestBlockBytes)
}

func (o WriterOptions) bitsPerKey() float64 {
	if o.BitsPerKey == 0 {
		return defaultBitsPerKey
	}
	return min(max(o.BitsPerKey, 0), maxBitsPerKey)
}

// A Writer builds a table in one pass. Between writes it holds one block, a
// write buffer, 8 bytes a record for the filter and about 10 bytes a block for
// the index. It is not safe for concurrent use. After an error it gives that
// error for ever, and the file is to be removed. Finish gives its memory back, or
// else Close does.
type Writer struct {
	f    vfs.File
	name string
	o    WriterOptions
	meta Meta
	err  error

	buf     []byte // not yet written
	off     uint64 // where buf goes
	started uint64 // up to which write-back was begun
	hash    *xxhash.Digest

	block    blockWriter
	packed   []byte // memory for compression
	lastKey  []byte // of the last record; its token is meta.MaxToken
	tokens   tokens
	blocks   uint64
	first    uint64 // first token of the last block
	index    []byte // entries
	actors   dictionary
	finished bool
}

var errFinished = errors.New("table: the writer is finished")

// NewWriter starts a table in f, which is empty and stays the caller's to
// close. id is the file number.
func NewWriter(f vfs.File, id uint64, o WriterOptions) *Writer {
	w := &Writer{f: f, name: base.TableName(id), o: o, meta: Meta{ID: id}, hash: xxhash.New(), tokens: tokens{pool: o.Memory}}
	w.buf = base.AppendHeader(make([]byte, 0, writeBytes+2*o.blockBytes()), base.TableMagic, base.Header{Version: formatVersion, Number: id})
	return w
}

// Add appends a record, which must be strictly above the last one by (token,
// key). It copies what it needs.
func (w *Writer) Add(r *base.Record) error {
	switch {
	case w.err != nil:
		return w.err
	case w.finished:
		return errFinished
	case w.meta.Count > 0 && r.Compare(w.meta.MaxToken, w.lastKey) <= 0:
		return w.fail(fmt.Errorf("table: record out of order: token %016x after %016x", r.Token, w.meta.MaxToken))
	case len(r.Key) > base.MaxKeyBytes || len(r.Value) > base.MaxValueBytes:
		return w.fail(fmt.Errorf("table: record too large: key of %d, value of %d bytes", len(r.Key), len(r.Value)))
	case r.Kind == 0 || r.Kind > base.Causal:
		return w.fail(fmt.Errorf("table: record of unknown kind %d", r.Kind))
	}
	if w.block.len() > 0 && w.block.size()+len(r.Key)+len(r.Value)+recordExtraBytes > w.o.blockBytes() {
		w.endBlock()
	}
	w.block.add(r, &w.actors)
	w.meta.add(r)
	w.lastKey = append(w.lastKey[:0], r.Key...)
	if w.o.bitsPerKey() > 0 {
		w.tokens.add(r.Token)
	}
	return w.err
}

func (w *Writer) fail(err error) error {
	w.err = err
	return err
}

// endBlock stores the block.
func (w *Writer) endBlock() {
	first := w.block.tokens[0]
	stored, kind, memory := w.o.Compression.compress(w.block.finish(), w.packed)
	w.packed = memory
	start, off := len(w.buf), w.at()
	w.buf = append(w.buf, stored...)
	w.buf = append(w.buf, kind)
	w.sum(start, off)
	w.index = appendIndexEntry(w.index, first-w.first, w.at()-off)
	w.first = first
	w.blocks++
	w.block.reset()
	w.flush(writeBytes)
}

// at is the offset of what is appended to buf next.
func (w *Writer) at() uint64 { return w.off + uint64(len(w.buf)) }

// sum appends the checksum of buf[start:], which lies at off in the file.
func (w *Writer) sum(start int, off uint64) {
	w.buf = binary.LittleEndian.AppendUint32(w.buf, base.Checksum(w.meta.ID, int64(off), w.buf[start:]))
}

// flush writes buf out once it holds at least n bytes.
func (w *Writer) flush(n int) {
	if w.err != nil || len(w.buf) < n {
		return
	}
	if _, err := w.f.WriteAt(w.buf, int64(w.off)); err != nil {
		w.fail(fmt.Errorf("table: write %s: %w", w.name, err))
		return
	}
	w.hash.Write(w.buf)
	w.off += uint64(len(w.buf))
	if n := w.off - w.started; n >= writeBackBytes {
		// The sync at the end would otherwise bring all of it to the disk at once,
		// and the log would wait behind that.
		w.f.WriteBack(int64(w.started), int64(n))
		w.started = w.off
	}
	w.buf = w.buf[:0]
}

// EstimatedSize is about the size that the file would have if it were finished
// now.
func (w *Writer) EstimatedSize() uint64 {
	sections := float64(w.tokens.n)*w.o.bitsPerKey()/8 + float64(len(w.index)+8*len(w.actors.actors))
	return w.at() + uint64(w.block.size()) + uint64(sections) + footerBytes + metaBytes + filterHeadBytes
}

// Close gives the writer's memory back, also when the table is not finished. The
// writer must not be used any more.
func (w *Writer) Close() {
	w.tokens.free()
	w.finished = true
}

// Finish writes what is left and syncs the file. The caller syncs the directory
// and then names the table in the manifest.
func (w *Writer) Finish() (Meta, error) {
	switch {
	case w.err != nil:
		return Meta{}, w.err
	case w.finished:
		return Meta{}, errFinished
	}
	w.finished = true
	if w.block.len() > 0 {
		w.endBlock()
	}
	var f filter
	if w.tokens.n > 0 {
		f = newFilter(w.tokens.blocks, w.o.bitsPerKey())
		w.tokens.free()
	}
	var foot footer
	foot.filter = w.section(func(b []byte) []byte { return appendFilter(b, f) })
	foot.index = w.section(func(b []byte) []byte { return append(binary.AppendUvarint(b, w.blocks), w.index...) })
	foot.properties = w.section(func(b []byte) []byte { return appendProperties(b, w.meta, w.actors.actors) })
	w.flush(1)
	foot.at, foot.hash = w.off, w.hash.Sum64()
	w.buf = appendFooter(w.buf, w.meta.ID, foot)
	w.flush(1)
	if w.err != nil {
		return Meta{}, w.err
	}
	if base.Defences.TableSync {
		if err := w.f.Sync(); err != nil {
			return Meta{}, w.fail(fmt.Errorf("table: sync %s: %w", w.name, err))
		}
	}
	w.meta.Bytes, w.meta.Hash = w.off, foot.hash
	return w.meta, nil
}

// section appends a section with its checksum and gives its offset.
func (w *Writer) section(content func([]byte) []byte) uint64 {
	start, off := len(w.buf), w.at()
	w.buf = content(w.buf)
	w.sum(start, off)
	w.flush(writeBytes)
	return off
}
