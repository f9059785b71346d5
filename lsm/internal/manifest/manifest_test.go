package manifest

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/table"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

const dir = "db"

var name = path.Join(dir, base.ManifestName)

var params = Params{Directory: [16]byte{1, 2, 3, 15: 16}, Slices: 8}

func newDir(t testing.TB) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem(1)
	require.NoError(t, mem.MkdirAll(dir))
	require.NoError(t, mem.SyncDir(""))
	return mem
}

func create(t testing.TB, fsys vfs.FS) *Manifest {
	t.Helper()
	m, err := Create(fsys, dir, params)
	require.NoError(t, err)
	return m
}

// tableOf gives a table that tells its number by all its fields.
func tableOf(id uint64) Table {
	return Table{Slice: uint32(id % 8), Level: uint8(id % 3), Run: id, Cold: id%5 == 0, Meta: table.Meta{
		ID: id, Bytes: id * 1000, Count: id, Tombstones: id / 2, Expiring: id / 3, RawBytes: id * 2000, MinToken: id, MaxToken: id * 2,
		MinDot: vclock.Dot{Stamp: id, Actor: 1}, MaxDot: vclock.Dot{Stamp: 2 * id, Actor: 2}, MaxDeadline: -int64(id), Hash: ^id}}
}

// edits gives the i-th edit of a tree that flushes and compacts.
func editOf(i uint64) Edit {
	e := Edit{Add: []Table{tableOf(2*i + 1), tableOf(2*i + 2)}, LogFrom: i + 1, NextFile: 2*i + 10}
	if i >= 3 {
		e.Remove = []uint64{2*(i-3) + 1, 2*(i-3) + 2}
		e.Damage = []Damage{{Part{2*(i-3) + 1, base.Span{Lo: i, Hi: 10 * i}}, vclock.Dot{Stamp: i, Actor: 3}}}
	}
	if i >= 4 {
		e.Heal = []Part{{2*(i-4) + 1, base.Span{Lo: 2 * i, Hi: 3 * i}}}
	}
	if i >= 6 {
		e.Heal = append(e.Heal, Part{2*(i-6) + 1, base.AllTokens})
	}
	if i%2 == 0 {
		e.Drop = []Part{{2*i + 1, base.Span{Lo: 1, Hi: i + 1}}, {2*i + 1, base.Span{Lo: i + 2, Hi: i + 3}}, {2*i + 2, base.Span{Hi: ^uint64(0)}}}
	}
	return e
}

func contentOf(t testing.TB, fsys vfs.FS) []byte {
	t.Helper()
	f, err := fsys.Open(name)
	require.NoError(t, err)
	defer f.Close()
	size, err := f.Size()
	require.NoError(t, err)
	b := make([]byte, size)
	_, err = f.ReadAt(b, 0)
	require.NoError(t, err)
	return b
}

// dirOf gives a directory whose manifest has the given content.
func dirOf(t testing.TB, b []byte) *vfs.Mem {
	t.Helper()
	mem := newDir(t)
	f, err := mem.Create(name)
	require.NoError(t, err)
	_, err = f.WriteAt(b, 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return mem
}

func TestCreateApplyOpen(t *testing.T) {
	mem := newDir(t)
	_, err := Open(mem, dir)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = Read(mem, dir)
	require.ErrorIs(t, err, fs.ErrNotExist)

	m := create(t, mem)
	require.Equal(t, &State{Params: params, NextFile: 1}, m.State())
	before := m.State()
	for i := range uint64(20) {
		require.NoError(t, m.Apply(editOf(i)))
	}
	require.NoError(t, m.Apply(Edit{}))
	require.Equal(t, &State{Params: params, NextFile: 1}, before, "a state is a snapshot")
	s := m.State()
	require.Len(t, s.Tables, 6)
	require.Equal(t, uint64(20), s.LogFrom)
	require.Equal(t, uint64(2*19+10), s.NextFile)
	for _, table := range s.Tables {
		require.Equal(t, tableOf(table.ID), table)
		require.Contains(t, s.Places(), table.ID)
	}
	require.Len(t, s.Places(), len(s.Tables))
	require.NoError(t, m.Close())
	require.NoError(t, m.Close())
	require.ErrorIs(t, m.Apply(editOf(20)), ErrClosed)

	read, err := Read(mem, dir)
	require.NoError(t, err)
	require.Equal(t, s, read)
	m, err = Open(mem, dir)
	require.NoError(t, err)
	require.Equal(t, s, m.State())
	require.NoError(t, m.Apply(editOf(20)))
	require.NoError(t, m.Close())
}

func TestOrderOfTables(t *testing.T) {
	m := create(t, newDir(t))
	add := func(id uint64, slice uint32, level uint8, run, token uint64) Table {
		return Table{Slice: slice, Level: level, Run: run, Meta: table.Meta{ID: id, MinToken: token, MaxToken: token}}
	}
	require.NoError(t, m.Apply(Edit{Add: []Table{add(1, 1, 0, 0, 0), add(2, 0, 1, 0, 0), add(3, 0, 0, 4, 9), add(4, 0, 0, 4, 8), add(5, 0, 0, 5, 9)}}))
	var ids []uint64
	for _, t := range m.State().Tables {
		ids = append(ids, t.ID)
	}
	require.Equal(t, []uint64{5, 4, 3, 2, 1}, ids)
}

func TestRefusedEdits(t *testing.T) {
	m := create(t, newDir(t))
	require.NoError(t, m.Apply(Edit{Add: []Table{tableOf(1), tableOf(2)}}))
	before := contentOf(t, m.fs)
	state := m.State()
	bad := func(change func(*Table)) Edit {
		x := tableOf(3)
		change(&x)
		return Edit{Add: []Table{x}}
	}
	for _, e := range []Edit{
		{Remove: []uint64{3}},
		{Remove: []uint64{1, 1}},
		{Add: []Table{tableOf(1)}},
		{Add: []Table{tableOf(3), tableOf(3)}},
		bad(func(x *Table) { x.Slice = 8 }),
		bad(func(x *Table) { x.Level = MaxLevel + 1 }),
		bad(func(x *Table) { x.ID = ^uint64(0) }),
	} {
		require.Error(t, m.Apply(e))
	}
	require.Equal(t, state, m.State())
	require.Equal(t, before, contentOf(t, m.fs))

	moved := tableOf(1)
	moved.Level, moved.Cold = 2, true
	require.NoError(t, m.Apply(Edit{Remove: []uint64{1}, Add: []Table{moved}}))
	require.Contains(t, m.State().Tables, moved)
	require.True(t, m.State().Places()[1])
	for _, slices := range []uint32{0, MaxSlices + 1} {
		_, err := Create(newDir(t), dir, Params{Slices: slices})
		require.Error(t, err)
	}
}

func TestRewrite(t *testing.T) {
	mem := newDir(t)
	m := create(t, mem)
	m.rewriteAt = 1000
	largest := int64(0)
	for i := range uint64(200) {
		m.rewriteAt = min(m.rewriteAt, 4000)
		require.NoError(t, m.Apply(editOf(i)))
		largest = max(largest, m.at.end)
	}
	require.Greater(t, m.at.generation, uint64(5))
	require.Less(t, largest, int64(6000))
	state := m.State()
	require.NoError(t, m.Close())
	m, err := Open(mem, dir)
	require.NoError(t, err)
	require.Equal(t, state, m.State())
	names, err := mem.List(dir)
	require.NoError(t, err)
	require.Equal(t, []string{base.ManifestName}, names)
}

// Any sequence of edits, reopened at any time, is what a map of tables says.
func TestAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mem := vfs.NewMem(1)
		require.NoError(t, mem.MkdirAll(dir))
		m, err := Create(mem, dir, params)
		require.NoError(t, err)
		live := map[uint64]Table{}
		next, from := uint64(1), uint64(0)
		lost := spoils{damaged: map[uint64][]uint64{}, dropped: map[uint64][]uint64{}}
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			var e Edit
			for id := range uint64(20) {
				_, ok := live[id]
				switch {
				case !ok && rapid.IntRange(0, 3).Draw(t, "add") == 0:
					e.Add = append(e.Add, tableOf(id))
					live[id] = tableOf(id)
					next = max(next, id+1)
				case ok && rapid.IntRange(0, 3).Draw(t, "remove") == 0:
					e.Remove = append(e.Remove, id)
					delete(live, id)
				}
			}
			part := rapid.Custom(func(t *rapid.T) Part {
				lo := rapid.Uint64().Draw(t, "lo")
				return Part{rapid.Uint64Range(0, 19).Draw(t, "file"), base.Span{Lo: lo, Hi: rapid.Uint64Min(lo).Draw(t, "hi")}}
			})
			e.Heal = rapid.SliceOfN(part, 0, 2).Draw(t, "heal")
			for _, p := range rapid.SliceOfN(part, 0, 2).Draw(t, "damage") {
				e.Damage = append(e.Damage, Damage{p, vclock.Dot{Stamp: p.Lo}})
			}
			for _, p := range rapid.SliceOfN(part, 0, 2).Draw(t, "drop") {
				if _, ok := live[p.File]; ok {
					e.Drop = append(e.Drop, p)
				}
			}
			lost.apply(e)
			e.LogFrom = rapid.Uint64().Draw(t, "from")
			from = max(from, e.LogFrom)
			if rapid.IntRange(0, 5).Draw(t, "rewrite") == 0 {
				m.rewriteAt = 0
			}
			require.NoError(t, m.Apply(e))
			if rapid.IntRange(0, 5).Draw(t, "reopen") == 0 {
				require.NoError(t, m.Close())
				m, err = Open(mem, dir)
				require.NoError(t, err)
			}
			s := m.State()
			require.Equal(t, next, s.NextFile)
			require.Equal(t, from, s.LogFrom)
			require.Equal(t, len(live), len(s.Tables))
			for _, x := range s.Tables {
				require.Equal(t, live[x.ID], x)
			}
			lost.require(t, s)
		}
	})
}

func TestNewerVersionIsIncompatible(t *testing.T) {
	mem := newDir(t)
	require.NoError(t, create(t, mem).Close())
	b := contentOf(t, mem)
	copy(b, base.AppendHeader(nil, base.ManifestMagic, base.Header{Version: formatVersion + 1, Number: 1}))
	_, err := Open(dirOf(t, b), dir)
	require.ErrorIs(t, err, base.ErrIncompatible)
}

// Every bit flipped is damage, or lies in a seal and is harmless; and never
// does it give another state (S4).
func TestEveryBit(t *testing.T) {
	mem := newDir(t)
	m := create(t, mem)
	for i := range uint64(3) {
		require.NoError(t, m.Apply(editOf(i)))
	}
	state, good := m.State(), contentOf(t, mem)
	harmless := 0
	for bit := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		d, _, err := decode(bad)
		if err == nil {
			harmless++
			require.Equal(t, state, d.publish(), "bit %d", bit)
			continue
		}
		require.ErrorIs(t, err, base.ErrCorrupt)
	}
	require.Equal(t, 8*4*sealBytes, harmless, "the seals of a snapshot and three edits")
}

// Cut anywhere behind the first frame, a manifest gives the state of a whole
// number of edits; an edit overwritten by garbage gives the one before, if
// nothing follows.
func TestTornTail(t *testing.T) {
	mem := newDir(t)
	m := create(t, mem)
	states, ends := []*State{m.State()}, []int64{m.at.end}
	for i := range uint64(4) {
		require.NoError(t, m.Apply(editOf(i)))
		states, ends = append(states, m.State()), append(ends, m.at.end)
	}
	good := contentOf(t, mem)
	require.Equal(t, int(ends[4]), len(good))
	for n := range len(good) {
		b := good[:n]
		for _, tail := range [][]byte{nil, make([]byte, 40), bytes.Repeat([]byte{0xa5}, 100)} {
			d, at, err := decode(append(bytes.Clone(b), tail...))
			if int64(n) < ends[0]-sealBytes {
				require.ErrorIs(t, err, base.ErrCorrupt)
				continue
			}
			whole := 0
			for whole < 4 && int64(n) >= ends[whole+1]-sealBytes {
				whole++
			}
			require.NoError(t, err)
			require.Equal(t, states[whole], d.publish(), "cut at %d", n)
			require.Equal(t, ends[whole], at.end)
		}
	}
	// The last edit without its seal, torn: cut. With the seal: damage.
	torn := bytes.Clone(good[:ends[4]-sealBytes])
	torn[len(torn)-1] ^= 1
	d, _, err := decode(torn)
	require.NoError(t, err)
	require.Equal(t, states[3], d.publish())
	sealed := bytes.Clone(good)
	sealed[len(torn)-1] ^= 1
	_, _, err = decode(sealed)
	require.ErrorIs(t, err, base.ErrCorrupt)

	// A torn tail is gone from the disk after Open.
	mem = dirOf(t, append(bytes.Clone(good), 1, 2, 3))
	m, err = Open(mem, dir)
	require.NoError(t, err)
	require.Equal(t, good, contentOf(t, mem.Strict()))
	require.NoError(t, m.Apply(editOf(4)))
}

// Whatever the instant of a power cut, and however it tears what was not
// synced, the next Open finds the state before or after the edit that was under
// way, and at least the last that was acknowledged; and so does the Open after a
// power cut in that Open.
func TestEveryCrashPoint(t *testing.T) {
	const edits = 12
	var states []*State // by number of edits
	m := create(t, newDir(t))
	for i := range uint64(edits) {
		states = append(states, m.State())
		require.NoError(t, m.Apply(editOf(i)))
	}
	states = append(states, m.State())

	for seed := range uint64(20) {
		mem := newDir(t)
		acked, points := -1, 0
		check := func(op vfs.Op, disk *vfs.Mem) {
			points++
			for depth := range 2 {
				m, err := Open(disk, dir)
				if acked < 0 && err != nil {
					require.ErrorIs(t, err, fs.ErrNotExist)
					return
				}
				require.NoError(t, err, "seed %d, crash before %v, depth %d, %d acked", seed, op, depth, acked)
				got := m.State()
				want := states[max(acked, 0):min(acked+2, edits+1)]
				require.Contains(t, want, got, "seed %d, crash before %v, depth %d, %d acked", seed, op, depth, acked)
				disk = disk.Crash(seed)
			}
		}
		fsys := vfs.Faulty(mem, vfs.CrashEach(mem, seed, check))
		m, err := Create(fsys, dir, params)
		require.NoError(t, err)
		acked = 0
		for i := range uint64(edits) {
			if i%4 == 3 {
				m.rewriteAt = 0
			}
			require.NoError(t, m.Apply(editOf(i)))
			acked++
		}
		require.Greater(t, points, 40)
	}
}

// A sync that fails is final; a write that fails leaves the edit undone, and
// Apply can be called again.
func TestEveryFailure(t *testing.T) {
	const edits = 6
	run := func(hook vfs.Hook) (mem *vfs.Mem, m *Manifest, acked int, err error) {
		mem = newDir(t)
		if m, err = Create(vfs.Faulty(mem, hook), dir, params); err != nil {
			return mem, nil, -1, err
		}
		for i := range uint64(edits) {
			if i == 3 {
				m.rewriteAt = 0
			}
			if err = m.Apply(editOf(i)); err != nil {
				return mem, m, acked, err
			}
			acked++
		}
		return mem, m, acked, nil
	}
	var tally vfs.Tally
	_, _, _, err := run(tally.Note)
	require.NoError(t, err)

	for i := range tally.Count(vfs.Kind.Syncs) {
		for _, pages := range []vfs.Pages{vfs.PagesDropped, vfs.PagesKept} {
			mem, m, acked, err := run(vfs.FailSync(i, pages))
			require.Error(t, err, "sync %d", i)
			if m == nil {
				continue
			}
			require.Equal(t, err, m.Apply(Edit{NextFile: 99}), "a failed sync is final")
			again, err := Open(mem.Crash(1), dir)
			require.NoError(t, err)
			require.GreaterOrEqual(t, again.State().LogFrom, uint64(acked))
		}
	}

	writes := func(k vfs.Kind) bool { return k.Changes() && !k.Syncs() }
	for i := range tally.Count(writes) {
		mem, m, acked, err := run(vfs.Nth(i, writes, func(vfs.Op) error { return &vfs.PartialError{N: 20, Err: vfs.ErrNoSpace} }))
		if err != nil {
			require.ErrorIs(t, err, vfs.ErrNoSpace)
		}
		if m == nil {
			continue
		}
		for ; acked < edits; acked++ {
			require.NoError(t, m.Apply(editOf(uint64(acked))), "a failed write %d may be repeated", i)
		}
		again, err := Open(mem.Strict(), dir)
		require.NoError(t, err)
		require.Equal(t, m.State(), again.State())
	}
}

// A write that fails, however much of it reached the file, leaves nothing that
// the next Open would take for an edit: its tables may be deleted at once.
func TestFailedWriteLeavesNothing(t *testing.T) {
	for _, n := range []int{0, 20, 1 << 20} {
		mem := newDir(t)
		fail := false
		m := create(t, vfs.Faulty(mem, func(op vfs.Op) error {
			if fail && op.Kind == vfs.OpWrite {
				fail = false
				return &vfs.PartialError{N: n, Err: vfs.ErrInjected}
			}
			return nil
		}))
		require.NoError(t, m.Apply(editOf(0)))
		fail = true
		require.ErrorIs(t, m.Apply(editOf(1)), vfs.ErrInjected)
		for seed := range uint64(10) {
			again, err := Open(mem.Crash(seed), dir)
			require.NoError(t, err)
			require.Equal(t, m.State(), again.State())
		}
		require.NoError(t, m.Apply(editOf(1)))
	}
}

// A frame of another history of the same manifest is damage, though it verifies.
func TestChain(t *testing.T) {
	history := func(third uint64) []byte {
		mem := newDir(t)
		m := create(t, mem)
		require.NoError(t, m.Apply(Edit{LogFrom: third}))
		require.NoError(t, m.Apply(Edit{LogFrom: 100}))
		return contentOf(t, mem)
	}
	a, b := history(3), history(4)
	require.Equal(t, len(a), len(b))
	last := len(a) - (2 + frameHeadBytes + sealBytes)
	_, _, err := decode(append(bytes.Clone(a[:last]), a[last:]...))
	require.NoError(t, err)
	_, _, err = decode(append(bytes.Clone(a[:last]), b[last:]...))
	require.ErrorIs(t, err, base.ErrCorrupt)
}

func TestFullVolume(t *testing.T) {
	mem := newDir(t)
	m := create(t, mem)
	var e Edit
	for i := range uint64(100) {
		e.Add = append(e.Add, tableOf(i))
	}
	mem.SetCapacity(mem.Used())
	require.ErrorIs(t, m.Apply(e), vfs.ErrNoSpace)
	require.ErrorIs(t, m.Apply(e), vfs.ErrNoSpace)
	mem.SetCapacity(1 << 20)
	require.NoError(t, m.Apply(e))
	again, err := Open(mem.Strict(), dir)
	require.NoError(t, err)
	require.Equal(t, m.State(), again.State())
}

// A process killed at any instant leaves its unsynced writes and renames behind.
// What the next process then sees is not lost in a power cut.
func TestKilledThenPowerCut(t *testing.T) {
	const edits = 4
	run := func(mem *vfs.Mem, hook vfs.Hook) {
		m, err := Create(vfs.Faulty(mem, hook), dir, params)
		for i := uint64(0); i < edits && err == nil; i++ {
			if i == 2 {
				m.rewriteAt = 0
			}
			err = m.Apply(editOf(i))
		}
	}
	var tally vfs.Tally
	run(newDir(t), tally.Note)
	for i := range tally.Count(vfs.Kind.Changes) {
		mem, killed, n := newDir(t), false, 0
		run(mem, func(op vfs.Op) error {
			if op.Kind.Changes() {
				n++
			}
			if killed = killed || n > i; killed {
				return vfs.ErrInjected
			}
			return nil
		})
		m, err := Open(mem, dir)
		if err != nil {
			require.ErrorIs(t, err, fs.ErrNotExist)
			continue
		}
		again, err := Open(mem.Strict(), dir)
		require.NoError(t, err, "killed before change %d", i)
		require.Equal(t, m.State(), again.State(), "killed before change %d", i)
	}
}

func BenchmarkApply(b *testing.B) {
	for _, live := range []uint64{100, 10_000} {
		b.Run(fmt.Sprint(live, " tables"), func(b *testing.B) {
			m := create(b, newDir(b))
			var e Edit
			for i := range live {
				e.Add = append(e.Add, tableOf(i))
			}
			require.NoError(b, m.Apply(e))
			for i := live; b.Loop(); i++ {
				require.NoError(b, m.Apply(Edit{Add: []Table{tableOf(i)}, Remove: []uint64{i - live}}))
			}
		})
	}
}

// spoils follows damage and drops by sampling tokens.
type spoils struct{ damaged, dropped map[uint64][]uint64 }

func samples(s base.Span) []uint64 {
	var in []uint64
	for i := range uint64(64) {
		if token := i << 58; s.Contains(token) {
			in = append(in, token)
		}
	}
	return in
}

func (l spoils) apply(e Edit) {
	for _, id := range e.Remove {
		delete(l.dropped, id)
	}
	for _, p := range e.Heal {
		l.damaged[p.File] = slices.DeleteFunc(l.damaged[p.File], p.Contains)
	}
	for _, d := range e.Damage {
		l.damaged[d.File] = append(l.damaged[d.File], samples(d.Span)...)
	}
	for _, p := range e.Drop {
		l.dropped[p.File] = append(l.dropped[p.File], samples(p.Span)...)
	}
}

func (l spoils) require(t require.TestingT, s *State) {
	for id := range uint64(20) {
		var damaged base.Spans
		for _, d := range s.Damaged {
			if d.File == id {
				damaged = damaged.With(d.Span)
			}
		}
		for _, token := range samples(base.AllTokens) {
			require.Equal(t, slices.Contains(l.damaged[id], token), damaged.Contains(token))
			require.Equal(t, slices.Contains(l.dropped[id], token), s.Dropped[id].Contains(token))
		}
	}
}

// TestForgedTail gives up on bytes that look like the beginning of a frame nearly
// everywhere.
func TestForgedTail(t *testing.T) {
	disk := newDir(t)
	m := create(t, disk)
	require.NoError(t, m.Apply(editOf(1)))
	require.NoError(t, m.Close())
	b := append(contentOf(t, disk), bytes.Repeat([]byte{0, 0, 16, 0}, 1<<20)...)
	_, _, err := decode(b)
	require.ErrorIs(t, err, base.ErrCorrupt)
}
