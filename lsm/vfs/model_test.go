package vfs_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
)

// A model is the stupid version of a Mem with one directory: it says what every
// power cut has to leave, and what none may.
type model struct {
	m       *vfs.Mem
	entries []map[string]*modelFile // since the last SyncDir, the present last
}

type modelFile struct {
	contents []string // since the last Sync, the present last
	dirty    []bool   // bytes that were changed since
}

func newModel(seed uint64) *model {
	return &model{m: vfs.NewMem(seed), entries: []map[string]*modelFile{{}}}
}

func (o *model) live() map[string]*modelFile { return o.entries[len(o.entries)-1] }

func (f *modelFile) live() string { return f.contents[len(f.contents)-1] }

func (o *model) step(entries map[string]*modelFile) { o.entries = append(o.entries, entries) }

func (f *modelFile) change(content string, lo, hi int) {
	f.contents = append(f.contents, content)
	for len(f.dirty) < hi {
		f.dirty = append(f.dirty, false)
	}
	for i := lo; i < hi; i++ {
		f.dirty[i] = true
	}
}

// A script is a source of small decisions.
type script []byte

func (s *script) below(n int) int {
	if len(*s) == 0 {
		return 0
	}
	b := (*s)[0]
	*s = (*s)[1:]
	return int(b) % n
}

// run does one operation.
func (o *model) run(t *testing.T, s *script) {
	names := []string{"a", "b", "c"}
	name, other := names[s.below(3)], names[s.below(3)]
	f := o.live()[name]
	switch op := s.below(9); {
	case op == 0:
		h, err := o.m.Create(name)
		require.NoError(t, err)
		require.NoError(t, h.Close())
		if f == nil {
			next := maps.Clone(o.live())
			next[name] = &modelFile{contents: []string{""}}
			o.step(next)
		} else {
			f.change("", 0, len(f.live()))
		}
	case op == 1:
		require.NoError(t, o.m.SyncDir("."))
		o.entries = o.entries[len(o.entries)-1:]
	case f == nil:
		_, err := o.m.Open(name)
		require.Error(t, err)
	case op == 2:
		require.NoError(t, o.m.Remove(name))
		next := maps.Clone(o.live())
		delete(next, name)
		o.step(next)
	case op == 3:
		require.NoError(t, o.m.Rename(name, other))
		if o.live()[other] == f {
			return // two names of one file, or one: nothing happens
		}
		next := maps.Clone(o.live())
		delete(next, name)
		next[other] = f
		o.step(next)
	case op == 4 && o.live()[other] == nil:
		require.NoError(t, o.m.Link(name, other))
		next := maps.Clone(o.live())
		next[other] = f
		o.step(next)
	default:
		h, err := o.m.OpenReadWrite(name)
		require.NoError(t, err)
		defer h.Close()
		o.edit(t, s, f, h)
	}
}

// edit changes or syncs a file.
func (o *model) edit(t *testing.T, s *script, f *modelFile, h vfs.File) {
	old := f.live()
	switch s.below(4) {
	case 0:
		require.NoError(t, h.Sync())
		f.contents, f.dirty = []string{old}, nil
	case 1:
		size := s.below(256) * 41
		require.NoError(t, h.Truncate(int64(size)))
		next := make([]byte, size)
		copy(next, old)
		f.change(string(next), min(size, len(old)), max(size, len(old)))
	default:
		off, p := s.below(256)*37, make([]byte, 1+s.below(256)*7)
		for i := range p {
			p[i] = byte(len(*s) + i)
		}
		_, err := h.WriteAt(p, int64(off))
		require.NoError(t, err)
		next := make([]byte, max(len(old), off+len(p)))
		copy(next, old)
		copy(next[off:], p)
		f.change(string(next), min(off, len(old)), off+len(p))
	}
}

// check compares the disks that the power cuts at this moment leave.
func (o *model) check(t *testing.T, seed uint64) {
	live := describe(o.live(), (*modelFile).live)
	synced := describe(o.entries[0], func(f *modelFile) string { return f.contents[0] })
	require.Equal(t, live, image(t, o.m))
	require.Equal(t, live, image(t, o.m.CrashSynced()))
	require.Equal(t, synced, image(t, o.m.Strict()))

	disk := o.m.Crash(seed)
	names, err := disk.List("")
	require.NoError(t, err)
	found := slices.ContainsFunc(o.entries, func(entries map[string]*modelFile) bool {
		if !slices.Equal(names, slices.Sorted(maps.Keys(entries))) {
			return false
		}
		for name, f := range entries {
			if !f.mayHold(content(t, disk, name)) {
				return false
			}
		}
		return true
	})
	require.True(t, found, "the disk is none that the directory ever was: %v", names)
	require.Equal(t, image(t, disk), image(t, disk.Strict()), "a disk found after a power cut is durable")
}

func describe(entries map[string]*modelFile, content func(*modelFile) string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		b.WriteString(line("/"+name, content(entries[name])))
	}
	return b.String()
}

// mayHold reports whether a power cut may leave this content: a size between
// the smallest and the largest since the sync, and below all of them the synced
// bytes, but where they were changed.
func (f *modelFile) mayHold(content string) bool {
	synced := f.contents[0]
	low, high := len(synced), len(synced)
	for _, c := range f.contents {
		low, high = min(low, len(c)), max(high, len(c))
	}
	if len(content) < low || len(content) > high {
		return false
	}
	for i := range low {
		if content[i] != synced[i] && (i >= len(f.dirty) || !f.dirty[i]) {
			return false
		}
	}
	return true
}

// FuzzPowerLoss runs small sequences of operations, with a power cut after each:
// what was synced is there, and nothing that never was.
func FuzzPowerLoss(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 150 {
		p := make([]byte, 200)
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := script(data)
		o := newModel(uint64(s.below(256)))
		for n := uint64(0); len(s) > 0 && n < 64; n++ {
			o.run(t, &s)
			o.check(t, n)
		}
	})
}
