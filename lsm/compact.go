package lsm

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/compaction"
	"example.com/kvstore/lsm/internal/manifest"
	"example.com/kvstore/vclock"
)

const (
	// maxRuns bounds the runs of a slice: flushes wait beyond it.
	maxRuns = 40
	// maxCompactors bounds the compactions at one time.
	maxCompactors = 4
	// yieldRecords is how often the background lets others run: much more often
	// than the scheduler would see to it, which is every 10 ms.
	yieldRecords = 64
	// restAfter is how long after the last flush the tree is at rest, so that
	// compactions may tidy up what is not worth it under load; restAfterOpen is how long
	// after Open, for what the last process left.
	restAfter     = 5 * time.Second
	restAfterOpen = time.Second
)

// compactors is how many compactions run at one time. There are two at least,
// since a bottom takes long and may not hold up the others.
func compactors() int { return min(max(runtime.GOMAXPROCS(0), 2), maxCompactors) }

// rest says whether writers have gone quiet.
type rest struct {
	timer *time.Timer // restarted by each flush
	now   atomic.Bool
}

// HorizonMoved says that Options.Horizon has risen: tables that now hold mostly
// what may be purged are merged.
func (t *Tree) HorizonMoved() { kick(t.compactKick) }

// crowded reports whether a slice has so many runs that flushes must wait.
func (t *Tree) crowded() bool {
	v := t.acquire(0)
	defer t.release(v, 0)
	return slices.ContainsFunc(v.slices, func(s []*run) bool { return len(s) >= maxRuns })
}

// compactLoop carries out compactions, one at a time, and deletes the tables that
// nobody needs any more. Several of these goroutines share the work.
func (t *Tree) compactLoop() {
	defer t.workers.Done()
	retry := stoppedTimer(func() { kick(t.compactKick) })
	defer retry.Stop()
	for !t.stopped.Load() {
		again, err := false, t.sweep()
		if err == nil {
			again, err = t.compactNext()
		}
		switch err = t.judge(err); {
		case errors.Is(err, ErrNoSpace):
			t.noSpace("compaction", err)
			retry.Reset(retryAfter)
		case errors.Is(err, errPutOff):
			t.o.Logger.Debug("lsm: a compaction is put off", "error", err)
			retry.Reset(retryAfter)
		case errors.Is(err, base.ErrUnreadable):
			t.o.Logger.Debug("lsm: a compaction is put off", "error", err)
			t.pause(retryAfter) // it has kicked itself: there may have been more to do
			continue
		case again:
			continue
		}
		select {
		case <-t.compactKick:
		case <-t.stopping:
		}
	}
	t.answerMerges()
}

// judge ends all writing after an error of a compaction that waiting will not
// cure: without compaction reads and space would get ever worse. One that met
// damage in its runs goes on without the damaged tables.
func (t *Tree) judge(err error, runs ...*run) error {
	if t.o.Isolate && errors.Is(err, ErrCorrupt) {
		switch again := t.isolate(); {
		case again != nil:
			err = again
		case !t.current(runs...):
			err = errStale
		}
	}
	switch {
	case err == nil, errors.Is(err, errStale), errors.Is(err, errPutOff), errors.Is(err, ErrClosed), errors.Is(err, ErrNoSpace):
		return err
	case t.o.Isolate && errors.Is(err, base.ErrUnreadable):
		return err // it becomes damage, or passes: see hurt
	}
	return t.fail(err)
}

// errPutOff says that there is a compaction to do, but no room for it now.
var errPutOff = errors.New("lsm: a compaction waits for room")

// A job is a compaction that was begun: its runs are marked busy, and it holds
// the version that has them.
type job struct {
	v     *version
	slice int
	runs  []*run
	level uint8
	whole bool   // nothing else is in the slice's tables
	merge *merge // that asked for it; nil for the picker's own
}

func (j *job) bytes() (n uint64) {
	for _, r := range j.runs {
		n += r.bytes
	}
	return n
}

// compactNext carries out the most urgent compaction, if there is one.
func (t *Tree) compactNext() (again bool, err error) {
	t.answerMerges()
	j, err := t.begin()
	if j == nil {
		t.answerMerges() // there may have been nothing to do for one
		return false, err
	}
	kick(t.compactKick) // another goroutine may find more
	err = t.judge(t.compact(j), j.runs...)
	if errors.Is(err, ErrNoSpace) && len(j.v.slices[j.slice]) >= maxRuns {
		t.refuse() // the flushes that wait for it wait for room
		kick(t.flushKick)
	}
	t.finish(j, err)
	if errors.Is(err, errStale) {
		err = nil // the slice is chosen again, as it is now
	}
	return true, err
}

// begin chooses a compaction and marks its runs.
func (t *Tree) begin() (j *job, err error) {
	for t.failure() == nil {
		v := t.acquire(0)
		if v == nil {
			return nil, nil
		}
		shapes, room := t.shapes(v), t.mergeRoom()
		t.mu.Lock()
		if t.version.Load() != v { // what is busy is so in the current version
			t.mu.Unlock()
			t.release(v, 0)
			continue
		}
		j, err = t.beginLocked(v, shapes, room)
		t.mu.Unlock()
		t.load.pending.Store(int64(compaction.Debt(shapes)))
		p := compaction.Pressure(shapes, maxRuns, uint64(2*t.o.MemtableBytes))
		t.load.tables.Store(math.Float64bits(p))
		if j == nil {
			t.release(v, 0)
		}
		return j, err
	}
	return nil, nil
}

// mergeRoom is how many bytes a compaction that begins now may write: what is free,
// but for what those that run may still need.
func (t *Tree) mergeRoom() int64 {
	free, err := t.o.FS.Free(t.dir)
	if err != nil {
		return math.MaxInt64 // nobody knows: the volume itself will refuse
	}
	return free - t.load.reading.Load()
}

// beginLocked: what Compact asked for comes first. The picker leaves alone the
// slices that still wait for that.
func (t *Tree) beginLocked(v *version, shapes [][]compaction.Run, room int64) (*job, error) {
	for i, s := range v.slices {
		for k, r := range s {
			shapes[i][k].Busy = t.mu.busy[r]
		}
	}
	j := t.mergeLocked(v)
	if j == nil {
		chosen, err := t.pickLocked(shapes, room)
		if err != nil || len(chosen.Runs) == 0 {
			return nil, err
		}
		j = &job{slice: chosen.Slice, level: chosen.Level}
		for _, i := range chosen.Runs {
			j.runs = append(j.runs, v.slices[j.slice][i])
		}
	}
	j.v, j.whole = v, len(j.runs) == len(v.slices[j.slice])
	for i, r := range v.slices[j.slice] {
		if slices.Contains(j.runs, r) {
			t.mu.busy[r] = true
			shapes[j.slice][i].Busy = true
		}
	}
	if j.level == compaction.Bottom {
		t.mu.bottoms++
	}
	return j, nil
}

// pickLocked asks the picker for a compaction that fits in room. A bottom that does
// not must not hold up the small ones. When none fits, one that flushes wait for is
// tried all the same, since it often writes much less than it reads. With nothing to
// do it gives no runs.
func (t *Tree) pickLocked(shapes [][]compaction.Run, room int64) (compaction.Job, error) {
	c := compaction.Conditions{Resting: t.rest.now.Load(), Held: t.heldLocked}
	j, ok := t.o.pick(shapes, c)
	if ok && j.Level == compaction.Bottom && t.mu.bottoms >= compactors()-1 && !t.short(shapes[j.Slice], j.Runs) {
		c.NoBottoms = true
		j, ok = t.o.pick(shapes, c)
	}
	if !ok || fits(shapes[j.Slice], j.Runs, room) {
		return j, nil
	}
	c.NoBottoms = true
	small, ok := t.o.pick(shapes, c)
	switch {
	case ok && (fits(shapes[small.Slice], small.Runs, room) || len(shapes[small.Slice]) >= maxRuns):
		return small, nil
	case len(shapes[j.Slice]) >= maxRuns:
		return j, nil
	}
	return compaction.Job{}, fmt.Errorf("%w: %d bytes are left for one of slice %d, which may need more", errPutOff, room, j.Slice)
}

// short reports whether a compaction of the chosen runs of a slice takes about as long
// as a few flushes. Small ones may wait for that.
func (t *Tree) short(slice []compaction.Run, chosen []int) bool {
	n := uint64(0)
	for _, i := range chosen {
		n += slice[i].Bytes
	}
	return n <= uint64(2*t.o.MemtableBytes)
}

// fits reports whether a compaction of the chosen runs of a slice cannot fill the
// volume.
func fits(slice []compaction.Run, chosen []int, room int64) bool {
	need := 0.0
	for _, i := range chosen {
		r := &slice[i]
		need += float64(r.Bytes) * (1 - float64(r.Purgeable)/float64(max(r.Records, 1)))
	}
	return need <= float64(room)
}

// finish ends what begin began, after the result is in the current version.
func (t *Tree) finish(j *job, err error) {
	t.mu.Lock()
	for _, r := range j.runs {
		delete(t.mu.busy, r)
	}
	if j.level == compaction.Bottom {
		t.mu.bottoms--
	}
	if m := j.merge; m != nil {
		m.running--
		if errors.Is(err, errStale) {
			m.todo = append(m.todo, j.slice)
		} else {
			m.failLocked(err)
		}
	}
	t.mu.Unlock()
	t.release(j.v, 0)
}

// compact replaces the runs of a job by their join.
func (t *Tree) compact(j *job) error {
	var cursors []cursor
	edit := manifest.Edit{}
	for _, r := range j.runs {
		cursors = append(cursors, &runCursor{v: j.v, files: r.files, hi: math.MaxUint64})
		for _, f := range r.files {
			edit.Remove = append(edit.Remove, f.ID)
		}
		t.stats.readBytes.Add(r.bytes)
	}
	i := CompactionInfo{Slice: j.slice, Runs: len(j.runs), Level: int(j.level), ReadBytes: j.bytes()}
	began := t.elapsed()
	before := t.horizons(j.runs)
	m := t.newMerger(cursors)
	out := output{t: t, level: j.level, bytes: j.bytes()}
	purged := nothingStale()
	strayed := slices.ContainsFunc(j.runs, (*run).strayed)
	p := t.newPacer(j.bytes())
	err := t.mergeInto(&out, m, j, strayed, &purged, p)
	p.done()
	err = errors.Join(err, m.Close())
	if err != nil {
		return out.abandon(err)
	}
	result, err := out.finish()
	if err != nil {
		return out.abandon(err)
	}
	still := slices.Equal(before, t.horizons(j.runs))
	for _, f := range result {
		f.strays = strays(j.runs)
		f.purged = j.whole && still && !strayed && (t.o.Horizon == nil || !t.horizon(&f.Table).Less(f.MaxDot))
		edit.Add = append(edit.Add, f.Table)
		t.stats.compactedBytes.Add(f.Bytes)
		i.WrittenBytes += f.Bytes
	}
	if err := t.swap(j.runs, result, edit, purged); err != nil {
		return out.abandon(err)
	}
	if !base.Defences.HoldFiles {
		for _, r := range j.runs {
			for _, f := range r.files {
				f.discard()
			}
		}
	}
	t.stats.compactions.Add(1)
	i.Tables, i.Took = len(result), t.elapsed()-began
	tell(t.o.Events.Compacted, i)
	kick(t.flushKick)
	return nil
}

// swap replaces runs by the tables that a compaction made of them and of which it
// left something out. With errStale one of them is not in the tree any more as it
// was.
func (t *Tree) swap(runs []*run, result []*tableFile, edit manifest.Edit, purged stale) error {
	t.edits <- struct{}{}
	defer func() { <-t.edits }()
	if !t.current(runs...) {
		return errStale
	}
	return t.changeBelow(purged, func() error {
		return t.editHeld(edit, func(v *version) {
			for _, r := range runs {
				for _, f := range r.files {
					f.obsolete.Store(true)
				}
			}
			v.replace(runs, result)
		})
	})
}

// errStale says that a compaction's runs were changed while it ran.
var errStale = errors.New("lsm: the tables of a compaction have changed")

// horizons gives those of the tables of runs.
func (t *Tree) horizons(runs []*run) (all []vclock.Dot) {
	if t.o.Horizon == nil {
		return nil
	}
	for _, r := range runs {
		for _, f := range r.files {
			all = append(all, t.horizon(&f.Table))
		}
	}
	return all
}

// mergeInto writes what is left of the merged records, and notes what is not.
// Nothing is purged while the log may hold strays of what is merged.
func (t *Tree) mergeInto(out *output, m *merger, j *job, strayed bool, purged *stale, p *pacer) error {
	for n := 1; m.Next(); n++ {
		if t.stopped.Load() {
			return ErrClosed
		}
		if n%yieldRecords == 0 {
			runtime.Gosched()
		}
		p.read(len(m.r.Key) + len(m.r.Value))
		if r := m.Record(); !strayed && t.purgeable(r, j.runs) {
			t.stats.purged.Add(1)
			if defences.ForgetPurged {
				lo, hi := t.span(r.Token)
				purged.add(r.Token, lo, hi)
			}
		} else if err := out.add(r); err != nil {
			return err
		} else if a := &out.now.awaits; a.dot.IsZero() && t.awaits(r) {
			*a = awaited{r.Token, r.Max}
		}
	}
	return m.Err()
}
