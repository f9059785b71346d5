package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/manifest"
	"example.com/kvstore/lsm/internal/table"
	"example.com/kvstore/lsm/vfs"
)

// copyBytes is what a copy reads at once.
const copyBytes = 1 << 20

// Checkpoint makes a copy of the tree in another directory, which is created and
// must be empty: all that was written before the call, and of what is written
// meanwhile what came before some instant. Tables are hard links where the volume
// allows it and copies elsewhere, so that it takes little time and space. The copy
// is durable on return; after an error, or a crash, there is none.
//
// Open of that directory, or of a copy of it, makes a tree of it, with an identity
// of its own, after it has read everything: a copy from which something is missing,
// or in which a bit is wrong, is refused with ErrCorrupt. Reads and writes go on
// meanwhile; Close waits for it, and ends it with ErrClosed.
func (t *Tree) Checkpoint(dir string) error {
	return t.CheckpointContext(context.Background(), dir)
}

// CheckpointContext is Checkpoint that ends with ctx, too.
func (t *Tree) CheckpointContext(ctx context.Context, dir string) error {
	if !t.hold() {
		return ErrClosed
	}
	defer t.letGo()
	if err := t.Flush(); err != nil {
		return err
	}
	lock, err := t.claim(dir)
	if err != nil {
		return err
	}
	state, files := t.snapshot()
	err = t.copyTo(ctx, dir, state, files)
	for _, f := range files {
		t.unpin(f)
	}
	return errors.Join(err, lock.Close())
}

// claim makes the directory of a checkpoint and locks it.
func (t *Tree) claim(dir string) (lock io.Closer, err error) {
	if err := vfs.MakeDir(t.o.FS, dir); err != nil {
		return nil, fmt.Errorf("lsm: creating a checkpoint's directory: %w", err)
	}
	lock, err = t.o.FS.Lock(path.Join(dir, base.LockName))
	if err != nil {
		return nil, fmt.Errorf("lsm: locking %s: %w", dir, err)
	}
	names, err := t.o.FS.List(dir)
	if err == nil && !slices.Equal(names, []string{base.LockName}) {
		err = fmt.Errorf("%w: the directory of a checkpoint is not empty: %s", ErrInvalid, dir)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// snapshot gives the state of the manifest and its tables, pinned, which the caller
// unpins.
func (t *Tree) snapshot() (*manifest.State, []*tableFile) {
	t.edits <- struct{}{}
	defer func() { <-t.edits }()
	v := t.acquire(0)
	defer t.release(v, 0)
	var files []*tableFile
	for f := range v.tables() {
		f.versions.Add(1)
		files = append(files, f)
	}
	t.mu.Lock()
	t.mu.versions += len(files)
	t.mu.Unlock()
	return t.manifest.State(), files
}

// copyTo fills the directory. The name of the unfinished checkpoint file is durable
// before anything else is there, and the finished one comes last.
func (t *Tree) copyTo(ctx context.Context, dir string, state *manifest.State, files []*tableFile) error {
	fsys, tmp := t.o.FS, path.Join(dir, base.CheckpointTmpName)
	made := []string{tmp}
	mark, err := fsys.Create(tmp)
	if err == nil {
		err = fsys.SyncDir(dir)
		for _, f := range files {
			if err == nil {
				name := path.Join(dir, base.TableName(f.ID))
				made = append(made, name)
				err = t.linkTable(ctx, f, name)
			}
		}
		if err == nil {
			err = fsys.SyncDir(dir)
		}
		if err == nil {
			err = finishCheckpoint(mark, state)
		}
		err = errors.Join(err, mark.Close())
	}
	if err == nil {
		made = append(made, path.Join(dir, base.CheckpointName))
		err = fsys.Rename(tmp, path.Join(dir, base.CheckpointName))
	}
	if err == nil {
		err = fsys.SyncDir(dir)
	}
	if err != nil {
		slices.Reverse(made) // what says that it is finished goes first
		for _, name := range made {
			fsys.Remove(name)
		}
		return fmt.Errorf("lsm: making a checkpoint: %w", err)
	}
	return nil
}

// finishCheckpoint writes the checkpoint file.
func finishCheckpoint(f vfs.File, state *manifest.State) error {
	s := *state
	s.LogFrom, s.LogEnd, s.Tables = 0, base.LogEnd{}, slices.Clone(s.Tables)
	for i := range s.Tables {
		s.Tables[i].Cold = false
	}
	if _, err := f.WriteAt(manifest.AppendCheckpoint(nil, &s), 0); err != nil {
		return err
	}
	return f.Sync()
}

// linkTable makes a table appear under another name, durable but for the name.
func (t *Tree) linkTable(ctx context.Context, f *tableFile, name string) error {
	if err := t.goesOn(ctx); err != nil {
		return err
	}
	if err := t.o.FS.Link(f.name(), name); err == nil || errors.Is(err, ErrNoSpace) {
		return err
	}
	return t.copyTable(ctx, f, name) // another volume, or one without hard links
}

// copyTable copies a table, verifies the copy and syncs it.
func (t *Tree) copyTable(ctx context.Context, f *tableFile, name string) error {
	from, err := t.o.FS.Open(f.name())
	if err != nil {
		return f.hurt(err)
	}
	defer from.Close()
	to, err := t.o.FS.Create(name)
	if err != nil {
		return err
	}
	defer to.Close()
	buf := make([]byte, min(copyBytes, f.Bytes))
	for off := int64(0); off < int64(f.Bytes); off += int64(len(buf)) {
		if err := t.goesOn(ctx); err != nil {
			return err
		}
		buf = buf[:min(int64(len(buf)), int64(f.Bytes)-off)]
		if err := table.ReadAt(from, f.name(), buf, off); err != nil {
			return f.hurt(err)
		}
		if _, err := to.WriteAt(buf, off); err != nil {
			return err
		}
	}
	if err := to.Sync(); err != nil {
		return err
	}
	err = verifyTable(to, f.Meta)
	if errors.Is(err, ErrCorrupt) {
		// It may have come from the table, or be the doing of the other volume.
		if source := verifyTable(from, f.Meta); source != nil {
			return f.hurt(source)
		}
		return fmt.Errorf("lsm: the copy %s of a table differs from it: %w", name, err)
	}
	return err
}

// goesOn says why long work should end, if so.
func (t *Tree) goesOn(ctx context.Context) error {
	if t.closing.Load() {
		return ErrClosed
	}
	return ctx.Err()
}

// verifyTable reads all of a table, and leaves the file open.
func verifyTable(f vfs.File, m table.Meta) error {
	r, err := table.Open(keptOpen{f}, m)
	if err != nil {
		return err
	}
	return errors.Join(r.VerifyHash(nil), r.Close())
}

// keptOpen is a file whose Close is somebody else's.
type keptOpen struct{ vfs.File }

func (keptOpen) Close() error { return nil }

// restore makes a manifest out of the checkpoint file, if there is one, after it
// has verified all that belongs to it. The directory gets an identity of its own: it
// is no longer the one that it is a copy of.
func (r *recovery) restore(identity [16]byte) error {
	t := r.t
	state, err := manifest.ReadCheckpoint(t.o.FS, t.dir)
	if err != nil {
		return err
	}
	if len(r.logs) > 0 {
		return base.Corrupt(path.Join(t.dir, base.LogName(r.logs[0])), 0, "no log beside a checkpoint", "a log segment")
	}
	places := state.Places()
	for _, n := range r.tables {
		if _, ok := places[n]; !ok {
			return base.Corrupt(path.Join(t.dir, base.TableName(n)), 0, "a table of the checkpoint", "one that it does not name")
		}
	}
	for i := range state.Tables {
		if err := r.verify(state.Tables[i].Meta); err != nil {
			return fmt.Errorf("lsm: restoring a checkpoint: %w", err)
		}
	}
	if err := t.o.FS.SyncDir(t.dir); err != nil {
		return fmt.Errorf("lsm: syncing the directory: %w", err)
	}
	s := *state
	s.Directory = identity
	t.manifest, err = manifest.CreateFrom(t.o.FS, t.dir, &s)
	return err
}

// verify reads a table of a checkpoint and makes it durable: who copied it need
// not have.
func (r *recovery) verify(m table.Meta) error {
	name := path.Join(r.t.dir, base.TableName(m.ID))
	f, err := r.t.o.FS.OpenReadWrite(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return base.Corrupt(name, 0, "a table of the checkpoint", "no such file")
	case err != nil:
		return err
	}
	if err = verifyTable(f, m); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
