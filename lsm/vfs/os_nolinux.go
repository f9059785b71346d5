//go:build !linux

package vfs

// syncData is a whole sync where there is no cheaper one that is as safe.
func (f *osFile) syncData() error { return f.file.Sync() }

// writeBack leaves it to the system when to write.
func (f *osFile) writeBack(int64, int64) {}

func (f *osFile) allocate(off, n int64) error { return f.grow(off + n) }
