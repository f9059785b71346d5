package lsm

import (
	"errors"
	"fmt"
	"math"
	"path"
	"time"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/manifest"
	"example.com/kvstore/lsm/internal/table"
	"example.com/kvstore/lsm/vfs"
)

// retryAfter is when a flush or compaction that found no space tries again.
const retryAfter = time.Second

// Flush writes all that is in memory to tables and waits for that.
func (t *Tree) Flush() error {
	r := &rotation{ready: make(chan struct{})}
	t.mu.Lock()
	err := t.mu.err
	switch {
	case err != nil:
	case t.mu.closed || t.mu.logDone:
		err = ErrClosed
	default:
		t.mu.rotations = append(t.mu.rotations, r)
	}
	t.mu.Unlock()
	if err != nil {
		return err
	}
	t.queue.Kick()
	<-r.ready
	if r.err != nil || r.m == nil {
		return r.err
	}
	select {
	case <-r.m.flushed:
		return nil
	case <-t.failed:
		return t.failure()
	case <-t.stopping:
		return ErrClosed
	}
}

// flushLoop writes sealed memtables to tables, oldest first.
func (t *Tree) flushLoop() {
	defer t.workers.Done()
	retry := stoppedTimer(func() { kick(t.flushKick) })
	defer retry.Stop()
	for !t.stopped.Load() && t.failure() == nil {
		if m, next := t.oldestSealed(); m == nil || !m.Quiet() || t.crowded() {
			select {
			case <-t.flushKick:
			case <-t.stopping:
			}
		} else if err := t.flush(m, next); errors.Is(err, ErrNoSpace) && t.failure() == nil {
			t.o.Logger.Warn("lsm: no space to flush a memtable", "error", err)
			t.full.Store(true)
			kick(t.room)
			retry.Reset(retryAfter)
			select {
			case <-t.flushKick:
			case <-t.stopping:
			}
		} else if err != nil {
			t.fail(err)
		} else {
			t.full.Store(false)
			kick(t.room)
			kick(t.compactKick)
		}
	}
}

// oldestSealed gives the memtable to flush, and the one after it.
func (t *Tree) oldestSealed() (m, next *mem) {
	v := t.acquire()
	defer t.release(v)
	if n := len(v.mems); n > 1 {
		return v.mems[n-1], v.mems[n-2]
	}
	return nil, nil
}

// flush writes a memtable to one table for each slice that has records, and
// makes the tables part of the tree in one edit, with which the memtable's log
// is no longer needed. The next memtable says where the log goes on.
func (t *Tree) flush(m, next *mem) error {
	view := m.View(0, math.MaxUint64)
	defer view.Close()
	out := output{t: t}
	for i := range view.Len() {
		r := view.At(i)
		if err := out.add(&r); err != nil {
			return out.abandon(err)
		}
	}
	tables, err := out.finish()
	if err != nil {
		return out.abandon(err)
	}
	edit := manifest.Edit{LogFrom: next.first}
	for _, f := range tables {
		edit.Add = append(edit.Add, f.Table)
		t.stats.flushedBytes.Add(f.Bytes)
	}
	if err := t.edit(edit); err != nil {
		return out.abandon(err)
	}
	t.change(func(v *version) {
		v.mems = v.mems[:len(v.mems)-1]
		v.replace(nil, tables, func(f *tableFile) int { return int(f.Slice) })
	})
	t.stats.flushes.Add(1)
	close(m.flushed)
	return t.log.Release(next.first)
}

// edit applies an edit to the manifest. Flushes and compactions take turns. After
// an error the edit did not happen, unless the tree has failed.
func (t *Tree) edit(e manifest.Edit) error {
	t.edits <- struct{}{}
	defer func() { <-t.edits }()
	e.NextFile = t.nextFile.Load()
	err := t.manifest.Apply(e)
	if err != nil && t.manifest.Apply(manifest.Edit{}) != nil {
		return t.fail(err) // not even an empty edit: the manifest is done
	}
	return err
}

// An output writes records, in order, to one table for each slice.
type output struct {
	t      *Tree
	level  uint8
	file   vfs.File // of the table being written; nil between tables
	writer *table.Writer
	id     uint64
	slice  int
	tables []*tableFile
}

func (o *output) add(r *Record) error {
	if s := o.t.slice(r.Token); o.writer != nil && s != o.slice {
		if err := o.end(); err != nil {
			return err
		}
	}
	if o.writer == nil {
		o.slice = o.t.slice(r.Token)
		o.id = o.t.number()
		f, err := o.t.o.FS.Create(o.name())
		if err != nil {
			return fmt.Errorf("lsm: creating a table: %w", err)
		}
		o.file, o.writer = f, table.NewWriter(f, o.id, o.t.o.tableOptions())
	}
	return o.writer.Add(r)
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
	f := &tableFile{t: o.t, Table: manifest.Table{Meta: meta, Slice: uint32(o.slice), Level: o.level, Run: o.id}}
	f.reader.Store(r)
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
	if len(o.tables) > 0 {
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

// number gives the next file number.
func (t *Tree) number() uint64 { return t.nextFile.Add(1) - 1 }
