//go:build !linux

package main

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

// None of these is measured on this system; sizes of files stand for the space
// that they take up.

func cpuTime() time.Duration              { return 0 }
func deviceBytes() (read, written uint64) { return 0, 0 }
func resident() (peak, anonymous uint64)  { return 0, 0 }
func dropFile(string) error               { return errors.ErrUnsupported }
func unmapPages(string) error             { return errors.ErrUnsupported }
func syncData(f *os.File) error           { return f.Sync() }

func diskBytes(dir string, logs []string) (all, tables uint64) {
	eachFile(dir, func(path string, info fs.FileInfo) error {
		all += uint64(info.Size())
		if !isLog(path, logs) {
			tables += uint64(info.Size())
		}
		return nil
	})
	return all, tables
}
