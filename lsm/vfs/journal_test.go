package vfs_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
)

// A journal acknowledges numbers once they are durable: a log file, replaced by
// rename when it is full. It is what the engine does, in small.
type journal struct {
	fs    vfs.FS
	file  vfs.File
	off   int64
	acked int
}

const (
	journalLines = 4 // until the next file
	lineBytes    = 8
)

func newJournal(fsys vfs.FS) *journal { return &journal{fs: fsys} }

func (j *journal) run(n int) (err error) {
	defer func() {
		if j.file != nil {
			err = errors.Join(err, j.file.Close())
		}
	}()
	for i := range n {
		if err := j.append(i); err != nil {
			return err
		}
		j.acked = i + 1
	}
	return nil
}

func (j *journal) append(i int) error {
	if i%journalLines == 0 {
		if err := j.rotate(i); err != nil {
			return err
		}
	}
	if _, err := j.file.WriteAt(fmt.Appendf(nil, "%7d\n", i), j.off); err != nil {
		return err
	}
	j.off += lineBytes
	return j.file.SyncData()
}

// rotate starts a file that says how many numbers came before it.
func (j *journal) rotate(i int) error {
	f, err := j.fs.Create("tmp")
	if err != nil {
		return err
	}
	if j.file != nil {
		err = j.file.Close()
	}
	j.file, j.off = f, lineBytes
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(fmt.Appendf(nil, "%7d\n", i), 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := j.fs.Rename("tmp", "log"); err != nil {
		return err
	}
	return j.fs.SyncDir("")
}

// recovered is how many numbers a disk holds.
func recovered(t testing.TB, disk vfs.FS) int {
	log, ok := read(t, disk, "log")
	if !ok {
		return 0
	}
	var n int
	_, err := fmt.Sscanf(log, "%d\n", &n)
	require.NoError(t, err, "a renamed file was synced before")
	for log = log[lineBytes:]; len(log) >= lineBytes && log[:lineBytes] == fmt.Sprintf("%7d\n", n); log = log[lineBytes:] {
		n++
	}
	return n
}
