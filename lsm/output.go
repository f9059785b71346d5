package lsm

import (
	"errors"
	"fmt"
	"math"
	"path"
	"runtime"
	"time"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/compaction"
	"example.com/kvstore/lsm/internal/manifest"
	"example.com/kvstore/lsm/internal/memtable"
	"example.com/kvstore/lsm/internal/table"
	"example.com/kvstore/lsm/vfs"
)

// maxTableBytes is the size at which a table of a run ends and the next begins.
const maxTableBytes = 128 << 20

// An output writes records, in order, to one run for each slice. A run goes on in
// another table when one is large, but never within a token. While a table is written,
// the one before it is finished and synced on another goroutine: disk and processor
// would else wait for each other at the end of each.
type output struct {
	t      *Tree
	level  uint8
	bytes  uint64 // of the run of one slice, as far as is known; 0: unknown
	slice  int
	run    uint64    // the number of its first table
	last   uint64    // token
	now    *building // the table being written; nil between tables
	before *building // the table being finished; nil for none
	tables []*tableFile
	spread time.Duration // that spread has held it back
}

// building is a table that is not in the tree yet.
type building struct {
	file   vfs.File
	writer *table.Writer
	manifest.Table
	awaits awaited // the first of its records for which the horizon is to come
	// Set by finish, before it closes done.
	reader *table.Reader
	err    error
	done   chan struct{}
}

// finish completes the table and opens it.
func (b *building) finish() {
	defer close(b.done)
	meta, err := b.writer.Finish()
	if err == nil {
		b.Meta = meta
		b.reader, err = table.Open(b.file, meta)
	}
	b.err = err
}

func (o *output) add(r *Record) error {
	s := o.t.slice(r.Token)
	if o.now != nil && (s != o.slice || r.Token != o.last && o.now.writer.EstimatedSize() >= o.t.o.maxTableBytes) {
		if err := o.end(); err != nil {
			return err
		}
	}
	o.last = r.Token
	if o.now == nil {
		if err := o.begin(s); err != nil {
			return err
		}
	}
	return o.now.writer.Add(r)
}

// begin starts a table of slice s.
func (o *output) begin(s int) error {
	id := o.t.number()
	if o.run == 0 || s != o.slice {
		o.slice, o.run = s, id
	}
	f, err := o.t.o.FS.Create(o.name(id))
	if err != nil {
		return fmt.Errorf("lsm: creating a table: %w", err)
	}
	o.now = &building{
		file: f, writer: table.NewWriter(f, id, o.tableOptions()),
		Table: manifest.Table{Meta: table.Meta{ID: id}, Slice: uint32(s), Level: o.level, Run: o.run},
		done:  make(chan struct{}),
	}
	return nil
}

// tableOptions gives those of the table that is about to be written: upper runs,
// which are small, get better filters.
func (o *output) tableOptions() table.WriterOptions {
	w := o.t.o.tableOptions()
	w.Memory = o.t.memory
	if o.bytes > 0 {
		w.BitsPerKey = compaction.FilterBits(w.BitsPerKey, o.level, o.bytes, o.t.bottomBytes(o.slice))
	}
	return w
}

// bottomBytes gives the size of the bottom of a slice, 0 if there is none.
func (t *Tree) bottomBytes(slice int) (n uint64) {
	v := t.acquire(0)
	if v == nil {
		return 0
	}
	defer t.release(v, 0)
	for _, r := range v.slices[slice] {
		if r.level == compaction.Bottom {
			n = max(n, r.bytes)
		}
	}
	return n
}

// sideBySide is the size of a memtable from which two goroutines make its tables.
const sideBySide = 4 << 20

// outputs make the tables of one memtable, side by side.
type outputs []*output

// writeAll makes tables of a memtable, of which bytes go to each slice: for a large one
// those of the lower half of all tokens on a goroutine of its own, since writers wait for
// the memory. What it gives together with an error is to be abandoned.
func (t *Tree) writeAll(m *mem, bytes uint64) (outputs, []*tableFile, error) {
	view := m.View(0, math.MaxUint64)
	defer view.Close()
	size := m.Bytes() / int64(max(view.Len(), 1))
	if t.sliceShift == 64 || m.Bytes() < sideBySide {
		o := &output{t: t, bytes: bytes}
		tables, err := o.writeView(m, view, size)
		return outputs{o}, tables, err
	}
	below, rest := view.Split(1 << 63) // the lower half of the slices, and the upper
	low, high := &output{t: t, bytes: bytes}, &output{t: t, bytes: bytes}
	var tables []*tableFile
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		tables, err = low.writeView(m, below, size)
	}()
	more, otherErr := high.writeView(m, rest, size)
	<-done
	return outputs{low, high}, append(tables, more...), errors.Join(err, otherErr)
}

// abandon is output.abandon for all of them.
func (os outputs) abandon(err error) error {
	for _, o := range os {
		o.abandon(err)
	}
	return err
}

// spread is how long they were held back.
func (os outputs) spread() (most time.Duration) {
	for _, o := range os {
		most = max(most, o.spread)
	}
	return most
}

// writeView makes tables of some records of a memtable, which take about size bytes each
// there.
func (o *output) writeView(m *mem, view *memtable.View, size int64) ([]*tableFile, error) {
	began := o.t.elapsed()
	for i := range view.Len() {
		if i%yieldRecords == 0 {
			runtime.Gosched()
			o.t.load.flushing.Add(size * yieldRecords)
			o.spread += o.t.spread(m, began, float64(i)/float64(view.Len()))
		}
		r := view.At(i)
		if err := o.add(&r); err != nil {
			return nil, err
		}
	}
	return o.finish()
}

func (o *output) name(id uint64) string { return path.Join(o.t.dir, base.TableName(id)) }

// end has the table that is being written finished, after the one before it.
func (o *output) end() error {
	if err := o.wait(); err != nil {
		return err
	}
	o.before, o.now = o.now, nil
	go o.before.finish()
	return nil
}

// wait waits for the table that is being finished.
func (o *output) wait() error {
	b := o.before
	if b == nil {
		return nil
	}
	<-b.done
	if b.err != nil {
		return b.err
	}
	f := &tableFile{t: o.t, Table: b.Table, awaits: b.awaits}
	f.adopt(b.reader, 0)
	o.tables = append(o.tables, f)
	o.before = nil
	return nil
}

// finish makes all tables durable under their names.
func (o *output) finish() ([]*tableFile, error) {
	if o.now != nil {
		if err := o.end(); err != nil {
			return nil, err
		}
	}
	if err := o.wait(); err != nil {
		return nil, err
	}
	if len(o.tables) > 0 && base.Defences.TableDirSync {
		if err := o.t.o.FS.SyncDir(o.t.dir); err != nil {
			return nil, fmt.Errorf("lsm: syncing the directory: %w", err)
		}
	}
	return o.tables, nil
}

// abandon removes what was written, and returns err. What it cannot remove is
// left to the next Open; so is everything once the tree has failed, because an
// edit that failed may be in the manifest all the same.
func (o *output) abandon(err error) error {
	o.wait() // a table that could not be finished goes like the one being written
	remove := o.t.failure() == nil
	for _, b := range []*building{o.before, o.now} {
		if b == nil {
			continue
		}
		b.writer.Close()
		b.file.Close()
		if remove {
			o.t.o.FS.Remove(o.name(b.ID))
		}
	}
	for _, f := range o.tables {
		f.obsolete.Store(remove)
		f.discard()
	}
	return err
}
