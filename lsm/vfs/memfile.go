package vfs

import (
	"io"
	"io/fs"
	"slices"
	"syscall"
)

// A memFile is a handle. Handles of one file share its node.
type memFile struct {
	fs       *Mem
	node     *node
	name     string
	writable bool
	closed   bool // guarded by fs.mu
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.RLock()
	defer f.fs.mu.RUnlock()
	if err := f.checkLocked("read", off, 0, false); err != nil {
		return 0, err
	}
	n := f.node.now.readAt(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt on a full volume writes what fits.
func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.checkLocked("write", off, int64(len(p)), true); err != nil {
		return 0, err
	}
	fits := f.node.now.room(off, int64(len(p)), f.fs.freeLocked())
	if fits > 0 {
		f.fs.editLocked(f.node, edit{kind: editWrite, off: off, data: slices.Clone(p[:fits])})
	}
	if fits < int64(len(p)) {
		return int(fits), noSpace("write", f.name)
	}
	return len(p), nil
}

func (f *memFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.checkLocked("truncate", size, 0, true); err != nil {
		return err
	}
	if size != f.node.now.size || size == 0 && f.node.now.blocks > 0 {
		f.fs.editLocked(f.node, edit{kind: editResize, off: size})
	}
	return nil
}

// WriteBack does nothing: a crash may bring any unsynced write to the disk
// anyhow.
func (f *memFile) WriteBack(int64, int64) {}

// ReadAhead does nothing: all is in memory.
func (f *memFile) ReadAhead(int64, int64) {}

// Allocate takes all the space or none.
func (f *memFile) Allocate(off, n int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.checkLocked("allocate", off, n, true); err != nil {
		return err
	}
	if n <= 0 {
		return pathError("allocate", f.name, fs.ErrInvalid)
	}
	if f.node.now.room(off, n, f.fs.freeLocked()) < n {
		return noSpace("allocate", f.name)
	}
	f.fs.editLocked(f.node, edit{kind: editAllocate, off: off, size: n})
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.fs.mu.RLock()
	defer f.fs.mu.RUnlock()
	return f.node.now.size, f.checkLocked("size", 0, 0, false)
}

// Sync makes the content durable, not the entry: see SyncDir.
func (f *memFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.checkLocked("sync", 0, 0, false); err != nil {
		return err
	}
	f.node.disk.adopt(&f.node.now)
	f.node.pending, f.node.failed = nil, nil
	return nil
}

func (f *memFile) SyncData() error { return f.Sync() }

func (f *memFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.checkLocked("close", 0, 0, false); err != nil {
		return err
	}
	f.closed = true
	delete(f.fs.mu.handles, f)
	f.node.open--
	f.fs.releaseLocked(f.node)
	return nil
}

func (f *memFile) checkLocked(op string, off, n int64, write bool) error {
	switch {
	case f.closed:
		return pathError(op, f.name, fs.ErrClosed)
	case off < 0 || n < 0:
		return pathError(op, f.name, fs.ErrInvalid)
	case write && !f.writable:
		return pathError(op, f.name, syscall.EBADF)
	case off > maxFileBytes-n:
		if write {
			return pathError(op, f.name, syscall.EFBIG)
		}
	}
	return nil
}

// editLocked changes the content of a file and notes the change as pending.
func (m *Mem) editLocked(n *node, e edit) {
	before := n.now.blocks
	e.ordinal = n.ordinal
	n.ordinal++
	e.apply(&n.now)
	n.pending = append(n.pending, e)
	m.mu.used += n.now.blocks - before
}

func (e *edit) apply(c *content) {
	switch e.kind {
	case editWrite:
		c.writeAt(e.data, e.off)
	case editResize:
		c.resize(e.off)
	case editAllocate:
		c.allocate(e.off, e.size)
	}
}
