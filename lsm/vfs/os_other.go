//go:build !linux && !darwin && !freebsd && !dragonfly && !windows

package vfs

import (
	"errors"
	"math"
	"os"
	"syscall"
)

func isNoSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) }

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockFile refuses: a lock that other processes do not see is none.
func lockFile(*os.File) error { return errors.ErrUnsupported }

// freeBytes is unknown here: the volume tells by refusing a write.
func freeBytes(string) (int64, error) { return math.MaxInt64, nil }
