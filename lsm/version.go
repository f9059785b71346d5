package lsm

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"sync/atomic"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/manifest"
	"example.com/kvstore/lsm/internal/memtable"
	"example.com/kvstore/lsm/internal/table"
	"example.com/kvstore/vclock"
)

// A mem is a memtable with the log that backs it.
//
// Invariant: a record in a mem is in the mem's segments or in later ones, so
// that the segments before those of the oldest mem are not needed.
//
// Its memory is freed when it is in no version that is held. Invariant: whoever
// touches its records holds a version that it is in, from before until after; or
// has entered it, which keeps it from being flushed and thus in the current
// version; or is flushLoop, which alone takes mems out of the current version.
// Enter and Leave are safe without.
type mem struct {
	*memtable.Table
	versions atomic.Int64               // that it is in
	number   uint64                     // counts the memtables of this Open
	first    uint64                     // its first segment
	segments int                        // how many; owned by the log's goroutine
	flushed  chan struct{}              // closed when its records are in tables
	awaited  atomic.Bool                // somebody waits for that
	top      atomic.Pointer[vclock.Dot] // its highest dot; nil while it may change
}

// above reports whether the memtable, which is sealed, may hold a dot above d.
// Writes mostly come in the order of their stamps: for them that is the answer,
// and a look into a memtable that the processor has not in its cache is saved.
func (m *mem) above(d vclock.Dot) bool {
	top := m.top.Load()
	if top == nil {
		if !m.Quiet() {
			return true
		}
		now := m.Top()
		top = &now
		m.top.Store(top)
	}
	return d.Less(*top)
}

// appendTo appends all records, encoded for the log.
func (m *mem) appendTo(dst []byte) []byte {
	v := m.View(0, math.MaxUint64)
	defer v.Close()
	for i := range v.Len() {
		r := v.At(i)
		dst = base.AppendRecord(dst, &r)
	}
	return dst
}

// A tableFile is a live table. It is opened when it is needed, and may be closed
// again when it is not: see metadata.
type tableFile struct {
	manifest.Table
	t        *Tree
	reader   atomic.Pointer[opened]
	versions atomic.Int64 // that it is in
	obsolete atomic.Bool  // no manifest names it any more: delete the file
	suspect  atomic.Bool  // damage was met in it
	sick     atomic.Bool  // it could not be read, and will be read again
	aside    atomic.Bool  // no manifest names it any more because of that: keep the file
	strays   uint64       // the last memtable whose log may hold strays of it: see stray.go
	purged   bool         // a merge of the whole slice wrote it, all behind the horizon
	awaits   awaited      // with purged: what was kept for the horizon alone
}

// An awaited is a record that a merge of a whole slice could not drop since its token's
// horizon was behind it. The zero value is none.
type awaited struct {
	token uint64
	dot   vclock.Dot
}

func (f *tableFile) name() string {
	if f.Cold {
		return path.Join(f.t.cold, base.TableName(f.ID))
	}
	return path.Join(f.t.dir, base.TableName(f.ID))
}

// open gives the opened table, with a pin for the caller to release.
func (f *tableFile) open() (*opened, error) {
	for {
		in := f.t.metadata.grace.enter(int(f.ID % readSlots))
		o := f.pinned()
		leave(in)
		if o != nil {
			return o, nil
		}
		file, err := f.t.o.FS.Open(f.name())
		if err != nil {
			return nil, f.hurt(fmt.Errorf("lsm: opening a table: %w", err))
		}
		r, err := table.Open(file, f.Meta)
		if err != nil {
			return nil, errors.Join(f.hurt(err), file.Close())
		}
		if o := f.adopt(r, 1); o != nil {
			return o, nil
		}
		// Somebody else was faster.
		if err := r.Close(); err != nil {
			return nil, err
		}
	}
}

// pinned is open from memory: nil when the table is not open. The caller is in
// the grace.
func (f *tableFile) pinned() *opened {
	o := f.reader.Load()
	if o != nil {
		o.pins.Add(1)
		o.touch()
	}
	return o
}

// adopt makes r the table's reader, with a number of pins, unless there is one:
// then it gives nil.
func (f *tableFile) adopt(r *table.Reader, pins int64) *opened {
	r.ReadAround(f.t.fits)
	o := &opened{Reader: r, f: f, bytes: int64(r.MemoryBytes())}
	o.pins.Store(1 + pins)
	if !f.reader.CompareAndSwap(nil, o) {
		return nil
	}
	f.t.releaseAll(f.t.metadata.add(o)...)
	f.t.rebalance()
	return o
}

// releaseAll gives up pins where nobody can be told of a failure.
func (t *Tree) releaseAll(all ...*opened) {
	for _, o := range all {
		if err := o.release(); err != nil {
			t.o.Logger.Warn("lsm: a table stays open", "error", err)
		}
	}
}

// covers reports whether the token is within the table's range.
func (f *tableFile) covers(token uint64) bool { return f.MinToken <= token && token <= f.MaxToken }

// admits reports, from memory, whether the table may hold a record of the token.
// The caller is in the grace.
func (f *tableFile) admits(token uint64) bool {
	if !f.covers(token) {
		return false
	}
	o := f.reader.Load()
	if o == nil {
		return true
	}
	o.touch()
	return o.MayContain(token)
}

// discard closes a table that no version has any more, and deletes an obsolete
// file or puts a damaged one aside.
func (f *tableFile) discard() error {
	var err error
	if o := f.reader.Swap(nil); o != nil {
		f.t.metadata.remove(o)
		f.t.rebalance()
		err = o.release()
	}
	switch {
	case f.aside.Load():
		f.t.putAside(f.name())
	case f.obsolete.Load():
		err = errors.Join(err, f.t.o.FS.Remove(f.name()))
	}
	return err
}

// A version is what the tree holds at one instant. Readers hold on to one; it
// is never changed.
type version struct {
	holders  [readSlots]holders
	replaced atomic.Bool // nobody new holds on to it
	ended    atomic.Bool // and nobody is left
	mems     []*mem      // newest first; the first one is active
	// bytes are those of all tables.
	bytes uint64
	// slices are the runs of each token slice, highest max dot first.
	slices [][]*run
	// damaged is what may be missing from the tables.
	damaged []Range
	// dropped are the parts of tables that count as not there, by file number.
	dropped map[uint64]base.Spans
}

// fits reports whether the page cache may hold all tables beside what else the
// machine does.
func (t *Tree) fits() bool {
	v := t.version.Load()
	return v != nil && v.bytes <= t.pageCache
}

// slice gives the index of a token's slice.
func (t *Tree) slice(token uint64) int { return int(token >> t.sliceShift) }

// readSlots is how many counters there are of what readers hold: one would be
// handed from core to core with every read. A goroutine gives back in the slot in
// which it took, and the readers of one core have few slots in common with those
// of another: see lookup.
const readSlots = 16

// holders counts in a slot. Each has a pair of cache lines, as they are fetched.
type holders struct {
	atomic.Int64
	_ [120]byte
}

// acquire gives the current version, or nil when the tree is closed. It never
// blocks. Release it with the same slot.
func (t *Tree) acquire(slot int) *version {
	for {
		v := t.version.Load()
		if v == nil {
			return nil
		}
		v.holders[slot].Add(1)
		if t.version.Load() == v {
			return v
		}
		t.release(v, slot) // it may have ended
	}
}

// release gives up a version. Memtables that only it held are freed, tables are
// left to the janitor.
func (t *Tree) release(v *version, slot int) {
	v.holders[slot].Add(-1)
	if v.replaced.Load() {
		t.end(v)
	}
}

// replace gives up a version that has just ceased to be the current one.
func (t *Tree) replace(v *version) {
	v.replaced.Store(true)
	t.end(v)
}

// end lets go of what a replaced version holds, if nobody is left.
//
// Invariant: a slot that is empty once the version is replaced stays without a reader:
// one that counts itself later finds another version, and leaves this one alone.
// Whoever leaves last finds all of them empty.
func (t *Tree) end(v *version) {
	for i := range v.holders {
		if v.holders[i].Load() != 0 {
			return
		}
	}
	if !v.ended.CompareAndSwap(false, true) {
		return
	}
	for _, m := range v.mems {
		if m.versions.Add(-1) == 0 {
			m.Free()
		}
	}
	var dead []*tableFile
	for f := range v.tables() {
		if f.versions.Add(-1) == 0 {
			dead = append(dead, f)
		}
	}
	t.bury(dead)
}

// bury leaves tables that nothing holds any more to the janitor, after one holder
// has gone.
func (t *Tree) bury(dead []*tableFile) {
	t.mu.Lock()
	t.mu.dead = append(t.mu.dead, dead...)
	t.mu.versions--
	last := t.mu.versions == 0
	t.mu.Unlock()
	if last {
		close(t.idle)
	} else if len(dead) > 0 {
		kick(t.compactKick)
	}
}

// change installs the version that f makes of the current one. f changes the
// copy that it is given and does no I/O. What the manifest says beside the tables
// comes in by editHeld alone, together with the tables: another change, of a
// rotation, may come between an edit and its version.
func (t *Tree) change(f func(v *version)) {
	t.mu.Lock()
	old := t.version.Load()
	v := &version{}
	if old != nil {
		v.mems = slices.Clone(old.mems)
		v.slices = slices.Clone(old.slices)
		v.damaged, v.dropped = old.damaged, old.dropped
	}
	f(v)
	for _, m := range v.mems {
		m.versions.Add(1)
	}
	for f := range v.tables() {
		f.versions.Add(1)
		v.bytes += f.Bytes
	}
	t.mu.versions++
	t.version.Store(v)
	t.mu.Unlock()
	if old != nil {
		t.replace(old)
	}
}

// takeIn sets what of a manifest's state is no table.
func (v *version) takeIn(state *manifest.State) {
	v.damaged = nil
	for _, d := range state.Damaged {
		v.damaged = append(v.damaged, rangeOf(d))
	}
	v.dropped = state.Dropped
}

// replace takes runs out of a version and puts tables in.
func (v *version) replace(remove []*run, add []*tableFile) {
	bySlice := map[uint32][]*tableFile{}
	for _, f := range add {
		bySlice[f.Slice] = append(bySlice[f.Slice], f)
	}
	for _, r := range remove {
		s := r.files[0].Slice
		bySlice[s] = append(bySlice[s], nil...) // touched, also when nothing comes instead
	}
	for i, files := range bySlice {
		s := slices.DeleteFunc(slices.Clone(v.slices[i]), func(r *run) bool { return slices.Contains(remove, r) })
		s = append(s, runsOf(files)...)
		slices.SortFunc(s, func(a, b *run) int {
			return cmp.Or(b.maxDot.Compare(a.maxDot), cmp.Compare(b.files[0].ID, a.files[0].ID))
		})
		v.slices[i] = s
	}
}

// newer gives a dot above r's own that the version may hold for r's key, apart
// from the active memtable: exact for the sealed ones, the max dot of the first
// table that may hold the key. What was lost counts as held.
func (v *version) newer(t *Tree, r *Record) vclock.Dot {
	var newer vclock.Dot
	for _, m := range v.mems[1:] {
		if !m.above(r.Max) {
			continue
		}
		if old, ok := m.Get(r.Token, r.Key); ok && r.Max.Less(old.Max) && newer.Less(old.Max) {
			newer = old.Max
		}
	}
	for i := range v.damaged {
		d := &v.damaged[i]
		if d.Lo <= r.Token && r.Token <= d.Hi && d.MaxDot != unknownDot && r.Max.Less(d.MaxDot) && newer.Less(d.MaxDot) {
			newer = d.MaxDot
		}
	}
	runs := v.slices[t.slice(r.Token)]
	if len(runs) == 0 || !r.Max.Less(runs[0].maxDot) {
		return newer
	}
	in := t.metadata.grace.enter(int(r.Token % readSlots))
	defer leave(in)
	for _, u := range runs {
		if !r.Max.Less(u.maxDot) {
			break
		}
		if f := u.find(r.Token); f != nil && r.Max.Less(f.MaxDot) && f.admits(r.Token) && !v.hides(f, r.Token) {
			if newer.Less(f.MaxDot) {
				newer = f.MaxDot
			}
			break // exact enough: it is above r
		}
	}
	return newer
}

// kick wakes the goroutine that waits on c, which has capacity 1.
func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
