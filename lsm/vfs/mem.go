package vfs

import (
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// defaultCapacity is the size of a volume in memory: far beyond the memory.
const defaultCapacity = 1 << 40

// A Mem is a file system in memory that keeps apart what is durable and what a
// power cut may take:
//
//   - What was written to a file is durable after Sync or SyncData.
//   - An entry (a creation, removal, rename or link) is durable after SyncDir of
//     its directory, never before, and also then only as durable as the
//     directory itself.
//
// Crash, CrashSynced and Strict give the disk as it would be found after a
// power cut. A Mem is deterministic: the same operations and seeds give the
// same disks. It holds no lock while anything waits, so it runs in a synctest
// bubble. Names are cleaned and rooted: "a", "/a" and "./a" are one file.
type Mem struct {
	seed uint64
	mu   struct {
		sync.RWMutex
		root     *node
		locked   map[string]bool
		handles  map[*memFile]struct{} // that are open
		capacity int64
		used     int64 // blocks
	}
}

// NewMem returns an empty file system. The seed takes part in the fate of
// everything that is not durable when it crashes.
func NewMem(seed uint64) *Mem {
	m := &Mem{seed: seed}
	m.mu.root = &node{links: 1, entries: map[string]*node{}}
	m.mu.locked = map[string]bool{}
	m.mu.handles = map[*memFile]struct{}{}
	m.mu.capacity = defaultCapacity / pageBytes
	return m
}

// SetCapacity limits the volume to bytes, rounded down to blocks of 4 KiB.
// Writes that need a new block, and new entries, then fail with ErrNoSpace
// where there is none; changing what is allocated does not. A capacity below
// what is in use is a full volume.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.capacity = max(0, bytes) / pageBytes
}

// Used gives the bytes that files take, in whole blocks: also those of files
// that were removed and are open still.
func (m *Mem) Used() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.mu.used * pageBytes
}

// Free gives the bytes left of the capacity.
func (m *Mem) Memory() int64 { return 0 }

func (m *Mem) Free(dir string) (int64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if _, err := m.findLocked("free", dir); err != nil {
		return 0, err
	}
	return m.freeLocked() * pageBytes, nil
}

func (m *Mem) freeLocked() int64 { return max(0, m.mu.capacity-m.mu.used) }

func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.createLocked("create", name)
	if err != nil {
		return nil, err
	}
	if n.now.size > 0 || n.now.blocks > 0 {
		m.editLocked(n, edit{kind: editResize})
	}
	return m.openLocked(n, name, true), nil
}

// createLocked gives the file of this name, made if need be.
func (m *Mem) createLocked(op, name string) (*node, error) {
	dir, base, err := m.parentLocked(op, name)
	if err != nil {
		return nil, err
	}
	n := dir.entries[base]
	switch {
	case n == nil:
		if m.freeLocked() == 0 {
			return nil, noSpace(op, name)
		}
		n = &node{birth: clean(name), links: 1}
		dir.apply(change{base, nil, n})
	case n.dir():
		return nil, pathError(op, name, syscall.EISDIR)
	}
	return n, nil
}

func (m *Mem) Open(name string) (File, error) { return m.openFile(name, false) }

func (m *Mem) OpenReadWrite(name string) (File, error) { return m.openFile(name, true) }

func (m *Mem) openFile(name string, writable bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.findLocked("open", name)
	if err != nil {
		return nil, err
	}
	if n.dir() {
		return nil, pathError("open", name, syscall.EISDIR)
	}
	return m.openLocked(n, name, writable), nil
}

func (m *Mem) openLocked(n *node, name string, writable bool) File {
	n.open++
	f := &memFile{fs: m, node: n, name: name, writable: writable}
	m.mu.handles[f] = struct{}{}
	return f
}

// Handles gives the sorted names of the files that are open, each once for each
// handle, and of the locks that are held: what has closed everything left none.
func (m *Mem) Handles() []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	names := make([]string, 0, len(m.mu.handles)+len(m.mu.locked))
	for f := range m.mu.handles {
		names = append(names, f.name)
	}
	for name := range m.mu.locked {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Remove removes a file or an empty directory. What happened in a directory
// before is durable when it is removed.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parentLocked("remove", name)
	if err != nil {
		return err
	}
	n := dir.entries[base]
	switch {
	case n == nil:
		return pathError("remove", name, fs.ErrNotExist)
	case len(n.entries) > 0:
		return pathError("remove", name, syscall.ENOTEMPTY)
	}
	n.commit(n.ordinal)
	dir.apply(change{base, n, nil})
	m.unlinkLocked(n)
	return nil
}

func (m *Mem) Rename(oldname, newname string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, oldbase, err := m.parentLocked("rename", oldname)
	if err != nil {
		return err
	}
	n := from.entries[oldbase]
	if n == nil {
		return pathError("rename", oldname, fs.ErrNotExist)
	}
	to, newbase, err := m.parentLocked("rename", newname)
	if err != nil {
		return err
	}
	replaced := to.entries[newbase]
	switch {
	case replaced == n:
		return nil
	case replaced != nil && replaced.dir():
		return pathError("rename", newname, fs.ErrExist)
	case replaced != nil && n.dir():
		return pathError("rename", newname, syscall.ENOTDIR)
	case n.dir() && strings.HasPrefix(clean(newname), clean(oldname)+"/"):
		return pathError("rename", newname, fs.ErrInvalid)
	}
	gone, come := change{oldbase, n, nil}, change{newbase, replaced, n}
	if from == to {
		from.apply(gone, come)
	} else {
		a, b := from.apply(gone), to.apply(come)
		a.twin, b.twin = b, a
	}
	if replaced != nil {
		m.unlinkLocked(replaced)
	}
	return nil
}

func (m *Mem) Link(oldname, newname string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.findLocked("link", oldname)
	if err != nil {
		return err
	}
	dir, base, err := m.parentLocked("link", newname)
	switch {
	case err != nil:
		return err
	case n.dir():
		return pathError("link", oldname, fs.ErrPermission)
	case dir.entries[base] != nil:
		return pathError("link", newname, fs.ErrExist)
	case m.freeLocked() == 0:
		return noSpace("link", newname)
	}
	dir.apply(change{base, nil, n})
	n.links++
	return nil
}

func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, at := m.mu.root, ""
	for _, base := range parts(dir) {
		at = path.Join(at, base)
		child := n.entries[base]
		switch {
		case child == nil:
			if m.freeLocked() == 0 {
				return noSpace("mkdir", at)
			}
			child = &node{birth: at, links: 1, entries: map[string]*node{}}
			n.apply(change{base, nil, child})
		case !child.dir():
			return pathError("mkdir", at, syscall.ENOTDIR)
		}
		n = child
	}
	return nil
}

func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.findDirLocked("sync", dir)
	if err != nil {
		return err
	}
	if n.broken != nil {
		return pathError("sync", dir, n.broken)
	}
	n.commit(n.ordinal)
	return nil
}

func (m *Mem) List(dir string) ([]string, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.findDirLocked("list", dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(n.entries))
	for name := range n.entries {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

func (m *Mem) Stat(name string) (Info, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.findLocked("stat", name)
	if err != nil {
		return Info{}, err
	}
	return Info{Size: n.now.size, Dir: n.dir()}, nil
}

// Lock takes a lock of this Mem only: after a crash nobody holds one.
func (m *Mem) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.locked[clean(name)] {
		return nil, pathError("lock", name, ErrLocked)
	}
	if _, err := m.createLocked("lock", name); err != nil {
		return nil, err
	}
	m.mu.locked[clean(name)] = true
	return &memLock{fs: m, name: clean(name)}, nil
}

type memLock struct {
	fs   *Mem
	name string // empty once released
}

func (l *memLock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	if l.name == "" {
		return fs.ErrClosed
	}
	delete(l.fs.mu.locked, l.name)
	l.name = ""
	return nil
}

// unlinkLocked takes one of its names from n. The space is free when it has no
// name and no handle, though a crash may bring the entry back.
func (m *Mem) unlinkLocked(n *node) {
	n.links--
	m.releaseLocked(n)
}

func (m *Mem) releaseLocked(n *node) {
	if n.links == 0 && n.open == 0 {
		m.mu.used -= n.now.blocks
	}
}

func (m *Mem) findLocked(op, name string) (*node, error) {
	n := m.mu.root
	for _, base := range parts(name) {
		if !n.dir() {
			return nil, pathError(op, name, syscall.ENOTDIR)
		}
		if n = n.entries[base]; n == nil {
			return nil, pathError(op, name, fs.ErrNotExist)
		}
	}
	return n, nil
}

func (m *Mem) findDirLocked(op, name string) (*node, error) {
	n, err := m.findLocked(op, name)
	if err == nil && !n.dir() {
		err = pathError(op, name, syscall.ENOTDIR)
	}
	return n, err
}

// parentLocked gives the directory of name, and the name in it.
func (m *Mem) parentLocked(op, name string) (*node, string, error) {
	dir, base := path.Split(clean(name))
	if base == "" {
		return nil, "", pathError(op, name, fs.ErrInvalid)
	}
	n, err := m.findDirLocked(op, dir)
	return n, base, err
}

// clean gives the one name of a file, without a slash in front; the root is
// empty.
func clean(name string) string { return path.Clean("/" + name)[1:] }

func parts(name string) []string {
	if name = clean(name); name == "" {
		return nil
	}
	return strings.Split(name, "/")
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func noSpace(op, name string) error { return osError(pathError(op, name, syscall.ENOSPC)) }
