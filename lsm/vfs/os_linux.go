package vfs

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A dataSync is one fdatasync. The calls are pooled, with their functions, so
// that a sync allocates nothing.
type dataSync struct {
	err error
	run func(fd uintptr)
}

var dataSyncs = sync.Pool{New: func() any {
	s := new(dataSync)
	s.run = func(fd uintptr) {
		s.err = again(func() error { return unix.Fdatasync(int(fd)) })
	}
	return s
}}

// syncData goes through the RawConn, which keeps the descriptor from being
// closed, and used again for another file, while it is synced. That the file is
// closed already is all that Control complains of.
func (f *osFile) syncData() error {
	s := dataSyncs.Get().(*dataSync)
	defer dataSyncs.Put(s)
	if f.raw.Control(s.run) != nil {
		return f.failed("fdatasync", os.ErrClosed)
	}
	return f.failed("fdatasync", s.err)
}

func (f *osFile) writeBack(off, n int64) {
	_ = f.raw.Control(func(fd uintptr) {
		// An error stays with the file, for the next fsync to report.
		_ = unix.SyncFileRange(int(fd), off, n, unix.SYNC_FILE_RANGE_WRITE)
	})
}

func (f *osFile) readAhead(off, n int64) {
	_ = f.raw.Control(func(fd uintptr) {
		_ = unix.Fadvise(int(fd), off, n, unix.FADV_WILLNEED)
	})
}

// cgroupLimit holds the limit of a container, seen from within, or "max".
const cgroupLimit = "/sys/fs/cgroup/memory.max"

func memoryBytes() int64 {
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) != nil {
		return 0
	}
	all := int64(uint64(s.Totalram) * uint64(s.Unit))
	if text, err := os.ReadFile(cgroupLimit); err == nil {
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
			all = min(all, limit)
		}
	}
	return all
}

func (f *osFile) allocate(off, n int64) error {
	var err error
	if f.raw.Control(func(fd uintptr) {
		err = again(func() error { return unix.Fallocate(int(fd), 0, off, n) })
	}) != nil {
		return f.failed("fallocate", os.ErrClosed)
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.grow(off + n)
	}
	return f.failed("fallocate", err)
}

func (f *osFile) failed(op string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: f.file.Name(), Err: err}
}
