package vfs_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
)

func TestOSFullVolume(t *testing.T) {
	f, err := vfs.OS.OpenReadWrite("/dev/full")
	if err != nil {
		t.Skip("no full volume here:", err)
	}
	defer f.Close()
	_, err = f.WriteAt([]byte("x"), 0)
	require.ErrorIs(t, err, vfs.ErrNoSpace)
	require.ErrorIs(t, err, syscall.ENOSPC)
	var path *fs.PathError
	require.ErrorAs(t, err, &path)
	require.Equal(t, "/dev/full", path.Path)
	require.Error(t, f.SyncData(), "a device has no such sync")
}

// A second process is kept out for as long as the first lives or holds on.
func TestOSLockKeepsOtherProcessesOut(t *testing.T) {
	const lockVar = "VFS_TEST_LOCK"
	if name := os.Getenv(lockVar); name != "" {
		_, err := vfs.OS.Lock(name)
		if errors.Is(err, vfs.ErrLocked) {
			os.Exit(3)
		}
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	name := filepath.Join(t.TempDir(), "lock")
	other := func() int {
		cmd := exec.Command(os.Args[0], "-test.run=^TestOSLockKeepsOtherProcessesOut$")
		cmd.Env = append(os.Environ(), lockVar+"="+name)
		out, err := cmd.CombinedOutput()
		t.Logf("%s %v", out, err)
		return cmd.ProcessState.ExitCode()
	}
	lock, err := vfs.OS.Lock(name)
	require.NoError(t, err)
	require.Equal(t, 3, other())
	require.NoError(t, lock.Close())
	require.Equal(t, 0, other())
	lock, err = vfs.OS.Lock(name)
	require.NoError(t, err, "the lock of a process that ended is free")
	require.NoError(t, lock.Close())
}

// Links and other spellings of a name are the same lock.
func TestOSLockIsOfTheFile(t *testing.T) {
	dir := t.TempDir()
	lock, err := vfs.OS.Lock(filepath.Join(dir, "lock"))
	require.NoError(t, err)
	defer lock.Close()
	require.NoError(t, vfs.OS.Link(filepath.Join(dir, "lock"), filepath.Join(dir, "other")))
	for _, name := range []string{"other", "./lock", "../" + filepath.Base(dir) + "/lock"} {
		_, err := vfs.OS.Lock(dir + "/" + name)
		require.ErrorIs(t, err, vfs.ErrLocked, name)
	}
}

func TestOSKeepsFilesPrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	dir := filepath.Join(t.TempDir(), "d")
	require.NoError(t, vfs.OS.MkdirAll(dir))
	create(t, vfs.OS, filepath.Join(dir, "a"), "x").Close()
	for name, want := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, "a"): 0o600} {
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&^want, name)
	}
}

func TestOSAllocateReservesSpace(t *testing.T) {
	f, err := vfs.OS.Create(filepath.Join(t.TempDir(), "a"))
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Allocate(0, 1<<20))
	size, err := f.Size()
	require.NoError(t, err)
	require.EqualValues(t, 1<<20, size)
}

func TestOSSyncsWithoutAllocating(t *testing.T) {
	f, err := vfs.OS.Create(filepath.Join(t.TempDir(), "a"))
	require.NoError(t, err)
	defer f.Close()
	p := []byte("x")
	require.Zero(t, testing.AllocsPerRun(20, func() {
		f.WriteAt(p, 0)
		f.SyncData()
	}))
}
