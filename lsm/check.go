package lsm

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/manifest"
	"example.com/kvstore/lsm/internal/table"
	"example.com/kvstore/lsm/internal/wal"
	"example.com/kvstore/lsm/vfs"
)

// A Report is what Check found.
type Report struct {
	Checkpoint   bool // the directory is a checkpoint that was not opened yet
	Tables       int
	TableBytes   uint64
	TableRecords uint64 // a key may be in several tables
	LogGroups    uint64
	LogBytes     uint64
	LogRecords   uint64
	// Orphans are files that nothing refers to: leftovers of a crash, which the
	// next Open removes.
	Orphans []string
	// Damaged are the ranges that were lost before and are not healed. They are no
	// problem of the files that are there.
	Damaged []Range
	// Problems say what is damaged, each a *CorruptError unless it could not be
	// read at all.
	Problems []error
}

func (r Report) String() string {
	s := fmt.Sprintf("%d tables with %d bytes and %d records, log of %d groups with %d bytes and %d records, %d orphans, %d problems",
		r.Tables, r.TableBytes, r.TableRecords, r.LogGroups, r.LogBytes, r.LogRecords, len(r.Orphans), len(r.Problems))
	for _, d := range r.Damaged {
		s += "\nnot healed: " + d.String()
	}
	for _, p := range r.Problems {
		s += "\n" + p.Error()
	}
	return s
}

// Check verifies every byte of the directory of a closed tree and changes nothing,
// but that it makes the lock file where there is none. What is damaged is in the report; the error says why the check could
// not be done: ErrLocked while the tree is open, ErrIncompatible, no manifest.
func Check(dir string) (Report, error) { return CheckFS(vfs.OS, dir) }

// CheckFS is Check on another file system, and of a tree with a cold directory,
// which is Options.ColdDir. Without the one that the tree needs it fails with
// ErrInvalid.
func CheckFS(fsys vfs.FS, dir string, cold ...string) (Report, error) {
	lock, err := fsys.Lock(path.Join(dir, base.LockName))
	if err != nil {
		return Report{}, fmt.Errorf("lsm: locking %s: %w", dir, err)
	}
	c := checker{fsys: fsys, dir: dir}
	if len(cold) > 0 {
		c.home = cold[0]
	}
	err = c.run()
	return c.report, errors.Join(err, lock.Close())
}

type checker struct {
	fsys   vfs.FS
	dir    string
	home   string // the cold directory, of which cold is the part of this tree
	cold   string
	report Report
}

func (c *checker) problem(err error) { c.report.Problems = append(c.report.Problems, err) }

func (c *checker) run() error {
	state, err := manifest.Read(c.fsys, c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		var copied error
		if state, copied = manifest.ReadCheckpoint(c.fsys, c.dir); !errors.Is(copied, fs.ErrNotExist) {
			err, c.report.Checkpoint = copied, true
		}
	}
	switch {
	case errors.Is(err, ErrCorrupt):
		c.problem(err)
		return nil
	case err != nil:
		return err
	}
	names, err := c.fsys.List(c.dir)
	if err != nil {
		return fmt.Errorf("lsm: listing the directory: %w", err)
	}
	for _, d := range state.Damaged {
		c.report.Damaged = append(c.report.Damaged, rangeOf(d))
	}
	if err := c.listCold(state); err != nil {
		return err
	}
	var logs []uint64
	places := state.Places()
	for _, name := range names {
		if n, ok := base.ParseTableName(name); ok {
			if cold, live := places[n]; !live || cold {
				c.report.Orphans = append(c.report.Orphans, name)
			}
		} else if n, ok := base.ParseLogName(name); ok && n >= state.LogFrom {
			logs = append(logs, n)
		} else if ok {
			c.report.Orphans = append(c.report.Orphans, name)
		}
	}
	slices.Sort(logs)
	for _, m := range state.Tables {
		if err := c.table(m); err != nil {
			c.problem(err)
		}
	}
	return c.log(state.LogFrom, state.LogEnd, logs)
}

// listCold looks for orphans in the cold directory.
func (c *checker) listCold(state *manifest.State) error {
	needed := slices.ContainsFunc(state.Tables, func(m manifest.Table) bool { return m.Cold })
	if c.home == "" {
		if needed {
			return fmt.Errorf("%w: the tree has tables in a cold directory; name it to check them", ErrInvalid)
		}
		return nil
	}
	c.cold = coldDir(c.home, state.Directory)
	names, err := c.fsys.List(c.cold)
	if err != nil && (needed || !errors.Is(err, fs.ErrNotExist)) {
		return fmt.Errorf("lsm: listing the cold directory: %w", err)
	}
	places := state.Places()
	for _, name := range names {
		if n, ok := base.ParseTableName(name); ok {
			if !places[n] {
				c.report.Orphans = append(c.report.Orphans, path.Join(c.cold, name))
			}
		}
	}
	return nil
}

func (c *checker) table(m manifest.Table) error {
	name := path.Join(c.dir, base.TableName(m.ID))
	if m.Cold {
		name = path.Join(c.cold, base.TableName(m.ID))
	}
	f, err := c.fsys.Open(name)
	if err != nil {
		return base.Corrupt(name, 0, "a table", err)
	}
	r, err := table.Open(f, m.Meta)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	c.report.Tables++
	c.report.TableBytes += m.Bytes
	c.report.TableRecords += m.Count
	return errors.Join(r.Verify(func(int) error { return nil }), r.Close())
}

func (c *checker) log(from uint64, closed base.LogEnd, logs []uint64) error {
	found, err := wal.Replay(c.fsys, c.dir, from, closed, logs, func(segment uint64, off int64, b []byte) error {
		for len(b) > 0 {
			_, n, err := base.DecodeRecord(b)
			if err != nil {
				return base.Corrupt(path.Join(c.dir, base.LogName(segment)), off, "a record", err)
			}
			c.report.LogRecords++
			b, off = b[n:], off+int64(n)
		}
		return nil
	})
	c.report.LogGroups, c.report.LogBytes = found.Groups, found.Bytes
	if errors.Is(err, ErrCorrupt) {
		c.problem(err)
		return nil
	}
	return err
}
