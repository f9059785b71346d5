// Package vfs is the file system as the storage engine sees it: an interface
// small enough to model, the real one, one in memory that loses what a power
// cut would lose, and one that injects faults.
package vfs

import (
	"errors"
	"io"
)

// FS is a file system. Names are slash-separated paths. Implementations are
// safe for concurrent use. Errors satisfy errors.Is with fs.ErrNotExist,
// fs.ErrExist and, for a full volume, ErrNoSpace.
type FS interface {
	// Create opens a file for reading and writing, truncating an existing one.
	// The directory entry is durable only after SyncDir.
	Create(name string) (File, error)
	// Open opens an existing file for reading.
	Open(name string) (File, error)
	// OpenReadWrite opens an existing file for reading and writing.
	OpenReadWrite(name string) (File, error)
	Remove(name string) error
	// Rename replaces newname atomically. Durable only after SyncDir.
	Rename(oldname, newname string) error
	// Link makes newname another name of the file oldname (a hard link).
	Link(oldname, newname string) error
	MkdirAll(dir string) error
	// SyncDir makes the entries of dir durable: creations, removals, renames.
	SyncDir(dir string) error
	// List gives the sorted base names of the entries of dir.
	List(dir string) ([]string, error)
	Stat(name string) (Info, error)
	// Lock takes an exclusive lock on the named file, creating it. It fails
	// with ErrLocked while another holder, in any process, has it.
	Lock(name string) (io.Closer, error)
	// Free gives the bytes that an unprivileged writer may still use on the
	// volume of dir.
	Free(dir string) (int64, error)
	// Memory gives the bytes of memory that this process and the system's cache of
	// files have together, 0 where that is not known or files are in no cache.
	Memory() int64
}

// File is an open file. ReadAt and WriteAt may run concurrently.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes data and metadata durable (fsync).
	Sync() error
	// SyncData makes data, and the metadata needed to read it back, durable
	// (fdatasync).
	SyncData() error
	// WriteBack asks for [off, off+n) to be brought to the disk soon, so that a
	// later sync finds little to do. It makes nothing durable, may do nothing, and
	// may wait for a busy disk; what goes wrong is told by the sync.
	WriteBack(off, n int64)
	// ReadAhead asks for [off, off+n) to be brought from the disk into memory, since
	// it is likely to be read soon. It may do nothing, and does not wait for the
	// disk unless that is busy; what goes wrong is told by the read.
	ReadAhead(off, n int64)
	Truncate(size int64) error
	// Allocate reserves space for [off, off+n) where the file system can. The
	// size of the file grows to off+n if it was smaller.
	Allocate(off, n int64) error
	Size() (int64, error)
}

// Info describes a directory entry.
type Info struct {
	Size int64
	Dir  bool
}

var (
	// ErrNoSpace says that the volume is full (ENOSPC) or over quota (EDQUOT).
	ErrNoSpace = errors.New("vfs: no space left on the volume; free space or enlarge it")
	// ErrLocked says that another holder has the lock.
	ErrLocked = errors.New("vfs: locked by another holder")
)
