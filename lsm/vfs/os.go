package vfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// OS is the real file system. Files are created with mode 0600 and directories
// with 0700: they hold other people's data.
var OS FS = osFS{}

const (
	fileMode = 0o600
	dirMode  = 0o700
)

type osFS struct{}

func (osFS) Create(name string) (File, error) {
	return openOS(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

func (osFS) Open(name string) (File, error) { return openOS(name, os.O_RDONLY) }

func (osFS) OpenReadWrite(name string) (File, error) { return openOS(name, os.O_RDWR) }

func (osFS) Remove(name string) error { return osError(os.Remove(local(name))) }

func (osFS) Rename(oldname, newname string) error {
	return osError(os.Rename(local(oldname), local(newname)))
}

func (osFS) Link(oldname, newname string) error {
	return osError(os.Link(local(oldname), local(newname)))
}

func (osFS) MkdirAll(dir string) error { return osError(os.MkdirAll(local(dir), dirMode)) }

func (osFS) SyncDir(dir string) error { return osError(syncDir(local(dir))) }

func (osFS) List(dir string) ([]string, error) {
	d, err := os.Open(local(dir))
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	err = errors.Join(err, d.Close())
	slices.Sort(names)
	return names, err
}

func (osFS) Stat(name string) (Info, error) {
	fi, err := os.Stat(local(name))
	if err != nil {
		return Info{}, err
	}
	return Info{Size: fi.Size(), Dir: fi.IsDir()}, nil
}

func (osFS) Memory() int64                  { return memoryBytes() }
func (osFS) Free(dir string) (int64, error) { return freeBytes(local(dir)) }

// Lock leaves the file in place when it is released: removing it would let two
// processes hold locks on two files of the same name.
func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(local(name), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, osError(err)
	}
	l := &osLock{file: f}
	if err := l.take(); err != nil {
		f.Close()
		return nil, fmt.Errorf("vfs: locking %s: %w", name, err)
	}
	return l, nil
}

// held lists the locks of this process: where advisory locks belong to the
// process (some network file systems), the kernel would grant a second one.
var held struct {
	sync.Mutex
	locks []os.FileInfo
}

// An osLock is held until Close, or until the process ends.
type osLock struct {
	file *os.File
	info os.FileInfo
}

func (l *osLock) take() error {
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	if !l.register(info) {
		return ErrLocked
	}
	if err := lockFile(l.file); err != nil {
		l.unregister()
		return err
	}
	return nil
}

func (l *osLock) register(info os.FileInfo) bool {
	held.Lock()
	defer held.Unlock()
	for _, other := range held.locks {
		if os.SameFile(info, other) {
			return false
		}
	}
	held.locks = append(held.locks, info)
	l.info = info
	return true
}

func (l *osLock) unregister() {
	held.Lock()
	defer held.Unlock()
	held.locks = slices.DeleteFunc(held.locks, func(i os.FileInfo) bool { return i == l.info })
}

// Close releases the lock. A second Close returns fs.ErrClosed.
func (l *osLock) Close() error {
	err := l.file.Close()
	if err == nil {
		l.unregister()
	}
	return err
}

type osFile struct {
	file *os.File
	raw  syscall.RawConn
}

func openOS(name string, flag int) (File, error) {
	f, err := os.OpenFile(local(name), flag, fileMode)
	if err != nil {
		return nil, osError(err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &osFile{f, raw}, nil
}

func (f *osFile) ReadAt(p []byte, off int64) (int, error) { return f.file.ReadAt(p, off) }

func (f *osFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.file.WriteAt(p, off)
	return n, osError(err)
}

func (f *osFile) Close() error              { return osError(f.file.Close()) }
func (f *osFile) Sync() error               { return osError(f.file.Sync()) }
func (f *osFile) SyncData() error           { return osError(f.syncData()) }
func (f *osFile) WriteBack(off, n int64)    { f.writeBack(off, n) }
func (f *osFile) ReadAhead(off, n int64)    { f.readAhead(off, n) }
func (f *osFile) Truncate(size int64) error { return osError(f.file.Truncate(size)) }

func (f *osFile) Allocate(off, n int64) error {
	if off < 0 || n <= 0 {
		return &os.PathError{Op: "allocate", Path: f.file.Name(), Err: os.ErrInvalid}
	}
	return osError(f.allocate(off, n))
}

// grow makes the file at least size bytes long, without reserving the space.
func (f *osFile) grow(size int64) error {
	if now, err := f.Size(); err != nil || now >= size {
		return err
	}
	return f.file.Truncate(size)
}

func (f *osFile) Size() (int64, error) {
	fi, err := f.file.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// local turns a slash-separated name into one of this system. No name is the
// working directory.
func local(name string) string {
	if name == "" {
		return "."
	}
	return filepath.FromSlash(name)
}

// osError adds ErrNoSpace to the errors that mean it, keeping the cause.
func osError(err error) error {
	if err == nil || !isNoSpace(err) {
		return err
	}
	return fmt.Errorf("%w (%w)", ErrNoSpace, err)
}
