package vfs_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
)

const seeds = 300

// read gives the whole content of a file, and whether it is there.
func read(t testing.TB, fsys vfs.FS, name string) (string, bool) {
	t.Helper()
	f, err := fsys.Open(name)
	if err != nil {
		require.ErrorIs(t, err, fs.ErrNotExist)
		return "", false
	}
	defer f.Close()
	size, err := f.Size()
	require.NoError(t, err)
	p := make([]byte, size)
	if n, err := f.ReadAt(p, 0); n < len(p) {
		require.Equal(t, io.EOF, err)
		t.Fatalf("%s: %d bytes of %d", name, n, len(p))
	}
	return string(p), true
}

func create(t testing.TB, fsys vfs.FS, name, content string) vfs.File {
	t.Helper()
	f, err := fsys.Create(name)
	require.NoError(t, err)
	write(t, f, content, 0)
	return f
}

func write(t testing.TB, f vfs.File, content string, off int64) {
	t.Helper()
	_, err := f.WriteAt([]byte(content), off)
	require.NoError(t, err)
}

// durable makes a file that a power cut leaves alone.
func durable(t testing.TB, fsys vfs.FS, name, content string) vfs.File {
	t.Helper()
	f := create(t, fsys, name, content)
	require.NoError(t, f.Sync())
	require.NoError(t, fsys.SyncDir(""))
	return f
}

// line describes one file: its name, size and content.
func line(name, content string) string {
	return fmt.Sprintf("%s %d %x\n", name, len(content), sha256.Sum256([]byte(content)))
}

// image is everything on a disk, in one string.
func image(t testing.TB, fsys vfs.FS) string {
	t.Helper()
	var b bytes.Buffer
	var walk func(string)
	walk = func(dir string) {
		names, err := fsys.List(dir)
		require.NoError(t, err)
		for _, name := range names {
			name = dir + "/" + name
			if info, err := fsys.Stat(name); err == nil && info.Dir {
				fmt.Fprintf(&b, "%s/\n", name)
				walk(name)
				continue
			}
			b.WriteString(line(name, content(t, fsys, name)))
		}
	}
	walk("")
	return b.String()
}

// content is what a file holds; "-" is no file.
func content(t testing.TB, fsys vfs.FS, name string) string {
	t.Helper()
	if p, ok := read(t, fsys, name); ok {
		return p
	}
	return "-"
}

// outcomes counts what a name holds over many power cuts.
func outcomes(t testing.TB, m *vfs.Mem, name string) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for seed := range uint64(seeds) {
		seen[content(t, m.Crash(seed), name)]++
	}
	return seen
}

func TestUnsyncedDataMayVanish(t *testing.T) {
	m := vfs.NewMem(1)
	f := durable(t, m, "a", "old")
	write(t, f, "new", 3)
	seen := outcomes(t, m, "a")
	require.Positive(t, seen["old"], "it never vanishes")
	require.Positive(t, seen["oldnew"], "it never survives")
	require.Positive(t, seen["old\x00\x00\x00"], "it is never zeroes")
	require.Positive(t, seen["oldn"]+seen["oldne"], "it is never cut")
	require.Greater(t, len(seen), 10, "it is never garbage")
	for content := range seen {
		require.Equal(t, "old", content[:3], "synced data changed")
	}
	require.Equal(t, "old", content(t, m.Strict(), "a"))
	require.Equal(t, "oldnew", content(t, m.CrashSynced(), "a"))
}

func TestLaterWritesMaySurviveEarlierOnes(t *testing.T) {
	m := vfs.NewMem(1)
	f := durable(t, m, "a", "......")
	write(t, f, "1", 0)
	write(t, f, "2", 2)
	write(t, f, "3", 4)
	seen := outcomes(t, m, "a")
	for _, want := range []string{"......", "1.....", "..2...", "....3.", "1.2...", "1...3.", "..2.3.", "1.2.3."} {
		require.Positive(t, seen[want], want)
	}
}

func TestSyncedEntryWithoutSyncedDataMayBeEmpty(t *testing.T) {
	m := vfs.NewMem(1)
	create(t, m, "a", "data")
	require.NoError(t, m.SyncDir("/"))
	seen := outcomes(t, m, "a")
	require.Zero(t, seen["-"])
	require.Positive(t, seen[""])
	require.Positive(t, seen["\x00\x00\x00\x00"])
	require.Positive(t, seen["data"])
}

func TestSyncOfAFileLeavesItsEntryVolatile(t *testing.T) {
	m := vfs.NewMem(1)
	require.NoError(t, create(t, m, "a", "data").Sync())
	seen := outcomes(t, m, "a")
	require.Len(t, seen, 2)
	require.Positive(t, seen["-"])
	require.Positive(t, seen["data"])
	require.Equal(t, "-", content(t, m.Strict(), "a"))
	require.Equal(t, "data", content(t, m.CrashSynced(), "a"))
}

func TestEntryIsAsDurableAsItsDirectory(t *testing.T) {
	m := vfs.NewMem(1)
	require.NoError(t, m.MkdirAll("d/e"))
	require.NoError(t, create(t, m, "d/e/a", "data").Sync())
	require.NoError(t, m.SyncDir("d/e"))
	require.NoError(t, m.SyncDir("d"))
	require.Positive(t, outcomes(t, m, "d/e/a")["-"])
	require.NoError(t, m.SyncDir(""))
	require.Equal(t, map[string]int{"data": seeds}, outcomes(t, m, "d/e/a"))
}

func TestDirectoryKeepsAPrefixOfItsOperations(t *testing.T) {
	m := vfs.NewMem(1)
	for _, name := range []string{"1", "2", "3"} {
		create(t, m, name, "")
	}
	require.NoError(t, m.Remove("1"))
	seen := map[string]int{}
	for seed := range uint64(seeds) {
		names, err := m.Crash(seed).List("")
		require.NoError(t, err)
		seen[fmt.Sprint(names)]++
	}
	require.Len(t, seen, 5)
	for _, want := range []string{"[]", "[1]", "[1 2]", "[1 2 3]", "[2 3]"} {
		require.Positive(t, seen[want], want)
	}
}

func TestRemovedFileMayComeBack(t *testing.T) {
	m := vfs.NewMem(1)
	durable(t, m, "a", "data").Close()
	require.NoError(t, m.Remove("a"))
	create(t, m, "a", "other").Sync()
	seen := outcomes(t, m, "a")
	require.Len(t, seen, 3)
	require.Positive(t, seen["-"])
	require.Positive(t, seen["data"])
	require.Positive(t, seen["other"])
	require.NoError(t, m.SyncDir(""))
	require.Equal(t, map[string]int{"other": seeds}, outcomes(t, m, "a"))
}

func TestRenameIsAtomic(t *testing.T) {
	m := vfs.NewMem(1)
	durable(t, m, "a", "old")
	require.NoError(t, create(t, m, "a.tmp", "new").Sync())
	require.NoError(t, m.Rename("a.tmp", "a"))
	seen := outcomes(t, m, "a")
	require.Len(t, seen, 2)
	require.Positive(t, seen["old"])
	require.Positive(t, seen["new"])
	for seed := range uint64(seeds) {
		disk := m.Crash(seed)
		_, tmp := read(t, disk, "a.tmp")
		content, _ := read(t, disk, "a")
		require.False(t, tmp && content == "new", "both names hold the file")
	}
	require.NoError(t, m.SyncDir(""))
	require.Equal(t, map[string]int{"new": seeds}, outcomes(t, m, "a"))
}

func TestRenameBeforeSyncMayLoseBoth(t *testing.T) {
	m := vfs.NewMem(1)
	durable(t, m, "a", "old")
	create(t, m, "a.tmp", "new")
	require.NoError(t, m.Rename("a.tmp", "a"))
	require.NoError(t, m.SyncDir(""))
	seen := outcomes(t, m, "a")
	require.Zero(t, seen["old"])
	require.Positive(t, seen[""])
}

func TestRenameAcrossDirectoriesIsAtomic(t *testing.T) {
	prepare := func() *vfs.Mem {
		m := vfs.NewMem(1)
		require.NoError(t, m.MkdirAll("d"))
		require.NoError(t, m.MkdirAll("e"))
		require.NoError(t, m.SyncDir(""))
		require.NoError(t, create(t, m, "d/a", "data").Sync())
		require.NoError(t, m.SyncDir("d"))
		for i := range 3 {
			create(t, m, fmt.Sprintf("d/before%d", i), "")
			create(t, m, fmt.Sprintf("e/before%d", i), "")
		}
		require.NoError(t, m.Rename("d/a", "e/a"))
		for i := range 3 {
			create(t, m, fmt.Sprintf("d/after%d", i), "")
			create(t, m, fmt.Sprintf("e/after%d", i), "")
		}
		return m
	}
	m := prepare()
	moved := 0
	for seed := range uint64(seeds) {
		disk := m.Crash(seed)
		_, old := read(t, disk, "d/a")
		content, come := read(t, disk, "e/a")
		require.NotEqual(t, old, come)
		if come {
			require.Equal(t, "data", content)
			moved++
		}
	}
	require.Positive(t, moved)
	require.Less(t, moved, seeds)
	for _, dir := range []string{"d", "e"} {
		m := prepare()
		require.NoError(t, m.SyncDir(dir))
		require.Equal(t, map[string]int{"-": seeds}, outcomes(t, m, "d/a"))
		require.Equal(t, map[string]int{"data": seeds}, outcomes(t, m, "e/a"))
	}
}

// However files move between directories, which come and go, each file that was
// durable once is in one place after a power cut.
func TestMovesLoseAndDoubleNothing(t *testing.T) {
	const files = 4
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 0))
		m := vfs.NewMem(seed)
		dirs := []string{"d0", "d1", "d2", "d3"}
		place := make([]string, files)
		for _, dir := range dirs[:3] {
			require.NoError(t, m.MkdirAll(dir))
		}
		for i := range place {
			place[i] = fmt.Sprintf("d0/f%d", i)
			require.NoError(t, create(t, m, place[i], fmt.Sprint(i)).Sync())
		}
		require.NoError(t, m.SyncDir("d0"))
		require.NoError(t, m.SyncDir(""))
		for n := range uint64(50) {
			i, dir := r.IntN(files), dirs[r.IntN(len(dirs))]
			switch to := fmt.Sprintf("%s/f%d", dir, i); r.IntN(15) {
			case 0:
				m.SyncDir(dir)
			case 1:
				m.Remove(dir) // fails unless it is empty
			case 2:
				require.NoError(t, m.MkdirAll(dir))
				require.NoError(t, m.SyncDir(""))
			default:
				if m.Rename(place[i], to) == nil {
					place[i] = to
				}
			}
			for _, disk := range []*vfs.Mem{m.Crash(n), m.Strict(), m.CrashSynced()} {
				require.Equal(t, "0123", strings.Join(slices.Sorted(slices.Values(everyContent(t, disk))), ""), "seed %d, step %d", seed, n)
			}
		}
	}
}

// everyContent gives what the files hold, in directories of the root.
func everyContent(t testing.TB, fsys vfs.FS) (contents []string) {
	t.Helper()
	dirs, err := fsys.List("")
	require.NoError(t, err)
	for _, dir := range dirs {
		names, err := fsys.List(dir)
		require.NoError(t, err)
		for _, name := range names {
			contents = append(contents, content(t, fsys, dir+"/"+name))
		}
	}
	return contents
}

func TestLinkSurvivesOrNot(t *testing.T) {
	m := vfs.NewMem(1)
	durable(t, m, "a", "data")
	require.NoError(t, m.Link("a", "b"))
	seen := outcomes(t, m, "b")
	require.Len(t, seen, 2)
	require.NoError(t, m.SyncDir(""))
	require.NoError(t, m.Remove("a"))
	require.NoError(t, m.SyncDir(""))
	require.Equal(t, map[string]int{"data": seeds}, outcomes(t, m, "b"))

	require.NoError(t, m.Link("b", "c"))
	f, err := m.OpenReadWrite("c")
	require.NoError(t, err)
	write(t, f, "DATA", 0)
	for seed := range uint64(seeds) {
		disk := m.Crash(seed)
		if c, ok := read(t, disk, "c"); ok {
			b, _ := read(t, disk, "b")
			require.Equal(t, b, c, "one file, two contents")
		}
	}
}

func TestSameSeedSameDisk(t *testing.T) {
	run := func(seed uint64) *vfs.Mem {
		m := vfs.NewMem(seed)
		for i := range 10 {
			f := create(t, m, fmt.Sprint("f", i), fmt.Sprint("content ", i))
			if i%3 == 0 {
				require.NoError(t, f.Sync())
			}
			write(t, f, "tail", 1000)
			if i == 4 {
				require.NoError(t, m.SyncDir(""))
			}
		}
		return m
	}
	a, b, c := run(1), run(1), run(2)
	differ := 0
	for seed := range uint64(20) {
		disk := a.Crash(seed)
		require.Equal(t, image(t, disk), image(t, b.Crash(seed)))
		require.Equal(t, image(t, disk), image(t, a.Crash(seed)))
		if image(t, disk) != image(t, c.Crash(seed)) {
			differ++
		}
	}
	require.Greater(t, differ, 10, "the seed of the Mem takes no part")
}

// The fate of a write does not depend on other files.
func TestFatesAreIndependent(t *testing.T) {
	run := func(others int) *vfs.Mem {
		m := vfs.NewMem(1)
		durable(t, m, "a", "old")
		for i := range others {
			durable(t, m, fmt.Sprint("b", i), "noise")
		}
		f, err := m.OpenReadWrite("a")
		require.NoError(t, err)
		write(t, f, "something new", 0)
		return m
	}
	a, b := run(0), run(5)
	for seed := range uint64(seeds) {
		x, _ := read(t, a.Crash(seed), "a")
		y, _ := read(t, b.Crash(seed), "a")
		require.Equal(t, x, y)
	}
}

// Each way to tear a write leaves something that no other does, and what is durable
// alone.
func TestCrashTorn(t *testing.T) {
	m := vfs.NewMem(1)
	old, data := strings.Repeat("o", 8<<10), strings.Repeat("n", 6000)
	f := durable(t, m, "a", old)
	write(t, f, data, 700)
	seen := map[string]bool{old: true, content(t, m, "a"): true}
	for way := range vfs.Tears {
		for seed := range uint64(10) { // some cut nothing off, or everything
			got := content(t, m.CrashTorn(seed, way), "a")
			require.Equal(t, old[:700], got[:700])
			require.Equal(t, old[6700:], got[6700:])
			if !seen[got] {
				seen[got] = true
				break
			}
			require.Less(t, seed, uint64(9), "way %d", way)
		}
	}
	require.Len(t, seen, 2+vfs.Tears)
}

func TestCrashedDiskStandsAlone(t *testing.T) {
	m := vfs.NewMem(1)
	f := durable(t, m, "a", "data")
	lock, err := m.Lock("lock")
	require.NoError(t, err)
	require.NoError(t, m.SyncDir(""))
	disk := m.Crash(1)
	before := image(t, disk)

	write(t, f, "DATA", 0)
	require.NoError(t, f.Sync())
	require.NoError(t, m.Remove("a"))
	require.NoError(t, m.SyncDir(""))
	require.Equal(t, before, image(t, disk))

	l, err := disk.Lock("lock")
	require.NoError(t, err, "a power cut releases locks")
	require.NoError(t, lock.Close())
	_, err = disk.Lock("lock")
	require.ErrorIs(t, err, vfs.ErrLocked)
	require.NoError(t, l.Close())

	g, err := disk.OpenReadWrite("a")
	require.NoError(t, err)
	write(t, g, "other", 0)
	got := make([]byte, 4)
	_, err = f.ReadAt(got, 0)
	require.NoError(t, err)
	require.Equal(t, "DATA", string(got))
}

// Disks found after power cuts share content with the one they come from; their
// users do not disturb each other.
func TestCrashUnderWay(t *testing.T) {
	m := vfs.NewMem(1)
	f := durable(t, m, "a", strings.Repeat("x", 20_000))
	var wg sync.WaitGroup
	for i := range 20 {
		write(t, f, strings.Repeat("y", 5000), int64(i*500))
		disk := m.Crash(uint64(i))
		before := image(t, disk)
		wg.Go(func() {
			other := disk.Crash(1)
			g, err := other.OpenReadWrite("a")
			if err == nil {
				g.WriteAt(make([]byte, 9000), 100)
				g.Sync()
				other.Corrupt("a", 19_000, 1)
				other.Crash(2)
			}
			if image(t, disk) != before {
				t.Error("the disk changed")
			}
		})
		if i%3 == 0 {
			require.NoError(t, f.Sync())
		}
	}
	wg.Wait()
}
