package lsm

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSmallVolume fills a real volume of 64 MiB, again and again: row S3. Reads go on,
// writes are refused with ErrNoSpace, and they and flushes succeed within 5
// seconds of there being room.
func TestSmallVolume(t *testing.T) {
	volume := t.TempDir()
	if err := syscall.Mount("tmpfs", volume, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("not run: a volume of 64 MiB cannot be mounted here: %v", err)
	}
	defer func() { require.NoError(t, syscall.Unmount(volume, 0)) }()
	dir, ballast := filepath.Join(volume, "db"), filepath.Join(volume, "ballast")
	o := &Options{MemtableBytes: 1 << 20, MaxMemtables: 2, CacheBytes: 1 << 20, LogBufferBytes: 256 << 10}
	tree, err := Open(dir, o)
	require.NoError(t, err)
	defer func() { tree.Close() }()
	const keys = 12_000
	acked := make([]uint64, keys) // the seed of each key's value
	r := rand.New(rand.NewPCG(1, 1))
	value := func(seed uint64) []byte {
		v := make([]byte, 1000+seed%4000)
		rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(v)
		return v
	}
	put := func() error {
		i, seed := r.IntN(keys), 1+r.Uint64N(1<<24)
		err := tree.Put(key(i), value(seed))
		if err == nil {
			acked[i] = seed
		}
		return err
	}
	check := func() {
		t.Helper()
		for i, seed := range acked {
			v, ok, err := tree.Get(key(i))
			require.NoError(t, err)
			require.Equal(t, seed > 0, ok, "key %d", i)
			if ok {
				require.Equal(t, value(seed), v, "key %d", i)
			}
		}
	}
	rounds, written := sized(20, 1, 1), 0
	var slowest time.Duration
	for range rounds {
		_ = os.WriteFile(ballast, make([]byte, 20<<20), 0o644) // or as much as there is room for
		for err = nil; err == nil; written++ {
			err = put()
		}
		require.ErrorIs(t, err, ErrNoSpace)
		check()
		require.NoError(t, os.Remove(ballast))
		freed := time.Now()
		for _, again := range []func() error{put, tree.Flush} {
			for err = again(); errors.Is(err, ErrNoSpace); err = again() {
				require.Less(t, time.Since(freed), 5*time.Second)
				time.Sleep(time.Millisecond) // a real volume, real time
			}
			require.NoError(t, err)
		}
		slowest = max(slowest, time.Since(freed))
		check()
		require.NoError(t, tree.Close())
		tree, err = Open(dir, o)
		require.NoError(t, err)
		check()
	}
	require.NoError(t, tree.Close())
	report, err := Check(dir)
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	t.Logf("full %d times after %d writes; writes and flushes went on at most %v after there was room", rounds, written, slowest)
}
