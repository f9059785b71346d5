package lsm

import (
	"fmt"
	"math"
	"path"
	"runtime"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/compaction"
	"example.com/kvstore/lsm/internal/manifest"
	"example.com/kvstore/lsm/internal/table"
	"example.com/kvstore/lsm/vfs"
)

// maxTableBytes is the size at which a table of a run ends and the next begins.
const maxTableBytes = 128 << 20

// An output writes records, in order, to one run for each slice. A run goes on in
// another table when one is large, but never within a token.
type output struct {
	t      *Tree
	level  uint8
	bytes  uint64   // of the run of one slice, as far as is known; 0: unknown
	file   vfs.File // of the table being written; nil between tables
	writer *table.Writer
	id     uint64
	slice  int
	run    uint64 // the number of its first table
	last   uint64 // token
	tables []*tableFile
}

func (o *output) add(r *Record) error {
	s := o.t.slice(r.Token)
	if o.writer != nil && (s != o.slice || r.Token != o.last && o.writer.EstimatedSize() >= o.t.o.maxTableBytes) {
		if err := o.end(); err != nil {
			return err
		}
	}
	o.last = r.Token
	if o.writer == nil {
		o.id = o.t.number()
		if len(o.tables) == 0 || s != o.slice {
			o.slice, o.run = s, o.id
		}
		f, err := o.t.o.FS.Create(o.name())
		if err != nil {
			return fmt.Errorf("lsm: creating a table: %w", err)
		}
		o.file, o.writer = f, table.NewWriter(f, o.id, o.tableOptions())
	}
	return o.writer.Add(r)
}

// tableOptions gives those of the table that is about to be written: upper runs,
// which are small, get better filters.
func (o *output) tableOptions() table.WriterOptions {
	w := o.t.o.tableOptions()
	if o.bytes > 0 {
		w.BitsPerKey = compaction.FilterBits(w.BitsPerKey, o.level, o.bytes, o.t.bottomBytes(o.slice))
	}
	return w
}

// bottomBytes gives the size of the bottom of a slice, 0 if there is none.
func (t *Tree) bottomBytes(slice int) (n uint64) {
	v := t.acquire()
	if v == nil {
		return 0
	}
	defer t.release(v)
	for _, r := range v.slices[slice] {
		if r.level == compaction.Bottom {
			n = max(n, r.bytes)
		}
	}
	return n
}

// writeAll makes tables of a memtable.
func (o *output) writeAll(m *mem) ([]*tableFile, error) {
	view := m.View(0, math.MaxUint64)
	defer view.Close()
	for i := range view.Len() {
		if i%yieldRecords == 0 {
			runtime.Gosched()
			o.t.load.flushing.Store(m.Bytes() * int64(i) / int64(view.Len()))
		}
		r := view.At(i)
		if err := o.add(&r); err != nil {
			return nil, err
		}
	}
	return o.finish()
}

func (o *output) name() string { return path.Join(o.t.dir, base.TableName(o.id)) }

// end finishes the table that is being written.
func (o *output) end() error {
	meta, err := o.writer.Finish()
	if err != nil {
		return err
	}
	r, err := table.Open(o.file, meta)
	if err != nil {
		return err
	}
	f := &tableFile{t: o.t, Table: manifest.Table{Meta: meta, Slice: uint32(o.slice), Level: o.level, Run: o.run}}
	f.adopt(r, 0)
	o.tables = append(o.tables, f)
	o.file, o.writer = nil, nil
	return nil
}

// finish makes all tables durable under their names.
func (o *output) finish() ([]*tableFile, error) {
	if o.writer != nil {
		if err := o.end(); err != nil {
			return nil, err
		}
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
	remove := o.t.failure() == nil
	if o.file != nil {
		o.writer.Close()
		o.file.Close()
		if remove {
			o.t.o.FS.Remove(o.name())
		}
	}
	for _, f := range o.tables {
		f.obsolete.Store(remove)
		f.discard()
	}
	return err
}
