package vfs_test

import (
	"path/filepath"
	"testing"

	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/lsm/vfs/vfstest"
)

func TestConformance(t *testing.T) {
	quiet := func(vfs.Op) error { return nil }
	for name, open := range map[string]func(testing.TB) vfs.FS{
		"OS":             func(testing.TB) vfs.FS { return vfs.OS },
		"Mem":            func(testing.TB) vfs.FS { return vfs.NewMem(1) },
		"FaultyOS":       func(testing.TB) vfs.FS { return vfs.Faulty(vfs.OS, quiet) },
		"FaultyMem":      func(testing.TB) vfs.FS { return vfs.Faulty(vfs.NewMem(1), quiet) },
		"CrashedMem":     func(t testing.TB) vfs.FS { return vfs.NewMem(1).Crash(2) },
		"CrashingMem":    crashing,
		"SyncedCrashMem": func(t testing.TB) vfs.FS { return vfs.NewMem(1).CrashSynced() },
	} {
		t.Run(name, func(t *testing.T) { vfstest.Run(t, open) })
	}
}

// crashing gives a Mem that is copied by a crash before each of its operations,
// which must change nothing in it.
func crashing(t testing.TB) vfs.FS {
	m := vfs.NewMem(1)
	return vfs.Faulty(m, func(op vfs.Op) error {
		disk := m.Crash(op.N)
		if names, err := disk.List(""); err == nil && len(names) > 0 {
			if f, err := disk.Create(filepath.Join(names[0], "scribble")); err == nil {
				f.WriteAt(make([]byte, 10_000), 0)
			}
		}
		return nil
	})
}
