package kvstore

import (
	"context"
	"errors"
	"fmt"
	"path"

	"example.com/kvstore/lsm"
	"example.com/kvstore/lsm/vfs"
)

// Checkpoint makes a copy of this node's data in another directory, which must be empty
// or not there: all that this node held before the call, of other writes some. It is
// durable on return; after an error there is none. Tables are hard links where the
// volume allows it, so that it takes little time and space.
//
// Open of that directory, or of a copy of it, restores the node, after it has read and
// verified everything: a copy from which something is missing, or in which a bit is
// wrong, is refused with ErrCorrupt. The copy is of one node, under its name: it must
// not be opened while the node itself runs. What the copy is too old to have comes from
// the other owners; if they have none of it either it is gone.
//
// It ends with ctx, or with ErrClosed when the node is closed, which does not wait for
// it.
func (db *DB) Checkpoint(ctx context.Context, dir string) error {
	if dir == "" {
		return invalid("the directory of a checkpoint has no name")
	}
	if err := db.enter(ctx); err != nil {
		return err
	}
	db.loops.Add(1)
	db.gate.leave()
	defer db.loops.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(db.background, cancel)()
	if err := vfs.MakeDir(db.opts.FS, dir); err != nil {
		return fmt.Errorf("kvstore: checkpoint: %w", err)
	}
	err := db.tree.CheckpointContext(ctx, path.Join(dir, "data"))
	switch {
	case err == nil:
		return nil
	case db.stopped():
		return ErrClosed
	case ctx.Err() != nil:
		return contextError(ctx)
	case errors.Is(err, lsm.ErrInvalid):
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	case errors.Is(err, lsm.ErrLocked):
		return fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return fmt.Errorf("kvstore: checkpoint: %w", engineError(err))
}
