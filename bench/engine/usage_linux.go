package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime gives the user and system time of this process.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // cannot fail with these arguments
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// field gives the number after a name in one of this process's files below /proc,
// or 0 where it is missing.
func field(file, name string) uint64 {
	text, _ := os.ReadFile("/proc/self/" + file)
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte(name+":")); ok {
			words := bytes.Fields(rest)
			if len(words) == 0 {
				return 0
			}
			n, _ := strconv.ParseUint(string(words[0]), 10, 64)
			return n
		}
	}
	return 0
}

// deviceBytes tells what this process caused to be read from the device and
// written to it. A page counts as written when it becomes dirty, by write(2) or
// in a mapping, and again after it was written back.
func deviceBytes() (read, written uint64) {
	return field("io", "read_bytes"), field("io", "write_bytes")
}

// resident gives the resident memory: the highest so far, mapped files included,
// and the present one without files, in bytes.
func resident() (peak, anonymous uint64) {
	return field("status", "VmHWM") << 10, field("status", "RssAnon") << 10
}

// dropFile makes the page cache forget a file.
func dropFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil { // dirty pages would stay
		return err
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// unmapPages gives up this process's hold on the pages of the files of a
// directory that it has mapped. The mappings stay, and so do the changes in them.
func unmapPages(dir string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(maps)) {
		words := strings.Fields(line) // range, rights, offset, device, inode, path
		if len(words) != 6 || !strings.HasPrefix(words[5], dir+"/") || !strings.HasSuffix(words[1], "s") {
			continue
		}
		var from, to uintptr
		if _, err := fmt.Sscanf(words[0], "%x-%x", &from, &to); err != nil {
			return err
		}
		if _, _, e := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); e != 0 {
			return fmt.Errorf("madvise %s: %w", words[5], e)
		}
	}
	return nil
}

// syncData makes what was written to a file durable.
func syncData(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }

// diskBytes gives the space that the files of a directory take up, and those that
// are not logs.
func diskBytes(dir string, logs []string) (all, tables uint64) {
	eachFile(dir, func(path string, info fs.FileInfo) error {
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		n := uint64(stat.Blocks) * 512
		all += n
		if !isLog(path, logs) {
			tables += n
		}
		return nil
	})
	return all, tables
}
