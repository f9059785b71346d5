package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// eachFile visits the regular files below a directory. Files that vanish
// meanwhile are passed over.
func eachFile(dir string, visit func(path string, info fs.FileInfo) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return visit(path, info)
	})
}

// isLog tells whether the name of a file ends in one of the suffixes.
func isLog(path string, suffixes []string) bool {
	return slices.ContainsFunc(suffixes, func(suffix string) bool { return strings.HasSuffix(path, suffix) })
}

// dropPages makes the page cache forget the files of a directory, which this
// process may have open and mapped.
func dropPages(dir string) error {
	if err := unmapPages(dir); err != nil {
		return err
	}
	return eachFile(dir, func(path string, _ fs.FileInfo) error { return dropFile(path) })
}

// readPages brings the files of a directory into the page cache.
func readPages(dir string) error {
	return eachFile(dir, func(path string, _ fs.FileInfo) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(struct{ io.Writer }{io.Discard}, f)
		return err
	})
}

// copyFiles copies a directory, holes in its files included, and syncs the copy,
// so that its writing is over before the measurement begins.
func copyFiles(to, from string) error {
	return eachFile(from, func(path string, info fs.FileInfo) error {
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		src, err := os.Open(path)
		if err != nil {
			return err
		}
		defer src.Close()
		dst, err := os.OpenFile(target, os.O_RDWR|os.O_CREATE|os.O_TRUNC, info.Mode().Perm())
		if err != nil {
			return err
		}
		err = copySparse(dst, src)
		return errors.Join(err, dst.Truncate(info.Size()), dst.Sync(), dst.Close())
	})
}

// copySparse copies all but the megabytes that are zero.
func copySparse(dst io.WriterAt, src io.ReaderAt) error {
	buf := make([]byte, 1<<20)
	zero := make([]byte, len(buf))
	for off := int64(0); ; off += int64(len(buf)) {
		n, err := src.ReadAt(buf, off)
		if string(buf[:n]) != string(zero[:n]) {
			if _, err := dst.WriteAt(buf[:n], off); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
