package vfs

import (
	"errors"
	"io/fs"
	"path"
)

// MakeDir creates a directory and whatever is missing above it, so that a power
// cut does not take it away again. The entry of dir itself is synced even when
// dir is there: an earlier process may have been killed before it did that.
func MakeDir(fsys FS, dir string) error {
	parent := path.Dir(dir)
	if parent == dir {
		return nil
	}
	if _, err := fsys.Stat(parent); errors.Is(err, fs.ErrNotExist) {
		if err := MakeDir(fsys, parent); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	return fsys.SyncDir(parent)
}
