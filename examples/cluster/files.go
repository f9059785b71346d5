package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A collection is the data of the demo: the files below a directory.
type collection struct {
	entries []entry
	bytes   int64
	skipped int // files over the limit
}

// collect lists the files below root, at most limit (0: all) of at most maxFile
// bytes each. Symbolic links are resolved, those to directories only at root.
func collect(root string, maxFile int64, limit int) (*collection, error) {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, err
	}
	c := &collection{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return err
		case !info.Mode().IsRegular():
			return nil
		case info.Size() > maxFile:
			c.skipped++
			return nil
		}
		key, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		c.entries = append(c.entries, entry{key: filepath.ToSlash(key), path: path})
		c.bytes += info.Size()
		if limit > 0 && len(c.entries) == limit {
			return fs.SkipAll
		}
		return nil
	})
	if err == nil && len(c.entries) == 0 {
		err = fmt.Errorf("no files of at most %d bytes below %s; choose another -src or -max-file", maxFile, root)
	}
	return c, err
}
