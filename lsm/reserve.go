package lsm

import (
	"errors"
	"path"

	"example.com/kvstore/lsm/internal/base"
)

// The reserve is a file that keeps space for what must not fail on a full volume:
// the flush of a memtable and an edit of the manifest, with which log and tables can
// be given up. Who finds no space for one of them deletes the reserve and tries
// again; flushLoop makes it again as soon as there is room. Until then the tree
// takes writes only as far as memtables and log have room for them already. The file
// need not survive a crash.

// reserveBytes is the size of the reserve: that of the tables of one memtable, which
// no compression makes longer by a quarter, and some edits.
func (o *Options) reserveBytes() int64 { return o.MemtableBytes + o.MemtableBytes/4 + 64<<10 }

func (t *Tree) reserveName() string { return path.Join(t.dir, base.ReserveName) }

// keepReserve makes the reserve. It is called by flushLoop alone.
func (t *Tree) keepReserve() error {
	f, err := t.o.FS.Create(t.reserveName())
	if err == nil {
		err = errors.Join(f.Allocate(0, t.o.reserveBytes()), f.Close())
	}
	if err != nil {
		t.o.FS.Remove(t.reserveName())
		return err
	}
	t.reserved.Store(true)
	return nil
}

// useReserve gives the space of the reserve to whoever comes first. It reports
// whether there was any.
func (t *Tree) useReserve() bool {
	if !t.reserved.Swap(false) {
		return false
	}
	t.o.Logger.Warn("lsm: the volume is full; the reserve is used")
	kick(t.flushKick) // so that it is made again
	return t.o.FS.Remove(t.reserveName()) == nil
}
