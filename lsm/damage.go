package lsm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/manifest"
	"example.com/kvstore/vclock"
)

// maxAside bounds the damaged files that are kept for analysis. Those with the
// lowest numbers go first.
const maxAside = 8

// A Range is what a damaged file that was set aside held, as far as it has not
// been healed: tokens from Lo to Hi, both included. Reads of them give
// ErrCorrupt, unless they find a plain record above MaxDot.
type Range struct {
	File   uint64 // number of the table, or of the first damaged log segment; 0: see Doubt
	Lo, Hi uint64
	MaxDot vclock.Dot // the highest dot that may be lost; the highest there is where nobody knows
}

// unknownDot stands for the max dot of a damaged log.
var unknownDot = vclock.Dot{Stamp: 1<<64 - 1, Actor: 1<<64 - 1}

func (r Range) String() string {
	if r.File == 0 {
		return fmt.Sprintf("tokens %016x to %016x of what was not synced", r.Lo, r.Hi)
	}
	return fmt.Sprintf("tokens %016x to %016x of file %d", r.Lo, r.Hi, r.File)
}

func rangeOf(d manifest.Damage) Range {
	return Range{File: d.File, Lo: d.Lo, Hi: d.Hi, MaxDot: d.MaxDot}
}

func (r Range) part() manifest.Part {
	return manifest.Part{File: r.File, Span: base.Span{Lo: r.Lo, Hi: r.Hi}}
}

func (r Range) err() error {
	if r.File == 0 {
		return base.Corrupt("the log", 0, fmt.Sprintf("the last records with tokens from %016x to %016x", r.Lo, r.Hi), "that they may not have been synced")
	}
	return base.Corrupt(fmt.Sprintf("file %d", r.File), 0,
		fmt.Sprintf("the records with tokens from %016x to %016x", r.Lo, r.Hi), "damage; the file was set aside")
}

// Damaged gives the ranges of which records may be lost, in the order of files
// and tokens. They survive a reopening.
func (t *Tree) Damaged() []Range {
	v := t.acquire(0)
	if v == nil {
		return nil
	}
	defer t.release(v, 0)
	return slices.Clone(v.damaged)
}

// Healed says that all that was lost of the given ranges has been applied again,
// or is known to be lost for good: they are read again. Each is one that Damaged
// gave, or part of one; what is no longer damaged is ignored. Durable on return.
func (t *Tree) Healed(ranges ...Range) error {
	var e manifest.Edit
	for _, r := range ranges {
		if r.Lo > r.Hi {
			return fmt.Errorf("%w: a range of tokens from %016x to %016x", ErrInvalid, r.Lo, r.Hi)
		}
		e.Heal = append(e.Heal, r.part())
	}
	if !t.hold() {
		return ErrClosed
	}
	defer t.letGo()
	if err := t.writable(); err != nil || len(ranges) == 0 {
		return err
	}
	return t.edit(e, nil)
}

// Doubt says that records with tokens from lo to hi, both included, may be missing
// although no file is damaged: the directory is an older copy of itself. It is as if a
// file with them had been set aside, but for OnDamage. Durable on return. With unsynced
// it is the last of the log that may be missing, since it was acknowledged before it was
// synced; the range's File then is 0, that of other doubts is a number that no file has.
func (t *Tree) Doubt(lo, hi uint64, unsynced bool) error {
	if lo > hi {
		return fmt.Errorf("%w: a range of tokens from %016x to %016x", ErrInvalid, lo, hi)
	}
	if !t.hold() {
		return ErrClosed
	}
	defer t.letGo()
	if err := t.writable(); err != nil {
		return err
	}
	part := manifest.Part{Span: base.Span{Lo: lo, Hi: hi}}
	if !unsynced {
		part.File = t.number()
	}
	e := manifest.Edit{Damage: []manifest.Damage{{Part: part, MaxDot: unknownDot}}}
	return t.changeBelow(stale{lo: lo, hi: hi}, func() error { return t.edit(e, nil) })
}

// writable says why the tree takes no changes any more, if so.
func (t *Tree) writable() error {
	if t.closing.Load() {
		return ErrClosed
	}
	return t.failure()
}

// unreadableFor is how long a table that could not be read is left alone before it is
// read again, to see whether that lasts: volumes have short outages.
const unreadableFor = 10 * time.Second

// A sickTable is to be read again when t.elapsed is due.
type sickTable struct {
	f   *tableFile
	due time.Duration
}

// hurt takes in an error of reading f. Damage, with Isolate, has f set aside soon. An
// error of the device has it, with Isolate, read again in unreadableFor.
func (f *tableFile) hurt(err error) error {
	missing := errors.Is(err, fs.ErrNotExist)
	if missing || errors.Is(err, base.ErrUnreadable) {
		if gone := f.volumeGone(); gone != nil {
			return fmt.Errorf("lsm: the cold directory cannot be read; is its volume mounted? %w", errors.Join(err, gone))
		}
	}
	if missing {
		err = base.Corrupt(f.name(), 0, "a table", "no such file")
	}
	if f.t.o.Isolate {
		switch {
		case errors.Is(err, ErrCorrupt):
			f.suspected(err)
		case errors.Is(err, base.ErrUnreadable):
			f.watch(err)
		}
	}
	return err
}

// volumeGone says that the whole cold directory cannot be read, if f lies there.
func (f *tableFile) volumeGone() error {
	if !f.Cold {
		return nil
	}
	_, err := f.t.o.FS.List(f.t.cold)
	return err
}

// suspected has f set aside.
func (f *tableFile) suspected(err error) {
	if f.suspect.Swap(true) {
		return
	}
	f.t.o.Logger.Error("lsm: damaged table", "error", err)
	f.t.mu.Lock()
	f.t.mu.suspects = append(f.t.mu.suspects, f)
	f.t.mu.Unlock()
	kick(f.t.tendKick)
}

// watch has f read again later.
func (f *tableFile) watch(err error) {
	if f.sick.Swap(true) {
		return
	}
	f.t.o.Logger.Warn("lsm: a table cannot be read; it will be read again", "in", unreadableFor, "error", err)
	f.t.mu.Lock()
	f.t.mu.sick = append(f.t.mu.sick, sickTable{f, f.t.elapsed() + unreadableFor})
	f.t.mu.Unlock()
	kick(f.t.tendKick)
}

// probe reads the tables again whose time has come. It gives the wait for the next one,
// 0 if there is none.
func (t *Tree) probe() (wait time.Duration) {
	t.mu.Lock()
	sick := t.mu.sick
	t.mu.sick = nil
	t.mu.Unlock()
	for _, s := range sick {
		if s.due <= t.elapsed() && !s.f.stillSick() {
			continue
		}
		s.due = max(s.due, t.elapsed()+retryAfter)
		if rest := s.due - t.elapsed(); wait == 0 || rest < wait {
			wait = rest
		}
		t.mu.Lock()
		t.mu.sick = append(t.mu.sick, s)
		t.mu.Unlock()
	}
	return wait
}

// stillSick reads all of f. If that fails still f is damaged, unless its whole volume is
// gone: then nothing can be said yet.
func (f *tableFile) stillSick() bool {
	live := f.t.pin(f.ID)
	if live == nil {
		return false // a compaction was faster
	}
	defer f.t.unpin(live)
	if live != f {
		return false // it was moved
	}
	r, err := f.open()
	if err == nil {
		err = errors.Join(r.Verify(func(int) error { return f.t.goesOn(context.Background()) }), r.release())
	}
	switch {
	case !errors.Is(err, base.ErrUnreadable):
		f.sick.Store(false)
		f.hurt(err)
		return false
	case f.volumeGone() != nil:
		return true
	}
	f.suspected(fmt.Errorf("%w: %w", base.Corrupt(f.name(), 0, "a table", "a file that cannot be read"), err))
	return false
}

// isolate sets the damaged tables aside that were met. After an error those that
// are left are tried again by the next call.
func (t *Tree) isolate() error {
	var lost []Range
	t.edits <- struct{}{}
	err := t.isolateHeld(&lost)
	<-t.edits
	for _, r := range lost {
		if t.o.OnDamage != nil {
			t.o.OnDamage(r)
		}
	}
	return err
}

// isolateHeld is isolate for who has the turn to edit; lost gets what is
// damaged from now on.
func (t *Tree) isolateHeld(lost *[]Range) error {
	t.mu.Lock()
	suspects := t.mu.suspects
	t.mu.suspects = nil
	t.mu.Unlock()
	for i, f := range suspects {
		r := t.runOf(f)
		if r == nil {
			continue // a compaction was faster, and has read all of it
		}
		e := manifest.Edit{Remove: []uint64{f.ID}, Damage: f.damage(t.manifest.State().Dropped[f.ID])}
		err := t.changeBelow(stale{lo: f.MinToken, hi: f.MaxToken}, func() error {
			return t.editHeld(e, func(v *version) {
				f.aside.Store(true)
				v.exchange(r, f)
			})
		})
		if err != nil {
			t.mu.Lock()
			t.mu.suspects = append(t.mu.suspects, suspects[i:]...)
			t.mu.Unlock()
			return fmt.Errorf("lsm: setting %s aside: %w", f.name(), err)
		}
		t.stats.setAside.Add(1)
		for _, d := range e.Damage {
			*lost = append(*lost, rangeOf(d))
			t.o.Logger.Error("lsm: a damaged table was set aside", "range", rangeOf(d).String())
		}
	}
	return nil
}

// damage is what is lost with the table, of which some was dropped before.
func (f *tableFile) damage(dropped base.Spans) (lost []manifest.Damage) {
	for _, span := range f.left(dropped) {
		lost = append(lost, manifest.Damage{Part: manifest.Part{File: f.ID, Span: span}, MaxDot: f.MaxDot})
	}
	return lost
}

// putAside renames a damaged file to a name that nothing looks for, and removes
// the oldest such files beyond maxAside. That is for analysis only, so it need not
// succeed.
func (t *Tree) putAside(name string) {
	if err := t.o.FS.Rename(name, name+base.DamagedSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.o.Logger.Warn("lsm: a damaged file cannot be kept", "file", name, "error", err)
	}
	aside := func(name string) bool { return path.Ext(name) == base.DamagedSuffix }
	names, err := t.o.FS.List(path.Dir(name))
	if err != nil {
		return
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !aside(name) })
	for len(names) > maxAside {
		t.o.FS.Remove(path.Join(path.Dir(name), names[0]))
		names = names[1:]
	}
}

// lost gives an error when damage may hide something of the token that what was
// found does not settle.
func (v *version) lost(token uint64, l *lookup) error {
	for i := range v.damaged {
		if d := &v.damaged[i]; d.Lo <= token && token <= d.Hi && !l.settles(d.MaxDot) {
			return d.err()
		}
	}
	return nil
}

// firstLost gives the damage with the lowest token from lo to hi, cut to start
// there.
func (v *version) firstLost(lo, hi uint64) (first Range, found bool) {
	for _, d := range v.damaged {
		if d.Hi < lo || hi < d.Lo {
			continue
		}
		d.Lo = max(d.Lo, lo)
		if !found || d.Lo < first.Lo {
			first, found = d, true
		}
	}
	return first, found
}

// tendLoop looks after tables beside the compactions: it sets damaged ones aside, reads
// those again that could not be read, and moves old ones to the cold directory.
func (t *Tree) tendLoop() {
	defer t.workers.Done()
	retry := stoppedTimer(func() { kick(t.tendKick) })
	defer retry.Stop()
	for !t.stopped.Load() {
		if t.failure() == nil {
			if t.o.ColdDir != "" {
				retry.Reset(coldEvery)
			}
			if wait := t.probe(); wait > 0 {
				retry.Reset(wait)
			}
			if err := t.isolate(); err != nil {
				t.o.Logger.Warn("lsm: damage stays for now", "error", err)
				retry.Reset(retryAfter)
			}
			if err := t.moveCold(); err != nil && !errors.Is(err, ErrClosed) {
				t.o.Logger.Warn("lsm: tables stay hot for now", "error", err)
			}
		}
		select {
		case <-t.tendKick:
		case <-t.stopping:
		}
	}
}
