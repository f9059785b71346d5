package lsm

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/compaction"
	"example.com/kvstore/lsm/internal/manifest"
	"example.com/kvstore/lsm/vfs"
)

// The cold tier is a second directory, on a volume that is larger and slower. The
// tables of a slice's bottom run move there one by one when nothing in them is
// newer than ColdAfter:
//
//	copy, verify, sync the copy and its directory -> edit the manifest -> delete
//
// A table is read in its old place until the edit and in its new one after it, and
// at each instant the manifest names one that is whole. What a crash leaves in the
// other place is deleted by the next Open. Compactions write to the first directory;
// what they make of cold tables grows old there again.

// coldEvery is how often the tree looks for tables that have grown old. What found
// no space is tried again then.
const coldEvery = time.Minute

// coldDir is where the cold tables of a directory are: below Options.ColdDir, under
// the directory's id, so that several trees can share it and none takes the tables of
// another for leftovers.
func coldDir(home string, directory [16]byte) string {
	return path.Join(home, hex.EncodeToString(directory[:]))
}

// moveCold moves all tables that are old enough. After an error those that are
// left are tried again by the next call; the tree goes on in any case.
func (t *Tree) moveCold() error {
	if t.o.ColdDir == "" {
		return nil
	}
	t.moving <- struct{}{}
	defer func() { <-t.moving }()
	for {
		if err := t.writable(); err != nil {
			return err
		}
		r, f := t.beginMove()
		if f == nil {
			return nil
		}
		err := t.move(r, f)
		t.mu.Lock()
		delete(t.mu.busy, r)
		t.mu.Unlock()
		kick(t.compactKick) // one may have waited for the run
		if err != nil && !errors.Is(err, errStale) {
			return fmt.Errorf("lsm: moving %s to the cold directory: %w", f.name(), err)
		}
	}
}

// beginMove chooses a table of a bottom run that no compaction reads, and keeps
// compactions away from it.
func (t *Tree) beginMove() (*run, *tableFile) {
	before := t.o.Now().Add(-t.o.ColdAfter).UnixMilli()
	old := func(f *tableFile) bool {
		return !f.Cold && !f.suspect.Load() && int64(f.MaxDot.Stamp>>stampShift) <= before
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	v := t.version.Load()
	if v == nil {
		return nil, nil
	}
	for _, s := range v.slices {
		for _, r := range s {
			if r.level != compaction.Bottom || t.mu.busy[r] {
				continue
			}
			if i := slices.IndexFunc(r.files, old); i >= 0 {
				t.mu.busy[r] = true
				return r, r.files[i]
			}
		}
	}
	return nil, nil
}

// move moves one table of a run.
func (t *Tree) move(r *run, f *tableFile) error {
	cold := &tableFile{t: t, Table: f.Table, strays: f.strays, purged: f.purged, awaits: f.awaits}
	cold.Cold = true
	pinned := t.pin(f.ID)
	if pinned != f {
		if pinned != nil {
			t.unpin(pinned)
		}
		return errStale
	}
	defer t.unpin(f)
	if err := t.makeColdDir(); err != nil {
		return err
	}
	err := t.copyTable(context.Background(), f, cold.name())
	if err == nil {
		err = t.o.FS.SyncDir(t.cold)
	}
	if err == nil {
		err = t.placeCold(r, f, cold)
	}
	if err != nil && t.failure() == nil {
		if gone := t.o.FS.Remove(cold.name()); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			t.o.Logger.Warn("lsm: a copy stays in the cold directory until the next open", "error", gone)
		}
	}
	return err
}

// makeColdDir makes the cold directory for its first table. With tables in it it is
// there: where it is not, its volume is not mounted, and what is below the mount
// point is another.
func (t *Tree) makeColdDir() error {
	if slices.ContainsFunc(t.manifest.State().Tables, func(m manifest.Table) bool { return m.Cold }) {
		_, err := t.o.FS.List(t.cold)
		return err
	}
	if err := vfs.MakeDir(t.o.FS, t.o.ColdDir); err != nil {
		return err
	}
	if err := vfs.MakeDir(t.o.FS, t.cold); err != nil || t.coldLock != nil {
		return err
	}
	return t.lockCold()
}

// lockCold keeps away another tree of the same identity, a copy of the directory,
// which would take these tables for leftovers.
func (t *Tree) lockCold() (err error) {
	if t.coldLock, err = t.o.FS.Lock(path.Join(t.cold, base.LockName)); err != nil {
		return fmt.Errorf("lsm: locking %s: %w", t.cold, err)
	}
	return nil
}

func (t *Tree) unlockCold() error {
	if t.coldLock == nil {
		return nil
	}
	return t.coldLock.Close()
}

// placeCold puts the copy in the place of the table.
func (t *Tree) placeCold(r *run, f, cold *tableFile) error {
	t.edits <- struct{}{}
	defer func() { <-t.edits }()
	if !t.current(r) {
		return errStale
	}
	e := manifest.Edit{Remove: []uint64{f.ID}, Add: []manifest.Table{cold.Table}}
	for _, span := range t.manifest.State().Dropped[f.ID] {
		e.Drop = append(e.Drop, manifest.Part{File: f.ID, Span: span})
	}
	err := t.editHeld(e, func(v *version) {
		f.obsolete.Store(true)
		v.exchange(r, f, cold)
	})
	if err == nil {
		t.stats.moved.Add(1)
	}
	return err
}

// listCold finds the files of the cold directory. It fails when tables should be
// there and it is not: a volume that is not mounted is not damage.
func (r *recovery) listCold() error {
	t := r.t
	state := t.manifest.State()
	needed := 0
	for i := range state.Tables {
		if state.Tables[i].Cold {
			needed++
		}
	}
	if t.o.ColdDir == "" {
		if needed > 0 {
			return fmt.Errorf("%w: %d tables are in a cold directory, set Options.ColdDir to it", ErrInvalid, needed)
		}
		return nil
	}
	t.cold = coldDir(t.o.ColdDir, state.Directory)
	names, err := t.o.FS.List(t.cold)
	switch {
	case errors.Is(err, fs.ErrNotExist) && needed > 0:
		return fmt.Errorf("%w: %d tables are in the cold directory %s, which does not exist; is its volume mounted?", ErrInvalid, needed, t.cold)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("lsm: listing the cold directory: %w", err)
	}
	for _, name := range names {
		if n, ok := base.ParseTableName(name); ok {
			r.cold = append(r.cold, n)
		}
	}
	slices.Sort(r.cold)
	return t.lockCold()
}

// has reports whether the file of a live table is in its place.
func (r *recovery) has(m *manifest.Table) bool {
	files := r.tables
	if m.Cold {
		files = r.cold
	}
	_, ok := slices.BinarySearch(files, m.ID)
	return ok
}
