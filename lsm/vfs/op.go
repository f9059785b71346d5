package vfs

import (
	"errors"
	"fmt"
)

// Op is one operation on a file system or on one of its files.
type Op struct {
	Kind Kind
	// Name is that of the file or directory: the name it was opened with.
	Name string
	// To is the new name, of OpRename and OpLink.
	To string
	// Off and Len are those of OpRead, OpWrite and OpAllocate. OpTruncate has
	// the new size in Len.
	Off, Len int64
	// N is the running number of the operation, from 0.
	N uint64
}

func (o Op) String() string {
	s := fmt.Sprintf("#%d %s %s", o.N, o.Kind, o.Name)
	switch o.Kind {
	case OpRename, OpLink:
		s += " to " + o.To
	case OpRead, OpWrite, OpAllocate:
		s += fmt.Sprintf(" [%d, %d)", o.Off, o.Off+o.Len)
	case OpTruncate:
		s += fmt.Sprintf(" to %d", o.Len)
	}
	return s
}

// Kind says what an operation is.
type Kind uint8

const (
	OpCreate Kind = iota
	OpOpen
	OpOpenReadWrite
	OpRemove
	OpRename
	OpLink
	OpMkdirAll
	OpSyncDir
	OpList
	OpStat
	OpLock
	OpFree
	OpRead
	OpWrite
	OpClose
	OpSync
	OpSyncData
	OpTruncate
	OpAllocate
	OpSize
	kinds
)

var kindNames = [kinds]string{"create", "open", "open read-write", "remove", "rename", "link", "mkdir",
	"sync directory", "list", "stat", "lock", "free", "read", "write", "close", "sync", "sync data", "truncate",
	"allocate", "size"}

func (k Kind) String() string {
	if k < kinds {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Changes reports whether an operation of this kind changes what a power cut
// may leave.
func (k Kind) Changes() bool {
	switch k {
	case OpCreate, OpRemove, OpRename, OpLink, OpMkdirAll, OpLock, OpWrite, OpTruncate, OpAllocate:
		return true
	}
	return k.Syncs()
}

// Syncs reports whether an operation of this kind makes something durable.
func (k Kind) Syncs() bool { return k == OpSync || k == OpSyncData || k == OpSyncDir }

// ErrInjected is the cause of the faults that this package makes up itself.
var ErrInjected = errors.New("vfs: injected fault")

// ErrLost, as the answer of a hook, lets an operation report success without being
// done: a write that never reached the disk, a sync that lies. It has no such
// effect on operations that return something else than an error: they fail.
var ErrLost = errors.New("vfs: lost operation")

// PartialError, as the answer of a hook, lets the first N bytes of a read or a
// write be done before it fails with Err.
type PartialError struct {
	N   int
	Err error
}

func (e *PartialError) Error() string {
	return fmt.Sprintf("vfs: stopped after %d bytes: %v", e.N, e.Err)
}
func (e *PartialError) Unwrap() error { return e.Err }

// MisdirectedError, as the answer of a hook, lets a write go to Off, in the same
// file, and report success.
type MisdirectedError struct{ Off int64 }

func (e *MisdirectedError) Error() string { return fmt.Sprintf("vfs: write misdirected to %d", e.Off) }

// SyncError, as the answer of a hook, lets a sync fail with Err, and a Mem below
// lose what was to be synced: Pages says how. A SyncDir that failed so fails for
// ever. On other file systems, or for another error, the sync is not done and
// nothing is lost.
type SyncError struct {
	Pages Pages
	Err   error
}

func (e *SyncError) Error() string {
	return fmt.Sprintf("vfs: sync failed, pages %s: %v", e.Pages, e.Err)
}
func (e *SyncError) Unwrap() error { return e.Err }
