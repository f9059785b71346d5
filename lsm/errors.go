package lsm

import (
	"errors"
	"fmt"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/wal"
	"example.com/kvstore/lsm/vfs"
)

var (
	// ErrClosed is what every operation gives after Close. Nothing was written.
	ErrClosed = errors.New("lsm: the tree is closed")
	// ErrLocked says that another process, or another Tree, has the directory.
	ErrLocked = vfs.ErrLocked
	// ErrReadOnly says that an earlier write or sync failed, or background work
	// did. Reads go on; writes need a new Open once the disk is well. The cause is wrapped.
	ErrReadOnly = errors.New("lsm: no more writes after a failure; reopen the tree once the disk is well")
	// ErrUncertain says that the log failed under this very write: it may be found
	// there at the next Open, or not. The error is an ErrReadOnly too. From Put and
	// Delete it may also wrap what refused the second attempt at a write, under a
	// higher stamp: then the first attempt was written, and what the key shows is
	// read as ever.
	ErrUncertain = errors.New("lsm: the outcome of the write is unknown")
	// ErrNoSpace says that the volume is full. Nothing was written; writes
	// succeed again once there is room.
	ErrNoSpace = vfs.ErrNoSpace
	// ErrOverloaded is what Submit gives when the log cannot keep up. Nothing
	// was written; try again later.
	ErrOverloaded = wal.ErrFull
	// ErrInvalid says that a record or an option makes no sense. Nothing was written.
	ErrInvalid = errors.New("lsm: invalid argument")
	// ErrKeyTooLarge and ErrValueTooLarge say that a record is beyond
	// MaxKeyBytes or MaxValueBytes. Nothing was written.
	ErrKeyTooLarge   = fmt.Errorf("lsm: the key is longer than %d bytes", MaxKeyBytes)
	ErrValueTooLarge = fmt.Errorf("lsm: the value is longer than %d bytes", MaxValueBytes)
	// ErrCorrupt is matched by every *CorruptError.
	ErrCorrupt = base.ErrCorrupt
	// ErrIncompatible says that the directory needs a newer version of this library.
	ErrIncompatible = base.ErrIncompatible
)

// A CorruptError says which bytes are damaged and why they cannot be right.
type CorruptError = base.CorruptError
