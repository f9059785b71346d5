package vfs

import "io/fs"

// Pages says what becomes of the unsynced pages of a file in the page cache
// when their sync fails. Either way they are taken for clean, so that a later
// sync succeeds without writing them (Rebello et al., Can Applications Recover
// from fsync Failures?, USENIX ATC 2020).
type Pages uint8

const (
	// PagesKept are read back as they were written, until the power goes.
	PagesKept Pages = iota
	// PagesDropped are read back as they are on the disk.
	PagesDropped
)

func (p Pages) String() string {
	if p == PagesDropped {
		return "dropped"
	}
	return "kept"
}

// failSync loses what is pending. A crash may still show some of it.
func (f *memFile) failSync(p Pages) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	n := f.node
	before, size := n.now.blocks, n.now.size
	if p == PagesDropped {
		n.now = n.disk.snapshot()
		n.now.resize(size)
	}
	n.now.freeze()
	n.failed, n.pending = append(n.failed, n.pending...), nil
	f.fs.mu.used += n.now.blocks - before
}

// failSyncDir leaves what is pending in a directory as it is, and lets every
// later SyncDir fail too, as a file system does whose journal failed.
func (m *Mem) failSyncDir(dir string, cause error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n, err := m.findDirLocked("sync", dir); err == nil {
		n.broken = cause
	}
}

// Corrupt flips the bits of mask in the byte at off, in the cache and, where it
// is synced, on the disk: every reader sees it, now and after any crash.
func (m *Mem) Corrupt(name string, off int64, mask byte) error {
	var b [1]byte
	return m.damage("corrupt", name, off, 1, func(c *content) {
		c.readAt(b[:], off)
		b[0] ^= mask
		c.writeAt(b[:], off)
	})
}

// Stale puts back the n bytes at off as they are in old, a Mem that Crash,
// CrashSynced or Strict gave earlier, in the cache and on the disk: later
// writes to that place never reached it. Bytes that old lacks become zeroes.
func (m *Mem) Stale(old *Mem, name string, off, n int64) error {
	f, err := old.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	p := make([]byte, n)
	f.ReadAt(p, off)
	return m.damage("stale", name, off, n, func(c *content) {
		if off < c.size {
			c.writeAt(p[:min(n, c.size-off)], off)
		}
	})
}

// damage changes the n bytes at off of a file under everybody's feet.
func (m *Mem) damage(op, name string, off, n int64, do func(*content)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	file, err := m.findLocked(op, name)
	if err != nil {
		return err
	}
	if file.dir() || off < 0 || n < 0 || off+n > file.now.size {
		return pathError(op, name, fs.ErrInvalid)
	}
	before := file.now.blocks
	do(&file.now)
	if off+n <= file.disk.size {
		do(&file.disk)
	}
	m.mu.used += file.now.blocks - before
	return nil
}
