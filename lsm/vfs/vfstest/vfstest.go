// Package vfstest is the conformance suite of vfs.FS: what the storage engine
// relies on, and every implementation has to do.
package vfstest

import (
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
)

// Run tests the file systems that open gives, each in a fresh directory of its
// own. The directory exists on the real file system, so vfs.OS passes as it is.
func Run(t *testing.T, open func(t testing.TB) vfs.FS) {
	for _, c := range []struct {
		name string
		test func(*suite)
	}{
		{"Create", (*suite).create},
		{"Missing", (*suite).missing},
		{"ReadWrite", (*suite).readWrite},
		{"ReadOnly", (*suite).readOnly},
		{"Holes", (*suite).holes},
		{"Truncate", (*suite).truncate},
		{"Allocate", (*suite).allocate},
		{"BadRanges", (*suite).badRanges},
		{"Remove", (*suite).remove},
		{"RemoveOpen", (*suite).removeOpen},
		{"Rename", (*suite).rename},
		{"RenameOver", (*suite).renameOver},
		{"RenameAcross", (*suite).renameAcross},
		{"Link", (*suite).link},
		{"Directories", (*suite).directories},
		{"List", (*suite).list},
		{"Sync", (*suite).sync},
		{"Lock", (*suite).lock},
		{"Free", (*suite).free},
		{"Closed", (*suite).closed},
		{"Handles", (*suite).handles},
		{"Concurrent", (*suite).concurrent},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &suite{T: t, Assertions: require.New(t), fs: open(t), dir: filepath.ToSlash(t.TempDir())}
			s.NoError(s.fs.MkdirAll(s.dir))
			c.test(s)
		})
	}
}

// A suite is one case: a file system and a directory in it.
type suite struct {
	*testing.T
	*require.Assertions
	fs  vfs.FS
	dir string
}

func (s *suite) path(name string) string { return path.Join(s.dir, name) }

// write makes a file with this content.
func (s *suite) write(name, content string) {
	f, err := s.fs.Create(s.path(name))
	s.NoError(err)
	s.put(f, content, 0)
	s.NoError(f.Close())
}

func (s *suite) put(f vfs.File, p string, off int64) {
	n, err := f.WriteAt([]byte(p), off)
	s.NoError(err)
	s.Equal(len(p), n)
}

// want checks the whole content of an open file.
func (s *suite) want(f vfs.File, content string) {
	s.Helper()
	size, err := f.Size()
	s.NoError(err)
	s.Equal(int64(len(content)), size)
	got := make([]byte, size)
	if n, err := f.ReadAt(got, 0); err != io.EOF {
		s.NoError(err)
		s.Equal(len(got), n)
	}
	s.Equal(content, string(got))
}

// wantFile checks the whole content of a file by its name.
func (s *suite) wantFile(name, content string) {
	s.Helper()
	f, err := s.fs.Open(s.path(name))
	s.NoError(err)
	s.want(f, content)
	s.NoError(f.Close())
	info, err := s.fs.Stat(s.path(name))
	s.NoError(err)
	s.Equal(vfs.Info{Size: int64(len(content))}, info)
}

func (s *suite) wantList(dir string, names ...string) {
	s.Helper()
	got, err := s.fs.List(s.path(dir))
	s.NoError(err)
	s.ElementsMatch(names, got)
	s.IsNonDecreasing(append(got, "\xff"))
}

func (s *suite) create() {
	f, err := s.fs.Create(s.path("a"))
	s.NoError(err)
	s.want(f, "")
	s.put(f, "hello", 0)
	s.want(f, "hello")
	s.NoError(f.Close())
	s.wantFile("a", "hello")

	f, err = s.fs.Create(s.path("a"))
	s.NoError(err)
	s.want(f, "")
	s.NoError(f.Close())
	s.wantFile("a", "")

	_, err = s.fs.Create(s.path("none/a"))
	s.ErrorIs(err, fs.ErrNotExist)
	_, err = s.fs.Create(s.dir)
	s.Error(err)
	_, err = s.fs.Create(s.path("a/b"))
	s.Error(err)
}

func (s *suite) missing() {
	name := s.path("none")
	for op, do := range map[string]func() error{
		"open":            func() error { _, err := s.fs.Open(name); return err },
		"open read-write": func() error { _, err := s.fs.OpenReadWrite(name); return err },
		"remove":          func() error { return s.fs.Remove(name) },
		"rename":          func() error { return s.fs.Rename(name, s.path("b")) },
		"link":            func() error { return s.fs.Link(name, s.path("b")) },
		"stat":            func() error { _, err := s.fs.Stat(name); return err },
		"list":            func() error { _, err := s.fs.List(name); return err },
		"sync":            func() error { return s.fs.SyncDir(name) },
		"lock":            func() error { _, err := s.fs.Lock(path.Join(name, "lock")); return err },
	} {
		s.ErrorIs(do(), fs.ErrNotExist, op)
	}
	s.wantList("")
}

func (s *suite) readWrite() {
	s.write("a", "0123456789")
	f, err := s.fs.OpenReadWrite(s.path("a"))
	s.NoError(err)
	defer f.Close()
	s.put(f, "AB", 4)
	s.put(f, "xyz", 9)
	s.put(f, "", 3)
	s.want(f, "0123AB678xyz")

	p := make([]byte, 4)
	n, err := f.ReadAt(p, 4)
	s.NoError(err)
	s.Equal("AB67", string(p[:n]))
	n, err = f.ReadAt(p, 10)
	s.Equal(io.EOF, err)
	s.Equal("yz", string(p[:n]))
	n, err = f.ReadAt(p, 12)
	s.Equal(io.EOF, err)
	s.Zero(n)
	n, err = f.ReadAt(p, 1<<20)
	s.Equal(io.EOF, err)
	s.Zero(n)
}

func (s *suite) readOnly() {
	s.write("a", "abc")
	f, err := s.fs.Open(s.path("a"))
	s.NoError(err)
	defer f.Close()
	_, err = f.WriteAt([]byte("x"), 0)
	s.Error(err)
	s.Error(f.Truncate(0))
	s.want(f, "abc")
}

func (s *suite) holes() {
	f, err := s.fs.Create(s.path("a"))
	s.NoError(err)
	defer f.Close()
	s.put(f, "end", 10_000)
	want := make([]byte, 10_003)
	copy(want[10_000:], "end")
	s.want(f, string(want))
	s.put(f, "mid", 4095)
	copy(want[4095:], "mid")
	s.want(f, string(want))
}

func (s *suite) truncate() {
	f, err := s.fs.Create(s.path("a"))
	s.NoError(err)
	defer f.Close()
	s.put(f, "0123456789", 0)
	s.NoError(f.Truncate(4))
	s.want(f, "0123")
	s.NoError(f.Truncate(6))
	s.want(f, "0123\x00\x00")
	s.NoError(f.Truncate(5000))
	s.NoError(f.Truncate(2))
	s.put(f, "x", 5)
	s.want(f, "01\x00\x00\x00x")
	s.NoError(f.Truncate(0))
	s.want(f, "")
	s.Error(f.Truncate(-1))
}

func (s *suite) allocate() {
	f, err := s.fs.Create(s.path("a"))
	s.NoError(err)
	defer f.Close()
	s.put(f, "abc", 0)
	s.NoError(f.Allocate(0, 8))
	s.want(f, "abc\x00\x00\x00\x00\x00")
	s.NoError(f.Allocate(1, 2))
	s.want(f, "abc\x00\x00\x00\x00\x00")
	s.NoError(f.Allocate(8192, 4096))
	f.WriteBack(0, 8)
	f.WriteBack(1<<40, 1) // behind the end: a hint all the same
	f.ReadAhead(0, 8)
	f.ReadAhead(1<<40, 1)
	size, err := f.Size()
	s.NoError(err)
	s.EqualValues(12288, size)
	s.Error(f.Allocate(-1, 10))
	s.Error(f.Allocate(0, 0))
}

func (s *suite) badRanges() {
	f, err := s.fs.Create(s.path("a"))
	s.NoError(err)
	defer f.Close()
	_, err = f.WriteAt([]byte("x"), -1)
	s.Error(err)
	_, err = f.ReadAt(make([]byte, 1), -1)
	s.Error(err)
	s.NotEqual(io.EOF, err)
	s.want(f, "")
}

func (s *suite) remove() {
	s.write("a", "x")
	s.NoError(s.fs.Remove(s.path("a")))
	_, err := s.fs.Stat(s.path("a"))
	s.ErrorIs(err, fs.ErrNotExist)
	s.ErrorIs(s.fs.Remove(s.path("a")), fs.ErrNotExist)

	s.NoError(s.fs.MkdirAll(s.path("d")))
	s.write("d/a", "x")
	s.Error(s.fs.Remove(s.path("d")))
	s.wantFile("d/a", "x")
	s.NoError(s.fs.Remove(s.path("d/a")))
	s.NoError(s.fs.Remove(s.path("d")))
	s.wantList("")
}

// removeOpen: an open file outlives its name. Where the system does not allow
// it, the removal fails.
func (s *suite) removeOpen() {
	s.write("a", "old")
	f, err := s.fs.OpenReadWrite(s.path("a"))
	s.NoError(err)
	defer f.Close()
	if err := s.fs.Remove(s.path("a")); err != nil {
		s.Skip("the file system keeps open files:", err)
	}
	s.write("a", "new")
	s.put(f, "O", 0)
	s.NoError(f.Sync())
	s.want(f, "Old")
	s.wantFile("a", "new")
}

func (s *suite) rename() {
	s.write("a", "x")
	s.NoError(s.fs.Rename(s.path("a"), s.path("b")))
	s.wantList("", "b")
	s.wantFile("b", "x")
	s.NoError(s.fs.Rename(s.path("b"), s.path("b")))
	s.wantFile("b", "x")
	s.ErrorIs(s.fs.Rename(s.path("b"), s.path("none/b")), fs.ErrNotExist)
	s.wantList("", "b")
}

func (s *suite) renameOver() {
	s.write("a", "new")
	s.write("b", "old")
	s.NoError(s.fs.Rename(s.path("a"), s.path("b")))
	s.wantList("", "b")
	s.wantFile("b", "new")

	s.NoError(s.fs.MkdirAll(s.path("d")))
	s.Error(s.fs.Rename(s.path("b"), s.path("d")))
	s.Error(s.fs.Rename(s.path("d"), s.path("b")))
	s.wantList("", "b", "d")
	s.wantFile("b", "new")
}

func (s *suite) renameAcross() {
	s.NoError(s.fs.MkdirAll(s.path("d")))
	s.NoError(s.fs.MkdirAll(s.path("e/f")))
	s.write("d/a", "x")
	s.write("e/a", "y")
	s.NoError(s.fs.Rename(s.path("d/a"), s.path("e/a")))
	s.wantList("d")
	s.wantList("e", "a", "f")
	s.wantFile("e/a", "x")
	s.NoError(s.fs.Rename(s.path("e"), s.path("d/e")))
	s.wantList("", "d")
	s.wantList("d/e", "a", "f")
	s.wantFile("d/e/a", "x")
	s.Error(s.fs.Rename(s.path("d"), s.path("d/e/d")))
}

func (s *suite) link() {
	s.NoError(s.fs.MkdirAll(s.path("d")))
	s.write("a", "x")
	s.NoError(s.fs.Link(s.path("a"), s.path("d/b")))
	s.wantFile("d/b", "x")
	f, err := s.fs.OpenReadWrite(s.path("d/b"))
	s.NoError(err)
	s.put(f, "both", 0)
	s.NoError(f.Close())
	s.wantFile("a", "both")
	s.NoError(s.fs.Remove(s.path("a")))
	s.wantFile("d/b", "both")

	s.write("c", "y")
	s.ErrorIs(s.fs.Link(s.path("c"), s.path("d/b")), fs.ErrExist)
	s.wantFile("d/b", "both")
	s.Error(s.fs.Link(s.path("d"), s.path("e")))
}

func (s *suite) directories() {
	s.NoError(s.fs.MkdirAll(s.path("d/e/f")))
	s.NoError(s.fs.MkdirAll(s.path("d/e/f")))
	info, err := s.fs.Stat(s.path("d/e"))
	s.NoError(err)
	s.True(info.Dir)
	s.write("file", "x")
	s.Error(s.fs.MkdirAll(s.path("file")))
	s.Error(s.fs.MkdirAll(s.path("file/d")))
	_, err = s.fs.List(s.path("file"))
	s.Error(err)
	_, err = s.fs.OpenReadWrite(s.path("d"))
	s.Error(err)
}

func (s *suite) list() {
	s.wantList("")
	for _, name := range []string{"b", "a", "c", "10", "9"} {
		s.write(name, name)
	}
	s.NoError(s.fs.MkdirAll(s.path("d/inner")))
	s.wantList("", "10", "9", "a", "b", "c", "d")
}

func (s *suite) sync() {
	f, err := s.fs.Create(s.path("a"))
	s.NoError(err)
	defer f.Close()
	s.NoError(f.Sync())
	s.put(f, "x", 0)
	s.NoError(f.SyncData())
	s.put(f, "y", 1)
	s.NoError(f.Sync())
	s.NoError(f.Sync())
	s.NoError(s.fs.SyncDir(s.dir))
	s.want(f, "xy")
}

func (s *suite) lock() {
	l, err := s.fs.Lock(s.path("lock"))
	s.NoError(err)
	_, err = s.fs.Lock(s.path("lock"))
	s.ErrorIs(err, vfs.ErrLocked)
	other, err := s.fs.Lock(s.path("other"))
	s.NoError(err)
	s.NoError(other.Close())
	s.NoError(l.Close())
	s.Error(l.Close())
	again, err := s.fs.Lock(s.path("lock"))
	s.NoError(err)
	s.Error(l.Close())
	_, err = s.fs.Lock(s.path("lock"))
	s.ErrorIs(err, vfs.ErrLocked)
	s.NoError(again.Close())
}

func (s *suite) free() {
	n, err := s.fs.Free(s.dir)
	s.NoError(err)
	s.Positive(n)
	_, err = s.fs.Free(s.path("none"))
	s.Error(err)
}

func (s *suite) closed() {
	f, err := s.fs.Create(s.path("a"))
	s.NoError(err)
	s.NoError(f.Close())
	for op, do := range map[string]func() error{
		"read":      func() error { _, err := f.ReadAt(make([]byte, 1), 0); return err },
		"write":     func() error { _, err := f.WriteAt([]byte("x"), 0); return err },
		"sync":      f.Sync,
		"sync data": f.SyncData,
		"truncate":  func() error { return f.Truncate(0) },
		"allocate":  func() error { return f.Allocate(0, 1) },
		"size":      func() error { _, err := f.Size(); return err },
		"close":     f.Close,
	} {
		s.ErrorIs(do(), fs.ErrClosed, op)
	}
}

// handles of one file see each other's writes at once.
func (s *suite) handles() {
	s.write("a", "one")
	r, err := s.fs.Open(s.path("a"))
	s.NoError(err)
	defer r.Close()
	w, err := s.fs.OpenReadWrite(s.path("a"))
	s.NoError(err)
	defer w.Close()
	s.put(w, "two more", 0)
	s.want(r, "two more")
	s.NoError(s.fs.Rename(s.path("a"), s.path("b")))
	s.put(w, "2", 0)
	s.want(r, "2wo more")
	s.wantFile("b", "2wo more")
}

// concurrent writers and readers of one file, each in its own range.
func (s *suite) concurrent() {
	const writers, writes, size = 4, 50, 100
	f, err := s.fs.Create(s.path("a"))
	s.NoError(err)
	defer f.Close()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			p, q := make([]byte, size), make([]byte, size)
			for i := range writes {
				for j := range p {
					p[j] = byte(w*writes + i)
				}
				off := int64(w * size)
				_, err := f.WriteAt(p, off)
				s.check(err)
				_, err = f.ReadAt(q, off)
				s.check(err)
				if string(p) != string(q) {
					s.T.Errorf("writer %d reads something else than it wrote", w)
				}
			}
			s.check(f.SyncData())
		})
	}
	wg.Wait()
}

// check reports an error without ending the goroutine.
func (s *suite) check(err error) {
	if err != nil {
		s.T.Error(err)
	}
}
