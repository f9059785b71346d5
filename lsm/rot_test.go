package lsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/manifest"
	"example.com/kvstore/lsm/internal/wal"
	"example.com/kvstore/lsm/vfs"
)

// A specimen is a small directory of a tree that was closed, or killed: two tables, a manifest with
// several edits, a log with several groups.
type specimen struct {
	disk    *vfs.Mem
	models  []model // after so many batches
	killed  bool
	options func(vfs.FS) *Options
	ends    []int64 // of the groups of the last segment, if killed
}

func newSpecimen(t testing.TB, killed bool) *specimen {
	s := &specimen{disk: vfs.NewMem(1), models: []model{{}}, killed: killed, options: specimenOptions}
	s.grow(t, func(tree *Tree, i int) error {
		if i == 3 || i == 7 {
			return tree.Flush()
		}
		return nil
	})
	if killed {
		_, err := wal.Replay(s.disk, "db", s.state(t).LogFrom, base.LogEnd{}, s.logs(t), func(_ uint64, off int64, b []byte) error {
			if len(b) > 0 { // not the first of the segment
				s.ends = append(s.ends, off+int64(len(b)))
			}
			return nil
		})
		require.NoError(t, err)
		require.Len(t, s.ends, 3)
	}
	return s
}

// coldSpecimen has a table in the cold directory.
func coldSpecimen(t testing.TB) *specimen {
	s := &specimen{disk: vfs.NewMem(1), models: []model{{}}, options: func(fs vfs.FS) *Options {
		o := specimenOptions(fs)
		o.ColdDir, o.ColdAfter = "cold", time.Millisecond
		return o
	}}
	s.grow(t, func(tree *Tree, i int) error {
		if i == 7 {
			return errors.Join(tree.Compact(t.Context()), tree.moveCold())
		}
		return nil
	})
	require.Len(t, filesOf(t, s.disk, coldHome, ".table"), 1)
	return s
}

// grow writes the batches, with something done after each.
func (s *specimen) grow(t testing.TB, after func(tree *Tree, i int) error) {
	o := s.options(s.disk)
	o.pick = neverPick
	tree := open(t, o)
	defer tree.Close()
	from := newWriter(3, 2, 10)
	for i := range 11 {
		b := from.batch()
		s.models = append(s.models, s.models[i].with(b))
		require.NoError(t, tree.Apply(b))
		require.NoError(t, after(tree, i))
	}
	if s.killed {
		s.disk = s.disk.CrashSynced()
	}
	require.NoError(t, tree.Close())
}

func specimenOptions(fs vfs.FS) *Options {
	return &Options{FS: fs, MemtableBytes: minMemtableBytes, Slices: 1, Shards: 1, Identity: [16]byte{1}, Random: salts()}
}

// judge opens a damaged disk. It reports damage, or holds what a prefix of the
// batches makes, at least so many.
func (s *specimen) judge(t testing.TB, disk *vfs.Mem, least int, at func() string) (damage bool) {
	tree, err := Open("db", s.options(disk))
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

func (s *specimen) state(t testing.TB) *manifest.State {
	state, err := manifest.Read(s.disk, "db")
	require.NoError(t, err)
	return state
}

// logs gives the segments that recovery reads.
func (s *specimen) logs(t testing.TB) (numbers []uint64) {
	from := s.state(t).LogFrom
	for _, name := range filesOf(t, s.disk, "db", ".log") {
		if n, _ := base.ParseLogName(path.Base(name)); n >= from { // else it waits to be recycled
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// files calls do with the name and the length of each file that recovery reads,
// zeroes at the end left out.
func (s *specimen) files(t testing.TB, do func(name string, size int64)) {
	names := filesOf(t, s.disk, "db", "")
	if s.options(nil).ColdDir != "" {
		names = append(names, filesOf(t, s.disk, coldHome, "")...)
	}
	logs := s.logs(t)
	for _, name := range names {
		if n, ok := base.ParseLogName(path.Base(name)); ok && !slices.Contains(logs, n) {
			continue
		}
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
	everyBit(t, sized(1, 1, 37), newSpecimen(t, false))
	everyBit(t, sized(1, 7, 37), newSpecimen(t, true))
	everyBit(t, sized(1, 19, 149), coldSpecimen(t))
}

func everyBit(t testing.TB, step int, s *specimen) {
	found, harmless := 0, 0
	s.files(t, func(name string, size int64) {
		for bit := int64(0); bit < 8*size; bit += int64(step) {
			disk := s.disk.CrashSynced()
			require.NoError(t, disk.Corrupt(name, bit/8, 1<<(bit%8)))
			least := len(s.models) - 1
			if s.killed && strings.HasSuffix(name, ".log") {
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
// that take what Close wrote last off the manifest: they do no harm. After a kill a
// shorter log is what a crash may leave: it holds all groups before the cut.
func TestEveryCut(t *testing.T) {
	everyCut(t, sized[int64](1, 1, 11), newSpecimen(t, false))
	everyCut(t, sized[int64](1, 7, 11), newSpecimen(t, true))
	everyCut(t, sized[int64](1, 7, 11), coldSpecimen(t))
}

func everyCut(t testing.TB, step int64, s *specimen) {
	found, harmless := 0, 0
	s.files(t, func(name string, size int64) {
		for at := int64(0); at < size; at += step {
			disk := s.disk.CrashSynced()
			f, err := disk.OpenReadWrite(name)
			require.NoError(t, err)
			require.NoError(t, errors.Join(f.Truncate(at), f.Close()))
			least, log := len(s.models)-1, s.killed && strings.HasSuffix(name, ".log")
			if log {
				for _, end := range s.ends {
					if at < end {
						least--
					}
				}
			}
			if s.judge(t, disk, least, func() string { return fmt.Sprintf("%s cut at %d", name, at) }) {
				found++
			} else {
				require.True(t, log || name == "db/manifest", "%s cut at %d", name, at)
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

// TestManyFlips flips bits at random in a larger tree, many at a time: row S4. No read
// gives a wrong byte, just those tables are reported that were hit, and after one scrub
// nothing damaged is left in use.
func TestManyFlips(t *testing.T) {
	const each = 20
	keys, rounds := sized(100_000, 20_000, 5000), sized(500, 10, 2)
	value := func(i int) []byte {
		r, v := rand.NewPCG(uint64(i), 1), []byte(nil)
		for range 12 {
			v = binary.LittleEndian.AppendUint64(v, r.Uint64())
		}
		return v
	}
	disk := vfs.NewMem(1)
	options := func(fs vfs.FS, isolate bool) *Options {
		return &Options{FS: fs, MemtableBytes: 4 << 20, CacheBytes: -1, Isolate: isolate, pick: neverPick, maxTableBytes: 64 << 10}
	}
	tree := open(t, options(disk, false))
	for i := range keys {
		require.NoError(t, tree.Put(key(i), value(i)))
	}
	require.NoError(t, tree.Compact(t.Context()))
	require.NoError(t, tree.Close())
	tables := filesOf(t, disk, "db", ".table")
	r := rand.New(rand.NewPCG(1, 1))
	hurt, refused := 0, 0
	for range rounds {
		bad := disk.CrashSynced()
		hit := map[string]bool{}
		for range each {
			name := tables[r.IntN(len(tables))]
			info, err := bad.Stat(name)
			require.NoError(t, err)
			require.NoError(t, bad.Corrupt(name, r.Int64N(info.Size), 1<<r.IntN(8)))
			hit[name] = true
		}
		report, err := CheckFS(bad, "db")
		require.NoError(t, err)
		require.Len(t, report.Problems, len(hit))
		for _, isolate := range []bool{false, true} {
			tree := open(t, options(bad, isolate))
			for i := range keys {
				v, ok, err := tree.Get(key(i))
				if errors.Is(err, ErrCorrupt) {
					refused++
					continue
				}
				require.NoError(t, err)
				require.True(t, ok && bytes.Equal(v, value(i)), "%s: %x", key(i), v)
			}
			if isolate {
				_ = tree.Scrub(t.Context())
				require.NoError(t, tree.Scrub(t.Context()))
				require.Equal(t, uint64(len(hit)), tree.Metrics().SetAside)
			}
			require.NoError(t, tree.Close())
		}
		hurt += len(hit)
	}
	t.Logf("%d flips, each found in one of %d tables; %d times a table set aside, %d reads refused", rounds*each, len(tables), hurt, refused)
}
