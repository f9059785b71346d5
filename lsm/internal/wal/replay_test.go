package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/vfs"
)

const segmentBytes = 1024

func writerOptions(fs vfs.FS, next *uint64) WriterOptions {
	return WriterOptions{FS: fs, Dir: "log", SegmentBytes: segmentBytes, Segments: 2, Number: func() uint64 {
		*next++
		return *next
	}, Salt: func() uint64 { return *next << 32 }}
}

func group1(payload string) []byte { return append(make([]byte, GroupHeaderBytes), payload...) }

// chain writes three segments with four synced groups each, after the empty one
// that each begins with, and gives the payloads.
func chain(t testing.TB, fs vfs.FS) (payloads []string) {
	require.NoError(t, fs.MkdirAll("log"))
	require.NoError(t, fs.SyncDir("."))
	var next uint64
	w := NewWriter(writerOptions(fs, &next), Position{}, nil, nil)
	for s := range 3 {
		require.NoError(t, w.Rotate(group1("")))
		payloads = append(payloads, "")
		for g := range 4 {
			p := fmt.Sprintf("segment %d group %d", s, g)
			require.NoError(t, w.Write(group1(p)))
			require.NoError(t, w.Sync())
			payloads = append(payloads, p)
		}
	}
	require.NoError(t, w.file.Close())
	return payloads
}

// replayed gives what Replay shows of segments 1 to 3.
func replayed(fs vfs.FS, numbers ...uint64) (got []string, r Recovered, err error) {
	r, err = Replay(fs, "log", 1, base.LogEnd{}, numbers, func(segment uint64, off int64, b []byte) error {
		got = append(got, string(b))
		return nil
	})
	return got, r, err
}

func TestReplay(t *testing.T) {
	fs := vfs.NewMem(1)
	want := chain(t, fs)
	got, r, err := replayed(fs.Strict(), 1, 2, 3)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Equal(t, want[len(want)-1], string(r.Tail), "only the last group is not known to be durable")
	require.Equal(t, uint64(len(want)-1), r.At.Sequence)
}

// TestDamage flips each byte, zeroes each sector and cuts at each byte of each
// segment. Only what reaches into the last group of all may be taken for torn:
// nothing is left to say otherwise. Anything else is harmless or ErrCorrupt.
func TestDamage(t *testing.T) {
	fs := vfs.NewMem(1)
	want := chain(t, fs)
	harmless, torn, corrupt := 0, 0, 0
	// Whole is how many groups are before the damage.
	judge := func(what string, disk *vfs.Mem, whole int, mayTear bool) {
		got, r, err := replayed(disk, 1, 2, 3)
		switch {
		case errors.Is(err, base.ErrCorrupt):
			corrupt++
			// Zeroes where zeroes were leave one more group good.
			require.GreaterOrEqual(t, len(got), whole, "%s: what is before the damage", what)
			require.Equal(t, want[:len(got)], append([]string{}, got...), what)
			require.LessOrEqual(t, r.Damaged, uint64(len(got)/5+1), what)
			require.NotZero(t, r.Damaged, what)
		case err != nil:
			t.Fatalf("%s: %v", what, err)
		case len(got) == len(want):
			require.Equal(t, want, got, what)
			harmless++
		default:
			require.True(t, mayTear, "%s: taken for torn", what)
			require.Equal(t, want[:whole], got, what)
			torn++
		}
	}
	for s := uint64(1); s <= 3; s++ {
		name := "log/" + base.LogName(s)
		var ends []int64
		f, err := fs.Open(name)
		require.NoError(t, err)
		w, err := newWindow(f)
		require.NoError(t, err)
		off := int64(headBytes)
		for {
			g, _, ok, err := w.group(s, s<<32, off)
			require.NoError(t, err)
			if !ok {
				break
			}
			ends = append(ends, off)
			off += g.bytes()
		}
		require.Len(t, ends, 5)
		lastStart := ends[4]
		before := func(at int64) int {
			whole := 5 * int(s-1)
			for _, start := range ends[1:] {
				if start <= at {
					whole++
				}
			}
			return whole
		}
		for at := range off + 64 {
			disk := fs.Strict()
			require.NoError(t, disk.Corrupt(name, at, 0x10))
			judge(fmt.Sprintf("segment %d, byte %d", s, at), disk, before(at), s == 3 && at >= lastStart)
			if s < 3 || at >= lastStart { // a shorter last segment is what an earlier crash leaves
				disk = fs.Strict()
				truncate(t, disk, name, at)
				judge(fmt.Sprintf("segment %d, cut at %d", s, at), disk, before(at), s == 3)
			}
		}
		for at := int64(0); at < off; at += 64 {
			disk := fs.Strict()
			write(t, disk, name, make([]byte, 64), at)
			judge(fmt.Sprintf("segment %d, zeroes at %d", s, at), disk, before(at), s == 3 && at+64 > lastStart)
		}
	}
	t.Logf("%d harmless, %d torn, %d corrupt", harmless, torn, corrupt)
	require.Positive(t, torn)

	_, _, err := replayed(fs, 1, 3)
	require.ErrorIs(t, err, base.ErrCorrupt, "a segment is missing")
	_, _, err = replayed(fs, 2, 3)
	require.ErrorIs(t, err, base.ErrCorrupt, "the first segment is missing")
	disk := fs.Strict()
	require.NoError(t, disk.Remove("log/"+base.LogName(2)))
	require.NoError(t, disk.Link("log/"+base.LogName(1), "log/"+base.LogName(2)))
	_, _, err = replayed(disk, 1, 2, 3)
	require.ErrorIs(t, err, base.ErrCorrupt, "a segment stands in for another")
}

func truncate(t testing.TB, fs vfs.FS, name string, size int64) {
	f, err := fs.OpenReadWrite(name)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(size))
	require.NoError(t, f.Close())
}

func write(t testing.TB, fs vfs.FS, name string, b []byte, off int64) {
	f, err := fs.OpenReadWrite(name)
	require.NoError(t, err)
	_, err = f.WriteAt(b, off)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// TestRecycled requires that what an older segment left in a recycled file is
// never taken for a group.
func TestRecycled(t *testing.T) {
	fs := vfs.NewMem(1)
	require.NoError(t, fs.MkdirAll("log"))
	var next uint64
	w := NewWriter(writerOptions(fs, &next), Position{}, nil, nil)
	for range 3 {
		require.NoError(t, w.Rotate(group1("")))
		for g := range 5 {
			require.NoError(t, w.Write(group1(fmt.Sprint("group", g))))
			require.NoError(t, w.Sync())
		}
		require.NoError(t, w.Release(w.Segment()))
	}
	live, idle := w.Segments()
	require.Equal(t, []int{1, 1}, []int{live, idle}, "one was recycled")
	require.NoError(t, w.Rotate(group1("")))
	got := 0
	_, err := Replay(fs, "log", w.Segment(), base.LogEnd{}, []uint64{w.Segment()}, func(uint64, int64, []byte) error { got++; return nil })
	require.NoError(t, err)
	require.Equal(t, 1, got)
	require.NoError(t, w.Close())
}

// TestLazyTail writes groups without syncs: where a power cut leaves a later one
// and not an earlier one, the log ends before the gap.
func TestLazyTail(t *testing.T) {
	fs := vfs.NewMem(1)
	require.NoError(t, fs.MkdirAll("log"))
	var next uint64
	w := NewWriter(writerOptions(fs, &next), Position{}, nil, nil)
	require.NoError(t, w.Rotate(group1("")))
	require.NoError(t, fs.SyncDir("."))
	for g := range 8 {
		require.NoError(t, w.Write(group1(fmt.Sprint("group ", g))))
	}
	for seed := range uint64(300) {
		got, _, err := replayed(fs.Crash(seed), 1)
		require.NoError(t, err)
		for i, p := range got[1:] {
			require.Equal(t, fmt.Sprint("group ", i), p)
		}
	}
	require.NoError(t, w.Close())
}

// forged gives a value that, stored at the place off of a file, is a group of the
// segment there if that has the given salt. It says that all before it was durable.
func forged(segment, salt uint64, off int64) string {
	b := group1("")
	g := group{salt: salt, sequence: 900, previous: 0, synced: 899}
	g.seal(b, segment, off)
	return string(b)
}

// TestForgedGroup stores a value that is a later group of a segment, but for the salt,
// which its writer cannot know: inside a group that is torn by a crash, and in a
// segment whose file is then used for that segment. Nothing is damaged, and nothing
// is taken for that. With a salt that can be foreseen it would be.
func TestForgedGroup(t *testing.T) {
	for _, foreseen := range []bool{true, false} {
		fs := vfs.NewMem(1)
		require.NoError(t, fs.MkdirAll("log"))
		next, drawn := uint64(0), uint64(0)
		o := writerOptions(fs, &next)
		o.Salt = func() uint64 {
			if !foreseen {
				drawn++
			}
			return 77 + drawn
		}
		judge := func(what string, must uint64, want int) {
			n := 0
			_, err := Replay(fs, "log", must, base.LogEnd{}, []uint64{must}, func(uint64, int64, []byte) error { n++; return nil })
			if foreseen {
				require.ErrorIs(t, err, base.ErrCorrupt, what)
				return
			}
			require.NoError(t, err, what)
			require.Equal(t, want, n, what)
		}
		w := NewWriter(o, Position{}, nil, nil)
		require.NoError(t, w.Rotate(group1("")))
		at := w.Bytes() + GroupHeaderBytes
		require.NoError(t, w.Write(group1(forged(1, 77, at))))
		require.NoError(t, w.Sync())
		require.NoError(t, fs.Corrupt("log/"+base.LogName(1), w.Bytes()-2*GroupHeaderBytes, 1))
		judge("in a torn group", 1, 1)

		// Segment 3 takes the file of segment 1.
		at = w.Bytes() + GroupHeaderBytes
		require.NoError(t, w.Write(group1(forged(3, 77, at))))
		require.NoError(t, w.Rotate(group1("")))
		require.NoError(t, w.Release(2))
		require.NoError(t, w.Rotate(group1("")))
		require.Equal(t, uint64(3), w.Segment())
		judge("in a recycled file", 3, 1)
		require.NoError(t, w.Close())
	}
}

// TestSegmentInValue stores copies of the start of the segment itself: that may be
// taken for damage, but the search is bounded in time.
func TestSegmentInValue(t *testing.T) {
	fs := vfs.NewMem(1)
	require.NoError(t, fs.MkdirAll("log"))
	var next uint64
	w := NewWriter(writerOptions(fs, &next), Position{}, nil, nil)
	require.NoError(t, w.Rotate(group1("")))
	head := group1("")
	g := group{length: 8000, salt: 1 << 32, sequence: 9, previous: 9, synced: 9}
	g.seal(head, 1, 0)
	require.NoError(t, w.Write(group1(string(bytes.Repeat(head, 1000)))))
	require.NoError(t, w.Sync())
	require.NoError(t, fs.Corrupt("log/"+base.LogName(1), headBytes+GroupHeaderBytes+1, 1))
	_, _, err := replayed(fs, 1)
	require.ErrorIs(t, err, base.ErrCorrupt)
	require.NoError(t, w.Close())
}

// TestCutRecycling cuts the power at each step of making a segment out of a released
// one full of forged groups: the segment was never used then, and nothing is damaged.
func TestCutRecycling(t *testing.T) {
	disk := vfs.NewMem(1)
	var cuts []*vfs.Mem
	armed := false
	fs := vfs.Faulty(disk, func(op vfs.Op) error {
		if armed && (op.Kind.Changes() || op.Kind.Syncs()) {
			cuts = append(cuts, disk.Strict(), disk.CrashSynced())
			for seed := range uint64(30) {
				cuts = append(cuts, disk.Crash(seed))
			}
		}
		return nil
	})
	require.NoError(t, fs.MkdirAll("log"))
	require.NoError(t, fs.SyncDir("."))
	var next uint64
	w := NewWriter(writerOptions(fs, &next), Position{}, nil, nil)
	require.NoError(t, w.Rotate(group1("")))
	for range 5 {
		require.NoError(t, w.Write(group1(forged(3, 7, w.Bytes()+GroupHeaderBytes))))
	}
	require.NoError(t, w.Rotate(group1("")))
	require.NoError(t, w.Release(2))
	armed = true
	require.NoError(t, w.Prepare())
	require.NotEmpty(t, cuts)
	for i, cut := range cuts {
		numbers := []uint64{2}
		if _, err := cut.Stat("log/" + base.LogName(3)); err == nil {
			numbers = append(numbers, 3)
		}
		r, err := Replay(cut, "log", 2, base.LogEnd{}, numbers, func(uint64, int64, []byte) error { return nil })
		require.NoError(t, err, "cut %d", i)
		require.Equal(t, []uint64{2}, r.Live)
	}
	require.NoError(t, w.DropNext())
	require.NoError(t, w.Close())
}

// Two segments of hostile bytes, as they are and under right salts and checksums. What
// is replayed are groups that verify where they stand, in order and without a gap; all
// there are, when nothing is called damaged and nothing is replaced.
func FuzzReplay(f *testing.F) {
	fs := vfs.NewMem(1)
	chain(f, fs)
	var segments [2][]byte
	for i := range segments {
		file, err := fs.Open("log/" + base.LogName(uint64(i+1)))
		require.NoError(f, err)
		segments[i] = make([]byte, 400)
		_, err = file.ReadAt(segments[i], 0)
		require.NoError(f, err)
	}
	f.Add(segments[0], segments[1], false)
	f.Add(segments[0], segments[1], true)
	// The second begins with what replaces the last group of the first.
	var last int64
	valid(segments[0], 1, func(_ group, off int64) { last = off })
	again := bytes.Clone(segments[1])
	valid(segments[1], 2, func(g group, off int64) {
		g.sequence, g.synced = g.sequence-1, g.synced-1
		if off == headBytes {
			g.previous = uint64(last)
		}
		g.seal(again[off:off+g.bytes()], 2, off)
	})
	f.Add(segments[0], again, false)
	f.Add(segments[0], again, true)
	f.Add(segments[0], segments[1][:60], false)
	f.Fuzz(func(t *testing.T, a, b []byte, right bool) {
		fs := vfs.NewMem(1)
		require.NoError(t, fs.MkdirAll("log"))
		type place struct {
			segment uint64
			off     int64
		}
		var places []place
		groups := map[place]group{}
		for i, b := range [][]byte{a, b} {
			segment := uint64(i + 1)
			if right {
				repair(b, segment)
			}
			file, err := fs.Create("log/" + base.LogName(segment))
			require.NoError(t, err)
			_, err = file.WriteAt(b, 0)
			require.NoError(t, err)
			valid(b, segment, func(g group, off int64) {
				p := place{segment, off + GroupHeaderBytes}
				places, groups[p] = append(places, p), g
			})
		}
		var shown []place
		r, err := Replay(fs, "log", 1, base.LogEnd{}, []uint64{1, 2}, func(segment uint64, off int64, records []byte) error {
			p := place{segment, off}
			g, ok := groups[p]
			require.True(t, ok, "%v is no group", p)
			require.Len(t, records, int(g.length))
			if n := len(shown); n > 0 {
				require.Less(t, slices.Index(places, shown[n-1]), slices.Index(places, p))
				require.Equal(t, groups[shown[n-1]].sequence+1, g.sequence)
			}
			shown = append(shown, p)
			return nil
		})
		switch {
		case errors.Is(err, base.ErrCorrupt), errors.Is(err, base.ErrIncompatible):
		case err != nil:
			t.Fatal(err)
		default:
			require.NotEmpty(t, shown)
			last := groups[shown[len(shown)-1]]
			require.Equal(t, places[len(places)-1], shown[len(shown)-1], "the last group is the end")
			require.LessOrEqual(t, r.At.Sequence, last.sequence)
			if groups[places[len(places)-1]].sequence-groups[places[0]].sequence+1 == uint64(len(places)) {
				require.Equal(t, places, shown)
			}
		}
	})
}

// valid calls do with the groups of a segment, up to one that does not verify or does not
// follow.
func valid(b []byte, segment uint64, do func(g group, off int64)) {
	salt, err := decodeHead(b, segment, "")
	var last group
	for off := int64(headBytes); err == nil && off+GroupHeaderBytes <= int64(len(b)); {
		g, sum := decodeGroup(b[off:])
		if g.salt != salt || off+g.bytes() > int64(len(b)) || base.Checksum(segment, off, b[off+4:off+g.bytes()]) != sum {
			return
		}
		if off > headBytes && (g.sequence != last.sequence+1 || g.previous != uint64(off)) {
			return
		}
		do(g, off)
		last = g
		off += g.bytes()
	}
}

// repair makes head, salts and checksums of a segment right.
func repair(b []byte, segment uint64) {
	if len(b) < headBytes {
		return
	}
	salt := binary.LittleEndian.Uint64(b[base.HeaderBytes:])
	copy(b, appendHead(nil, segment, salt))
	for off := int64(headBytes); off+GroupHeaderBytes <= int64(len(b)); {
		g, _ := decodeGroup(b[off:])
		if off+g.bytes() > int64(len(b)) {
			return
		}
		g.salt = salt
		g.seal(b[off:off+g.bytes()], segment, off)
		off += g.bytes()
	}
}

// TestPrepare: a segment that was made ahead costs the log's goroutine one write
// and one sync, and one that is never used hurts nobody.
func TestPrepare(t *testing.T) {
	disk := vfs.NewMem(1)
	var ops []vfs.Kind
	fs := vfs.Faulty(disk, func(op vfs.Op) error {
		if op.Kind.Changes() || op.Kind.Syncs() {
			ops = append(ops, op.Kind)
		}
		return nil
	})
	require.NoError(t, fs.MkdirAll("log"))
	require.NoError(t, fs.SyncDir("."))
	var next uint64
	w := NewWriter(writerOptions(fs, &next), Position{}, nil, nil)
	require.NoError(t, w.Rotate(group1("first")))
	for range 3 {
		require.NoError(t, w.Write(group1("more")))
		require.NoError(t, w.Sync())
		require.NoError(t, w.Prepare())
		require.NoError(t, w.Prepare(), "there is one already")
		ops = nil
		require.NoError(t, w.Rotate(group1("next")))
		require.Equal(t, []vfs.Kind{vfs.OpWrite, vfs.OpSyncData}, ops)
	}
	require.NoError(t, w.Prepare())
	var numbers []uint64
	for n := range next {
		numbers = append(numbers, n+1)
	}
	for _, crashed := range []vfs.FS{disk.Strict(), disk.Crash(1), disk.Crash(2)} {
		n := 0
		r, err := Replay(crashed, "log", 1, base.LogEnd{}, numbers, func(uint64, int64, []byte) error { n++; return nil })
		require.NoError(t, err)
		require.Equal(t, []uint64{1, 2, 3, 4}, r.Live)
		require.Equal(t, 7, n)
	}
	live, idle := w.Segments()
	require.Equal(t, []int{4, 1}, []int{live, idle})
	require.NoError(t, w.Release(4))
	live, idle = w.Segments()
	require.Equal(t, []int{1, 1}, []int{live, idle}, "the allotment is two")
	require.NoError(t, w.Close())
	require.NoError(t, w.DropNext())
}

// TestRotateFull fills the volume at each change that a rotation makes, for that one
// or for good. Either nothing of the next segment is left, also after a crash, and
// the current one goes on; or nothing is written any more.
func TestRotateFull(t *testing.T) {
	for _, onward := range []bool{false, true} {
		soft, final := 0, 0
		for k, hit := 0, true; hit; k++ {
			disk := vfs.NewMem(1)
			require.NoError(t, disk.MkdirAll("log"))
			require.NoError(t, disk.SyncDir("."))
			var armed bool
			n := 0
			hit = false
			fs := vfs.Faulty(disk, func(op vfs.Op) error {
				if !armed || op.Kind == vfs.OpRemove || !op.Kind.Changes() && !op.Kind.Syncs() {
					return nil
				}
				if n++; n-1 == k || onward && n-1 > k {
					hit = true
					return vfs.ErrNoSpace
				}
				return nil
			})
			var next uint64
			w := NewWriter(writerOptions(fs, &next), Position{}, nil, nil)
			require.NoError(t, w.Rotate(group1("first")))
			armed = true
			err := w.Rotate(group1("second"))
			armed = false
			at := fmt.Sprintf("change %d: %v", k, err)
			if err != nil {
				require.ErrorIs(t, err, vfs.ErrNoSpace, at)
			}
			if w.Err() != nil {
				require.Error(t, w.Write(group1("more")), at)
				require.Error(t, w.Close(), at)
				final++
				continue
			}
			want := []string{"first", "more"}
			if err == nil {
				want = []string{"first", "second", "more"}
			} else {
				soft++
			}
			require.NoError(t, w.Write(group1("more")), at)
			require.NoError(t, w.Sync(), at)
			for seed := range uint64(10) {
				crashed := disk.Crash(seed)
				var numbers []uint64
				for i := range next {
					if _, err := crashed.Stat(w.name(i + 1)); err == nil {
						numbers = append(numbers, i+1)
					}
				}
				got, _, err := replayed(crashed, numbers...)
				require.NoError(t, err, at)
				require.Equal(t, want, got, at)
			}
			require.NoError(t, w.Close(), at)
		}
		require.Positive(t, soft)
		require.Equal(t, onward, final > 0, "%d", final)
	}
}
