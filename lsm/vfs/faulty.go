package vfs

import (
	"errors"
	"io"
	"sync/atomic"
)

// A Hook sees every operation before it is done, on the goroutine that does it
// and with no lock held: it may sleep, look at a Mem below, or note the
// operation. An error that it returns becomes the result of the operation,
// which is not done; the errors *PartialError, *MisdirectedError, *SyncError and
// ErrLost say otherwise. A Close is done all the same.
type Hook = func(Op) error

// Faulty returns fsys with hook before each operation.
func Faulty(fsys FS, hook Hook) FS { return &faultyFS{fs: fsys, hook: hook} }

type faultyFS struct {
	fs   FS
	hook Hook
	n    atomic.Uint64
}

// ask gives the hook's answer to an operation.
func (f *faultyFS) ask(op Op) error {
	op.N = f.n.Add(1) - 1
	return f.hook(op)
}

// do asks, and does what returns nothing but an error.
func (f *faultyFS) do(op Op, do func() error) error {
	switch err := f.ask(op); err {
	case nil:
		return do()
	case ErrLost:
		return nil
	default:
		return err
	}
}

func (f *faultyFS) open(op Op, open func(string) (File, error)) (File, error) {
	if err := f.ask(op); err != nil {
		return nil, err
	}
	file, err := open(op.Name)
	if err != nil {
		return nil, err
	}
	return &faultyFile{fs: f, file: file, name: op.Name}, nil
}

func (f *faultyFS) Create(name string) (File, error) {
	return f.open(Op{Kind: OpCreate, Name: name}, f.fs.Create)
}

func (f *faultyFS) Open(name string) (File, error) {
	return f.open(Op{Kind: OpOpen, Name: name}, f.fs.Open)
}

func (f *faultyFS) OpenReadWrite(name string) (File, error) {
	return f.open(Op{Kind: OpOpenReadWrite, Name: name}, f.fs.OpenReadWrite)
}

func (f *faultyFS) Remove(name string) error {
	return f.do(Op{Kind: OpRemove, Name: name}, func() error { return f.fs.Remove(name) })
}

func (f *faultyFS) Rename(oldname, newname string) error {
	return f.do(Op{Kind: OpRename, Name: oldname, To: newname}, func() error { return f.fs.Rename(oldname, newname) })
}

func (f *faultyFS) Link(oldname, newname string) error {
	return f.do(Op{Kind: OpLink, Name: oldname, To: newname}, func() error { return f.fs.Link(oldname, newname) })
}

func (f *faultyFS) MkdirAll(dir string) error {
	return f.do(Op{Kind: OpMkdirAll, Name: dir}, func() error { return f.fs.MkdirAll(dir) })
}

func (f *faultyFS) SyncDir(dir string) error {
	err := f.do(Op{Kind: OpSyncDir, Name: dir}, func() error { return f.fs.SyncDir(dir) })
	if fault := (*SyncError)(nil); errors.As(err, &fault) {
		f.failSyncDir(dir, fault)
	}
	return err
}

func (f *faultyFS) List(dir string) ([]string, error) {
	if err := f.ask(Op{Kind: OpList, Name: dir}); err != nil {
		return nil, err
	}
	return f.fs.List(dir)
}

func (f *faultyFS) Stat(name string) (Info, error) {
	if err := f.ask(Op{Kind: OpStat, Name: name}); err != nil {
		return Info{}, err
	}
	return f.fs.Stat(name)
}

func (f *faultyFS) Lock(name string) (io.Closer, error) {
	if err := f.ask(Op{Kind: OpLock, Name: name}); err != nil {
		return nil, err
	}
	return f.fs.Lock(name)
}

func (f *faultyFS) Memory() int64 { return f.fs.Memory() }

func (f *faultyFS) Free(dir string) (int64, error) {
	if err := f.ask(Op{Kind: OpFree, Name: dir}); err != nil {
		return 0, err
	}
	return f.fs.Free(dir)
}

// failSyncDir and failSync reach the Mem below, through other Faulty ones.
func (f *faultyFS) failSyncDir(dir string, cause error) {
	if below, ok := f.fs.(interface{ failSyncDir(string, error) }); ok {
		below.failSyncDir(dir, cause)
	}
}

type faultyFile struct {
	fs   *faultyFS
	file File
	name string
}

func (f *faultyFile) failSync(p Pages) {
	if below, ok := f.file.(interface{ failSync(Pages) }); ok {
		below.failSync(p)
	}
}

func (f *faultyFile) ReadAt(p []byte, off int64) (int, error) {
	err := f.fs.ask(Op{Kind: OpRead, Name: f.name, Off: off, Len: int64(len(p))})
	if err != nil {
		return f.part(err, p, off, f.file.ReadAt)
	}
	return f.file.ReadAt(p, off)
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.fs.ask(Op{Kind: OpWrite, Name: f.name, Off: off, Len: int64(len(p))})
	var astray *MisdirectedError
	switch {
	case err == nil:
		return f.file.WriteAt(p, off)
	case err == ErrLost:
		return len(p), nil
	case errors.As(err, &astray):
		return f.file.WriteAt(p, astray.Off)
	}
	return f.part(err, p, off, f.file.WriteAt)
}

// part does the part of a read or write that err, if it is a *PartialError,
// asks for.
func (f *faultyFile) part(err error, p []byte, off int64, do func([]byte, int64) (int, error)) (int, error) {
	var partial *PartialError
	if !errors.As(err, &partial) {
		return 0, err
	}
	n, failed := do(p[:min(max(0, partial.N), len(p))], off)
	if failed != nil {
		err = failed
	}
	return n, err
}

func (f *faultyFile) Sync() error { return f.sync(OpSync, f.file.Sync) }

func (f *faultyFile) SyncData() error { return f.sync(OpSyncData, f.file.SyncData) }

func (f *faultyFile) sync(k Kind, do func() error) error {
	err := f.fs.do(Op{Kind: k, Name: f.name}, do)
	if fault := (*SyncError)(nil); errors.As(err, &fault) {
		f.failSync(fault.Pages)
	}
	return err
}

// WriteBack is no operation of its own: it changes nothing.
func (f *faultyFile) WriteBack(off, n int64) { f.file.WriteBack(off, n) }

// ReadAhead is no operation of its own: it changes nothing.
func (f *faultyFile) ReadAhead(off, n int64) { f.file.ReadAhead(off, n) }

func (f *faultyFile) Truncate(size int64) error {
	return f.fs.do(Op{Kind: OpTruncate, Name: f.name, Len: size}, func() error { return f.file.Truncate(size) })
}

func (f *faultyFile) Allocate(off, n int64) error {
	return f.fs.do(Op{Kind: OpAllocate, Name: f.name, Off: off, Len: n}, func() error { return f.file.Allocate(off, n) })
}

func (f *faultyFile) Size() (int64, error) {
	if err := f.fs.ask(Op{Kind: OpSize, Name: f.name}); err != nil {
		return 0, err
	}
	return f.file.Size()
}

func (f *faultyFile) Close() error {
	err := f.fs.ask(Op{Kind: OpClose, Name: f.name})
	return errors.Join(err, f.file.Close())
}
