package lsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/manifest"
	"example.com/kvstore/lsm/vfs"
)

// A specimen is a small directory of a tree that was closed, or killed: two tables, a manifest with
// several edits, a log with several groups.
type specimen struct {
	disk   *vfs.Mem
	models []model // after so many batches
}

func newSpecimen(t testing.TB, killed bool) *specimen {
	s := &specimen{disk: vfs.NewMem(1), models: []model{{}}}
	o := specimenOptions(s.disk)
	o.pick = neverPick
	tree := open(t, o)
	defer tree.Close()
	from := newWriter(3, 2, 10)
	for i := range 11 {
		b := from.batch()
		s.models = append(s.models, s.models[i].with(b))
		require.NoError(t, tree.Apply(b))
		if i == 3 || i == 7 {
			require.NoError(t, tree.Flush())
		}
	}
	if killed {
		s.disk = s.disk.CrashSynced()
	}
	require.NoError(t, tree.Close())
	return s
}

func specimenOptions(fs vfs.FS) *Options {
	return &Options{FS: fs, MemtableBytes: minMemtableBytes, Slices: 1, Shards: 1, Identity: [16]byte{1}, Random: salts()}
}

// judge opens a damaged disk. It reports damage, or holds what a prefix of the
// batches makes, at least so many.
func (s *specimen) judge(t testing.TB, disk *vfs.Mem, least int, at func() string) (damage bool) {
	tree, err := Open("db", specimenOptions(disk))
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("%s: %v", at(), err)
		}
		return true
	}
	defer tree.Close()
	want, n, differs := s.models[len(s.models)-1], len(s.models)-1, ""
	for ; n >= least; n-- {
		want = s.models[n]
		if differs = want.diffUnless(tree, ErrCorrupt); differs == "" || differs == ErrCorrupt.Error() {
			break
		}
	}
	if n < least {
		t.Fatalf("%s: %s", at(), differs)
	}
	damage = differs != ""
	for k, set := range want {
		r, ok, err := tree.Read([]byte(k))
		switch {
		case errors.Is(err, ErrCorrupt):
			damage = true
		case err != nil || ok && !setOf(&r).Equal(set) || !ok && !purgeableLocally(set):
			t.Fatalf("%s: read of %q: %v %v %v, want %v", at(), k, r, ok, err, set)
		}
	}
	return damage
}

// files calls do with the name and the length of each file that recovery reads,
// zeroes at the end left out.
func (s *specimen) files(t testing.TB, do func(name string, size int64)) {
	state, err := manifest.Read(s.disk, "db")
	require.NoError(t, err)
	names, err := s.disk.List("db")
	require.NoError(t, err)
	for _, file := range names {
		if n, ok := base.ParseLogName(file); ok && n < state.LogFrom {
			continue // waits to be recycled
		}
		name := path.Join("db", file)
		b := contentOf(t, s.disk, name)
		if n := len(bytes.TrimRight(b, "\x00")); n > 0 {
			do(name, min(int64(len(b)), int64(n)+8))
		}
	}
}

func contentOf(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	require.NoError(t, err)
	defer f.Close()
	size, err := f.Size()
	require.NoError(t, err)
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		require.NoError(t, err)
	}
	return b
}

// TestEveryBit flips every bit of every file, one at a time. Each is reported,
// or does no harm: no byte that is read is wrong, and nothing is absent because
// of it (I8). After a kill the last group of the log may be taken for torn: nothing
// is left behind it to say otherwise.
func TestEveryBit(t *testing.T) {
	everyBit(t, sized(1, 1, 37), false)
	everyBit(t, sized(1, 7, 37), true)
}

func everyBit(t testing.TB, step int, killed bool) {
	s := newSpecimen(t, killed)
	found, harmless := 0, 0
	s.files(t, func(name string, size int64) {
		for bit := int64(0); bit < 8*size; bit += int64(step) {
			disk := s.disk.CrashSynced()
			require.NoError(t, disk.Corrupt(name, bit/8, 1<<(bit%8)))
			least := len(s.models) - 1
			if killed && strings.HasSuffix(name, ".log") {
				least--
			}
			if s.judge(t, disk, least, func() string { return fmt.Sprintf("%s bit %d", name, bit) }) {
				found++
			} else {
				harmless++
			}
		}
	})
	require.Positive(t, found)
	t.Logf("%d flips reported, %d harmless", found, harmless)
}

// TestEveryCut cuts every file at every byte. Each cut is reported, but for those
// that take what Close wrote last off the manifest: they do no harm.
func TestEveryCut(t *testing.T) { everyCut(t) }

func everyCut(t testing.TB) {
	s := newSpecimen(t, false)
	found, harmless := 0, 0
	s.files(t, func(name string, size int64) {
		for at := int64(0); at < size; at += sized[int64](1, 1, 11) {
			disk := s.disk.CrashSynced()
			f, err := disk.OpenReadWrite(name)
			require.NoError(t, err)
			require.NoError(t, errors.Join(f.Truncate(at), f.Close()))
			if s.judge(t, disk, len(s.models)-1, func() string { return fmt.Sprintf("%s cut at %d", name, at) }) {
				found++
			} else {
				require.Equal(t, "db/manifest", name, "cut at %d", at)
				harmless++
			}
		}
	})
	require.Positive(t, found)
	t.Logf("%d cuts reported, %d harmless", found, harmless)
}

// TestNewerVersion gives each kind of file a version above ours, under a right
// checksum: it is refused as incompatible, not taken for damage.
func TestNewerVersion(t *testing.T) {
	s := newSpecimen(t, false)
	tree := open(t, specimenOptions(s.disk))
	require.NoError(t, tree.Flush())
	require.NoError(t, tree.Checkpoint("copy"))
	require.NoError(t, tree.Put(key(1), nil))
	require.NoError(t, tree.Close())
	refused := map[string]bool{}
	for _, dir := range []string{"db", "copy"} {
		names, err := s.disk.List(dir)
		require.NoError(t, err)
		state, err := manifest.Read(s.disk, "db")
		require.NoError(t, err)
		for _, file := range names {
			name := path.Join(dir, file)
			b := contentOf(t, s.disk, name)
			if n, ok := base.ParseLogName(file); ok && n < state.LogFrom || len(b) == 0 || file == base.ReserveName {
				continue
			}
			disk := s.disk.CrashSynced()
			header := base.AppendHeader(nil, base.Magic(b[:8]), base.Header{Version: 2, Number: binary.LittleEndian.Uint64(b[16:])})
			f, err := disk.OpenReadWrite(name)
			require.NoError(t, err)
			_, err = f.WriteAt(header, 0)
			require.NoError(t, errors.Join(err, f.Close()))
			tree, err := Open(dir, specimenOptions(disk))
			if err == nil {
				for _, e := range tree.Scan(0, math.MaxUint64) {
					err = errors.Join(err, e)
				}
				err = errors.Join(err, tree.Close()) // a compaction may have met it too
			}
			require.ErrorIs(t, err, ErrIncompatible, "%s", name)
			require.NotErrorIs(t, err, ErrCorrupt, "%s", name)
			refused[path.Ext(name)+string(b[:8])] = true
		}
	}
	require.Len(t, refused, 4, "manifest, log, table and checkpoint: %v", refused)
}
