//go:build !linux

package vfs

// syncData is a whole sync where there is no cheaper one that is as safe.
func (f *osFile) syncData() error { return f.file.Sync() }

// writeBack leaves it to the system when to write.
func (f *osFile) writeBack(int64, int64) {}

// readAhead leaves it to the system what to read.
func (f *osFile) readAhead(int64, int64) {}

func memoryBytes() int64 { return 0 }

func (f *osFile) allocate(off, n int64) error { return f.grow(off + n) }
