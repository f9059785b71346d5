package lsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"path"
	"slices"
	"sync/atomic"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/cache"
	"example.com/kvstore/lsm/internal/manifest"
	"example.com/kvstore/lsm/internal/offheap"
	"example.com/kvstore/lsm/internal/wal"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// Open opens the tree in a directory, which it creates if it is not there. It
// fails with ErrLocked while somebody else has it open, with ErrCorrupt when
// something that was acknowledged is damaged, and with ErrIncompatible when the
// directory needs a newer version. On a full volume it uses the reserve, and fails with
// ErrNoSpace when there is none. Nil options are all defaults.
//
// Nothing irreversible happens before everything has been read: a crash during
// Open leaves a directory that opens as well as before.
func Open(dir string, o *Options) (*Tree, error) {
	opts, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if dir == "" {
		return nil, fmt.Errorf("%w: Open without a directory", ErrInvalid)
	}
	if err := vfs.MakeDir(opts.FS, dir); err != nil {
		return nil, fmt.Errorf("lsm: creating the directory: %w", err)
	}
	lock, err := opts.FS.Lock(path.Join(dir, base.LockName))
	if err != nil {
		return nil, fmt.Errorf("lsm: locking %s: %w", dir, err)
	}
	t, err := openLocked(dir, opts, lock)
	if errors.Is(err, ErrNoSpace) && opts.FS.Remove(path.Join(dir, base.ReserveName)) == nil {
		opts.Logger.Warn("lsm: the volume is full; the reserve is used", "error", err)
		t, err = openLocked(dir, opts, lock)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	t.start()
	return t, nil
}

// openLocked recovers the tree of a directory that is locked. It keeps the lock only
// if it succeeds.
func openLocked(dir string, opts Options, lock io.Closer) (*Tree, error) {
	t := &Tree{
		o: opts, dir: dir, lock: lock,
		queue:       wal.NewBuffer(opts.LogBufferBytes),
		edits:       make(chan struct{}, 1),
		room:        make(chan struct{}, 1),
		flushKick:   make(chan struct{}, 1),
		prepareKick: make(chan struct{}, 1),
		compactKick: make(chan struct{}, 1),
		tendKick:    make(chan struct{}, 1),
		moving:      make(chan struct{}, 1),
		idle:        make(chan struct{}),
		failed:      make(chan struct{}),
		stopping:    make(chan struct{}),
		ending:      make(chan struct{}),
		closeDone:   make(chan struct{}),
		pageCache:   uint64(opts.FS.Memory() / 2),
	}
	t.mu.busy = map[*run]bool{}
	t.mu.refused = make(chan struct{})
	t.opened = systemNow()
	t.waiters.New = newWaiter
	t.rest.timer = stoppedTimer(func() {
		t.rest.now.Store(true)
		t.memory.Keep(opts.MemtableBytes)
		kick(t.compactKick)
	})
	var lookups atomic.Uint32
	t.lookups.New = func() any { return &lookup{slot: int(lookups.Add(1) % readSlots)} }
	t.memory = offheap.NewPool(opts.MemtableBytes/poolPieces, int64(opts.MaxMemtables)*opts.MemtableBytes)
	if opts.CacheBytes > 0 {
		t.cache = cache.New(opts.CacheBytes)
		t.balance.capacity = opts.CacheBytes
	}
	t.metadata.limit.Store(opts.metadataBytes)
	t.metadata.files = opts.MaxOpenFiles
	r := recovery{t: t}
	if err := r.run(); err != nil {
		r.free()
		if t.manifest != nil {
			err = errors.Join(err, t.manifest.Close())
		}
		if t.log != nil {
			err = errors.Join(err, t.log.Close())
		}
		t.cache.Close()
		return nil, errors.Join(err, t.unlockCold())
	}
	return t, nil
}

// start begins the background work.
func (t *Tree) start() {
	if t.o.Sync.every > 0 {
		t.sync.timer = stoppedTimer(func() {
			t.sync.due.Store(true)
			t.queue.Kick()
		})
	}
	t.background.Add(1)
	go t.logLoop()
	t.workers.Add(3 + compactors())
	go t.prepareLoop()
	go t.flushLoop()
	go t.tendLoop()
	for range compactors() {
		go t.compactLoop()
	}
	if t.o.ScrubBytesPerSecond > 0 {
		t.workers.Add(1)
		go t.scrubLoop()
	}
	t.rest.timer.Reset(restAfterOpen)
	t.queue.Kick() // recovery may have filled the memtable
	kick(t.compactKick)
}

// shortLog is the part of a memtable, as a divisor, up to which recovery writes
// the whole log again instead of keeping its segments.
const shortLog = 16

// A recovery makes a tree out of what is in its directory.
type recovery struct {
	t      *Tree
	tables []uint64 // files found, ascending
	cold   []uint64 // and in the cold directory
	logs   []uint64
	unused []uint64      // segments of the log that hold nothing
	copied bool          // there is a checkpoint file
	cut    bool          // or one that was never finished
	mems   []*mem        // oldest first
	refill refill        // what fills them
	last   uint64        // the segment that was visited last
	top    uint64        // the highest stamp found
	loss   manifest.Edit // what is not there any more
}

func (r *recovery) run() error {
	t := r.t
	if err := r.list(); err != nil {
		return err
	}
	if err := r.openManifest(); err != nil {
		return err
	}
	if err := r.listCold(); err != nil {
		return err
	}
	state := t.manifest.State()
	places := state.Places()
	if state.LogFrom == 0 && slices.ContainsFunc(r.tables, func(n uint64) bool { _, ok := places[n]; return !ok }) {
		// The log's first segment is in the manifest before any table is written.
		return base.Corrupt(path.Join(t.dir, base.ManifestName), 0, "the edits that made the tables", "none")
	}
	t.sliceShift = uint(64 - bits.TrailingZeros32(state.Slices))
	next := state.NextFile
	for _, n := range slices.Concat(r.tables, r.cold, r.logs) {
		next = max(next, n+1)
	}
	t.nextFile.Store(max(next, state.LogFrom+1, state.LogEnd.Segment+1))
	for i := range state.Tables {
		r.top = max(r.top, state.Tables[i].MaxDot.Stamp)
		if !r.has(&state.Tables[i]) {
			if err := r.lose(state.Tables[i]); err != nil {
				return err
			}
		}
	}
	for i := range state.Damaged {
		if d := state.Damaged[i].MaxDot; d != unknownDot {
			r.top = max(r.top, d.Stamp)
		}
	}
	if err := r.replay(state.LogFrom, state.LogEnd); err != nil {
		return err
	}
	t.clock = vclock.NewClock(t.o.Now, maxOffset, r.top)
	r.publish(t.manifest.State())
	return r.clean()
}

// lose notes a live table that is not there.
func (r *recovery) lose(m manifest.Table) error {
	f := tableFile{t: r.t, Table: m}
	err := base.Corrupt(f.name(), 0, "a table", "no such file")
	if !r.t.o.Isolate {
		return err
	}
	r.t.o.Logger.Error("lsm: a table is lost", "error", err)
	r.loss.Remove = append(r.loss.Remove, m.ID)
	r.loss.Damage = append(r.loss.Damage, f.damage(r.t.manifest.State().Dropped[m.ID])...)
	return nil
}

// free gives back the memory of a recovery that failed.
func (r *recovery) free() {
	if v := r.t.version.Swap(nil); v != nil {
		r.t.replace(v)
	} else {
		for _, m := range r.mems {
			m.Free()
		}
	}
	r.t.memory.Close()
	r.t.queue.Free()
}

// list finds the files of the directory.
func (r *recovery) list() error {
	names, err := r.t.o.FS.List(r.t.dir)
	if err != nil {
		return fmt.Errorf("lsm: listing the directory: %w", err)
	}
	for _, name := range names {
		if n, ok := base.ParseTableName(name); ok {
			r.tables = append(r.tables, n)
		} else if n, ok := base.ParseLogName(name); ok {
			r.logs = append(r.logs, n)
		}
		r.copied = r.copied || name == base.CheckpointName
		r.cut = r.cut || name == base.CheckpointTmpName
	}
	slices.Sort(r.tables)
	slices.Sort(r.logs)
	return nil
}

// openManifest opens the manifest, or creates that of a new directory.
func (r *recovery) openManifest() error {
	t := r.t
	var err error
	t.manifest, err = manifest.Open(t.o.FS, t.dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	identity := t.o.Identity
	if identity == [16]byte{} {
		binary.LittleEndian.PutUint64(identity[:8], t.o.Random())
		binary.LittleEndian.PutUint64(identity[8:], t.o.Random())
	}
	switch {
	case r.cut:
		return base.Corrupt(path.Join(t.dir, base.CheckpointTmpName), 0, "a finished checkpoint", "one that was cut short; make another")
	case r.copied:
		return r.restore(identity)
	case len(r.tables)+len(r.logs) > 0:
		return base.Corrupt(path.Join(t.dir, base.ManifestName), 0, "a manifest, or a checkpoint file, beside tables and log", "no such file")
	}
	p := manifest.Params{Slices: uint32(t.o.Slices), Directory: identity}
	t.manifest, err = manifest.Create(t.o.FS, t.dir, p)
	return err
}

// replay reads the log into memtables and begins a new segment.
func (r *recovery) replay(from uint64, closed base.LogEnd) error {
	t := r.t
	i, _ := slices.BinarySearch(r.logs, from)
	idle, logs := r.logs[:i:i], r.logs[i:]
	r.refill.dir = t.dir
	found, err := wal.Replay(t.o.FS, t.dir, from, closed, logs, r.visit)
	if bad := r.refill.flush(); bad != nil && (err == nil || errors.Is(err, ErrCorrupt)) {
		// A good group that does not hold records is met later than it is read.
		err = bad
		if n := r.refill.damaged(); found.Damaged == 0 || n < found.Damaged {
			found.Damaged = n
		}
	}
	r.top = max(r.top, r.refill.highest())
	damaged := t.o.Isolate && errors.Is(err, ErrCorrupt)
	if err != nil && !damaged {
		return err
	}
	t.stats.replayedBytes.Store(found.Bytes)
	if damaged {
		t.o.Logger.Error("lsm: the log is damaged; what is behind is lost", "error", err)
		found.Live = slices.DeleteFunc(found.Live, func(n uint64) bool { return n >= found.Damaged })
	} else {
		for _, n := range logs {
			if !slices.Contains(found.Live, n) {
				r.unused = append(r.unused, n)
			}
		}
	}
	t.log = wal.NewWriter(wal.WriterOptions{
		FS: t.o.FS, Dir: t.dir, SegmentBytes: t.o.MemtableBytes, Number: t.number, Salt: t.o.Random, Ahead: !t.o.Sync.lazy, Segments: t.o.MaxMemtables + 2,
	}, found.At, found.Live, idle)
	if damaged {
		return r.salvage(found.Damaged, logs)
	}
	return r.renew(from, found)
}

// renew begins the segment that the log goes on in.
//
// The groups that may never have been synced are written again before anybody
// sees them; and so is everything when it is little, so that segments do not add
// up over many short lives.
func (r *recovery) renew(from uint64, found wal.Recovered) error {
	t := r.t
	if len(r.mems) == 0 {
		r.mems = []*mem{t.newMem(0, 0)}
	}
	first := append(make([]byte, wal.GroupHeaderBytes), found.Tail...)
	short := len(r.mems) == 1 && found.Bytes <= uint64(t.o.MemtableBytes/shortLog)
	if short {
		first = r.mems[0].appendTo(first[:wal.GroupHeaderBytes])
	}
	if err := t.log.Rotate(first); err != nil {
		return err
	}
	r.mems[len(r.mems)-1].segments++
	if short {
		r.mems[0].segments, found.Live = 1, nil
	}
	// Segments whose groups were all replaced count too: the manifest names the
	// first one, until a flush moves on.
	r.mems[0].first = slices.Concat(found.Live, []uint64{t.log.Segment()})[0]
	if from == 0 || short {
		// From here on recovery knows that there must be a log.
		r.loss.LogFrom = r.mems[0].first
	}
	if r.loss.LogFrom != 0 || len(r.loss.Remove) > 0 {
		return r.edit(r.loss)
	}
	return nil
}

// salvage writes what was before the damage to tables, in one edit with the fact
// that the rest is lost and that the log begins anew. Before the edit nothing has
// changed for the next Open; after it the damaged segments are needed by nobody.
func (r *recovery) salvage(damaged uint64, logs []uint64) error {
	t := r.t
	e := r.loss
	for _, m := range r.mems {
		out, tables, err := t.writeAll(m, 0)
		t.load.flushing.Store(0)
		if err != nil {
			return out.abandon(err)
		}
		for _, f := range tables {
			e.Add = append(e.Add, f.Table)
			if err := f.discard(); err != nil {
				return err
			}
		}
	}
	if err := t.log.Rotate(make([]byte, wal.GroupHeaderBytes)); err != nil {
		return err
	}
	for _, m := range r.mems {
		m.Free()
	}
	r.mems = []*mem{t.newMem(t.log.Segment(), 0)}
	e.LogFrom = t.log.Segment()
	e.Damage = append(e.Damage, manifest.Damage{Part: manifest.Part{File: damaged, Span: base.AllTokens}, MaxDot: unknownDot})
	if err := r.edit(e); err != nil {
		return err
	}
	for _, n := range logs {
		if n >= damaged {
			t.putAside(path.Join(t.dir, base.LogName(n)))
		}
	}
	return nil
}

// edit is Tree.edit while there is no version yet.
func (r *recovery) edit(e manifest.Edit) error {
	e.NextFile = r.t.nextFile.Load()
	return r.t.manifest.Apply(e)
}

// visit takes in one group of the log.
func (r *recovery) visit(segment uint64, off int64, b []byte) error {
	var m *mem
	if n := len(r.mems); n > 0 {
		m = r.mems[n-1]
	}
	if segment != r.last {
		if err := r.refill.flush(); err != nil {
			return err
		}
	}
	switch {
	case m == nil || segment != r.last && m.Full():
		keys := 0
		if m != nil {
			keys = m.Count()
		}
		m = r.t.newMem(segment, keys)
		r.mems = append(r.mems, m)
	case segment != r.last:
		m.segments++
	}
	r.last = segment
	return r.refill.add(logged{m, segment, off, b})
}

// publish makes the first version.
func (r *recovery) publish(state *manifest.State) {
	t := r.t
	for _, m := range r.mems[:len(r.mems)-1] {
		m.Seal()
	}
	t.active.Store(r.mems[len(r.mems)-1])
	t.change(func(v *version) {
		v.takeIn(state)
		v.mems = slices.Clone(r.mems)
		slices.Reverse(v.mems)
		v.slices = make([][]*run, state.Slices)
		var all []*tableFile
		for _, f := range state.Tables {
			all = append(all, &tableFile{t: t, Table: f})
		}
		v.replace(nil, all)
	})
}

// clean removes what a crash left over: tables that no manifest names, and
// segments beyond the log's allotment. It is the last step, when the tree is
// known to be good.
func (r *recovery) clean() error {
	t := r.t
	state := t.manifest.State()
	places := state.Places()
	var leftovers []string
	for i := range state.Damaged { // whoever set it aside could not rename it
		n := state.Damaged[i].File
		for dir, found := range map[string][]uint64{t.dir: r.tables, t.cold: r.cold} {
			if _, live := places[n]; !live && slices.Contains(found, n) {
				places[n] = dir == t.cold
				t.putAside(path.Join(dir, base.TableName(n)))
			}
		}
	}
	for _, n := range r.tables {
		if cold, ok := places[n]; !ok || cold {
			leftovers = append(leftovers, path.Join(t.dir, base.TableName(n)))
		}
	}
	for _, n := range r.cold {
		if !places[n] {
			leftovers = append(leftovers, path.Join(t.cold, base.TableName(n)))
		}
	}
	for _, name := range leftovers {
		if err := t.o.FS.Remove(name); err != nil {
			return fmt.Errorf("lsm: removing a leftover: %w", err)
		}
		t.stats.orphans.Add(1)
	}
	for _, n := range r.unused {
		if err := t.o.FS.Remove(path.Join(t.dir, base.LogName(n))); err != nil {
			return fmt.Errorf("lsm: removing an unused log segment: %w", err)
		}
	}
	if r.copied { // the manifest stands in its place by now
		if err := t.o.FS.Remove(path.Join(t.dir, base.CheckpointName)); err != nil {
			return fmt.Errorf("lsm: removing the checkpoint file: %w", err)
		}
	}
	return t.log.Release(r.mems[0].first)
}
