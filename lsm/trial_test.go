package lsm

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"path"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/kvstore/lsm/internal/compaction"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

var (
	oracleSet  = flag.Int("oracle.set", -1, "run only this option set of TestOracle")
	oracleSeed = flag.Uint64("oracle.seed", 1, "seed of TestOracle")
	oracleOps  = flag.Int("oracle.ops", 0, "operations of each option set of TestOracle")
)

// TestOracle compares trees with a map under 50 sets of options: 1,000,000
// random operations, ten times as many in torture.
func TestOracle(t *testing.T) {
	const sets = 50
	ops := sized(200_000, 20_000, 1_000)
	if *oracleOps > 0 {
		ops = *oracleOps
	}
	var total tally
	var mu sync.Mutex
	t.Run("sets", func(t *testing.T) {
		for set := range sets {
			if *oracleSet >= 0 && *oracleSet != set {
				continue
			}
			t.Run(strconv.Itoa(set), func(t *testing.T) {
				t.Parallel()
				x := newTrial(t, set, *oracleSeed)
				x.run(ops)
				mu.Lock()
				defer mu.Unlock()
				total.add(&x.done)
			})
		}
	})
	t.Logf("%v", total)
}

// A tally counts what trials did.
type tally struct {
	ops, writes, reads, scans, flushes, compactions, ingests, drops, restores, reopens, crashes, nested, undone, purged, moved int
}

func (n *tally) add(m *tally) {
	n.ops += m.ops
	n.writes += m.writes
	n.reads += m.reads
	n.scans += m.scans
	n.flushes += m.flushes
	n.compactions += m.compactions
	n.ingests += m.ingests
	n.drops += m.drops
	n.restores += m.restores
	n.reopens += m.reopens
	n.crashes += m.crashes
	n.nested += m.nested
	n.undone += m.undone
	n.purged += m.purged
	n.moved += m.moved
}

func (n tally) String() string {
	return fmt.Sprintf("%d operations: %d batches written, %d keys read, %d scans, %d flushes, %d compactions, %d runs taken in, %d ranges dropped, %d checkpoints, %d reopenings, "+
		"%d power cuts, %d more during recovery, %d unsynced batches lost in them, %d records purged, %d tables made cold",
		n.ops, n.writes, n.reads, n.scans, n.flushes, n.compactions, n.ingests, n.drops, n.restores, n.reopens, n.crashes, n.nested, n.undone, n.purged, n.moved)
}

// A truth is what a tree must hold of one key.
type truth struct {
	token uint64
	set   vclock.Set // the join of everything that was applied
	// loose says that the tree may have purged some of it before the rest came:
	// only what is alive can be compared.
	loose bool
}

// A trial does random operations on one tree, one at a time, and compares what
// it reads with what the operations mean. The seed and the option set give the
// operations; when flushes, compactions and power cuts fall is up to the
// scheduler, too.
type trial struct {
	tb   testing.TB
	set  int
	seed uint64
	r    *rand.Rand
	o    *Options
	tree *Tree
	disk *vfs.Mem
	dir  string
	from *writer
	done tally

	now      atomic.Int64  // Unix milliseconds
	horizon  atomic.Uint64 // the stamp; only with moving
	moving   bool          // the tree has a horizon
	pending  []Record      // to arrive later
	keys     map[string]truth
	names    []string // of keys, for random choice
	undo     []change
	marks    []int  // where in undo each batch since first begins
	first    uint64 // batches that are out of undo
	fuse     atomic.Int64
	fate     uint64 // of the power cut that the fuse leads to
	cut      atomic.Pointer[powerCut]
	cutting  sync.Mutex    // held while a power cut is made
	started  atomic.Uint64 // batches submitted
	durable  atomic.Uint64 // batches that no power cut may take
	lazy     bool
	stepping int // the operation
}

// A change is how to take back one record of a batch.
type change struct {
	key    string
	before truth
}

// A powerCut is a disk as a power cut left it, with the batches that must, and
// that may, be on it.
type powerCut struct {
	disk             *vfs.Mem
	durable, started uint64
}

func newTrial(tb testing.TB, set int, seed uint64) *trial {
	r := rand.New(rand.NewPCG(seed, uint64(set)))
	x := &trial{tb: tb, set: set, seed: seed, r: r, disk: vfs.NewMem(r.Uint64()), dir: "db", keys: map[string]truth{}}
	x.now.Store(1_700_000_000_000)
	one := func(of ...int) int { return of[r.IntN(len(of))] }
	x.o = &Options{
		Sync:           []SyncPolicy{SyncAlways, SyncAlways, SyncNever, SyncEvery(time.Millisecond)}[r.IntN(4)],
		MemtableBytes:  int64(one(64, 64, 100, 256) << 10),
		MaxMemtables:   one(2, 3, 4),
		CacheBytes:     int64(one(-1, 40<<10, 1<<20)),
		LogBufferBytes: one(8<<10, 64<<10, 0),
		Shards:         one(1, 2, 8, 64),
		Slices:         one(1, 2, 4, 16),
		Compression:    Compression(r.IntN(3)),
		BitsPerKey:     []float64{0, -1, 2, 20}[r.IntN(4)],
		MaxOpenFiles:   one(0, 0, 1, 3),
		Isolate:        r.IntN(2) == 0,
		Identity:       [16]byte{1},
		Random:         salts(),
		Now:            func() time.Time { return time.UnixMilli(x.now.Load()) },
	}
	if r.IntN(3) == 0 {
		x.o.ColdDir, x.o.ColdAfter = "cold", 100*time.Millisecond
	}
	x.lazy = x.o.Sync.lazy
	if r.IntN(2) == 0 {
		x.o.pick = randomPick(seed)
	}
	if x.moving = r.IntN(2) == 0; x.moving {
		x.o.Horizon = func(uint64) vclock.Dot { return vclock.Dot{Stamp: x.horizon.Load(), Actor: math.MaxUint64} }
	}
	if r.IntN(4) == 0 {
		x.o.Join = func(_, a, b []byte) []byte {
			j, err := vclock.JoinEncoded(a, b)
			if err != nil {
				panic(err)
			}
			return j
		}
		x.o.Dots = func(v []byte) (lo, hi vclock.Dot) {
			lo, hi, err := vclock.EncodedDots(v)
			if err != nil {
				panic(err)
			}
			return lo, hi
		}
	}
	x.from = newWriter(r.Uint64(), one(10, 100, 1000), one(10, 100, 600))
	x.from.deadline = func() int64 { return x.now.Load() + int64(x.r.IntN(4000)) - 500 }
	return x
}

// randomPick compacts any runs at any time, alone or together. It makes no
// bottom: only the real picker sees to it that there is one at most.
func randomPick(seed uint64) func([][]compaction.Run, compaction.Conditions) (compaction.Job, bool) {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 3))
	return func(slices [][]compaction.Run, c compaction.Conditions) (compaction.Job, bool) {
		mu.Lock()
		defer mu.Unlock()
		var most []int
		s := -1
		for i, runs := range slices {
			var free []int
			for k := range runs {
				if !runs[k].Busy {
					free = append(free, k)
				}
			}
			if !c.Held(i) && len(free) > len(most) {
				s, most = i, free
			}
		}
		if s < 0 || r.IntN(3) > 0 && len(most) < maxRuns/2 {
			return compaction.Job{}, false
		}
		r.Shuffle(len(most), func(i, j int) { most[i], most[j] = most[j], most[i] })
		return compaction.Job{Slice: s, Runs: most[:1+r.IntN(len(most))], Level: uint8(r.IntN(3))}, true
	}
}

// failf ends the trial and says how to have it again.
func (x *trial) failf(format string, args ...any) {
	x.tb.Helper()
	x.tb.Fatalf("option set %d, seed %d, operation %d: %s\nagain: go test ./lsm -run '^TestOracle$' -oracle.set=%d -oracle.seed=%d -oracle.ops=%d",
		x.set, x.seed, x.stepping, fmt.Sprintf(format, args...), x.set, x.seed, x.stepping+1)
}

func (x *trial) must(err error) {
	x.tb.Helper()
	if err != nil {
		x.failf("%+v", err)
	}
}

// open opens what is on the disk, under the hook.
func (x *trial) open() {
	x.o.FS = vfs.Faulty(x.disk, x.hook)
	tree, err := Open(x.dir, x.o)
	x.must(err)
	x.tree = tree
}

// hook burns the fuse, and at its end keeps what a power cut would leave.
func (x *trial) hook(op vfs.Op) error {
	if !op.Kind.Changes() || x.fuse.Load() <= 0 {
		return nil
	}
	x.cutting.Lock()
	defer x.cutting.Unlock()
	if x.fuse.Add(-1) != 0 {
		return nil
	}
	p := &powerCut{durable: x.durable.Load()}
	switch x.fate % 4 {
	case 0:
		p.disk = x.disk.Strict()
	case 1:
		p.disk = x.disk.CrashSynced() // the process was killed
	default:
		p.disk = x.disk.Crash(x.fate)
	}
	p.started = x.started.Load()
	x.cut.Store(p)
	return nil
}

// defuse gives the power cut that the fuse has led to, if any. None follows.
func (x *trial) defuse() *powerCut {
	x.fuse.Store(0)
	x.cutting.Lock() // whoever is at it comes first
	defer x.cutting.Unlock()
	return x.cut.Swap(nil)
}

func (x *trial) run(ops int) {
	defer func() {
		if x.tree != nil {
			x.tree.Close() // also when the trial failed
		}
	}()
	x.open()
	for x.stepping = range ops {
		x.step()
		if p := x.cut.Swap(nil); p != nil {
			x.recover(p)
		}
	}
	x.done.ops += ops
	x.fuse.Store(0)
	x.compact()
	x.compare()
	x.close()
}

func (x *trial) step() {
	if x.r.IntN(8) == 0 {
		x.now.Add(int64(x.r.IntN(3)))
	}
	x.from.stamp = max(x.from.stamp, vclock.NewStamp(time.UnixMilli(x.now.Load())))
	x.trim()
	switch n := x.r.IntN(10_000); {
	case n < 3200:
		x.get()
	case n < 5000:
		x.read()
	case n < 6500:
		x.readMemory()
	case n < 8100:
		x.put()
	case n < 9840:
		x.apply()
	case n < 9940:
		x.burst()
	case n < 9952:
		x.scan()
	case n < 9962:
		x.must(x.tree.Flush())
		x.durable.Store(x.started.Load())
		x.done.flushes++
	case n < 9964:
		x.compact()
	case n < 9966:
		x.moveCold()
	case n < 9976:
		x.moveHorizon()
	case n < 9979:
		x.reopen()
	case n < 9988:
		if x.fuse.Load() <= 0 {
			x.fate = x.r.Uint64()
			x.fuse.Store(1 + int64(x.r.IntN(60)))
		}
	case n < 9992:
		x.compare()
	case n < 9995:
		x.ingest()
	case n < 9997:
		x.drop()
	case n < 9998:
		x.checkpoint()
	default:
		_ = x.tree.Metrics().String()
	}
}

// trim forgets how to take back what is durable, unless a power cut has been or is being
// made, for which less was.
func (x *trial) trim() {
	x.cutting.Lock()
	defer x.cutting.Unlock()
	if x.cut.Load() != nil {
		return
	}
	if n := int(x.durable.Load() - x.first); n > 0 {
		if n == len(x.marks) {
			x.undo, x.marks = x.undo[:0], x.marks[:0]
		} else {
			from := x.marks[n]
			x.undo, x.marks = slices.Delete(x.undo, 0, from), slices.Delete(x.marks, 0, n)
			for i := range x.marks {
				x.marks[i] -= from
			}
		}
		x.first += uint64(n)
	}
}

// begin notes that a batch is about to be submitted.
func (x *trial) begin() {
	x.started.Add(1)
	x.marks = append(x.marks, len(x.undo))
	x.done.writes++
}

// learn takes in a record of the batch that began last.
func (x *trial) learn(r *Record) {
	k := string(r.Key)
	old, known := x.keys[k]
	if !known {
		x.names = append(x.names, k)
	}
	x.undo = append(x.undo, change{k, old})
	next := truth{token: r.Token, set: vclock.Join(old.set, setOf(r)), loose: old.loose || x.partly(old.set)}
	if next.set.IsPlain() {
		next.loose = false
	}
	x.keys[k] = next
}

// acked notes that everything submitted was acknowledged, synced or not.
func (x *trial) acked(synced bool) {
	if synced || !x.lazy {
		x.durable.Store(x.started.Load())
	}
}

// purgeable reports whether a tree that holds exactly s may drop it.
func (x *trial) purgeable(s vclock.Set) bool {
	if !x.moving {
		return purgeableLocally(s)
	}
	h := x.horizon.Load()
	return len(s.Siblings) > 0 && s.Max().Stamp <= h && !slices.ContainsFunc(s.Siblings, func(b vclock.Sibling) bool {
		return !b.Tombstone && (b.Deadline == 0 || uint64(b.Deadline) >= h>>16)
	})
}

// partly reports whether a tree may have dropped some of s: a tombstone that was
// in a table apart from the rest.
func (x *trial) partly(s vclock.Set) bool {
	return x.purgeable(s) || x.moving && len(x.alive(s)) < len(s.Siblings) && s.Min().Stamp <= x.horizon.Load()
}

// token gives that of a key: its own, or for some keys one that they share.
func token(key []byte) uint64 {
	switch {
	case bytes.HasPrefix(key, []byte("sys")):
		return SystemToken
	case bytes.HasPrefix(key, []byte("one")):
		return 1 << 60
	}
	return Token(key)
}

// record makes up one for Apply.
func (x *trial) record() Record {
	w := x.from
	w.stamp += 1 + uint64(x.r.IntN(3))
	if n := len(w.old); n > 0 && x.r.IntN(10) == 0 {
		return w.old[x.r.IntN(n)]
	}
	prefix := []string{"any", "any", "any", "any", "any", "sys", "one", "mix"}[x.r.IntN(8)]
	if prefix == "mix" && !x.moving {
		prefix = "any" // without a horizon a local tombstone may go too early for records of others
	}
	d := vclock.Dot{Stamp: 100 + w.stamp - uint64(x.r.IntN(20)), Actor: w.stamp<<8 | 1 + uint64(x.r.IntN(2))}
	r := w.plain(prefix, d)
	r.Token = token(r.Key)
	if x.r.IntN(3) == 0 {
		r = w.sibling(&r)
	}
	if len(w.old) < 500 {
		w.old = append(w.old, r)
	} else {
		w.old[x.r.IntN(len(w.old))] = r
	}
	return r
}

// batch makes up a batch, of records that may arrive behind the horizon.
func (x *trial) batch() (b []Record) {
	for range 1 + max(0, x.r.IntN(8)-4) {
		r := x.record()
		if x.moving && x.r.IntN(10) == 0 {
			x.pending = append(x.pending, r)
			continue
		}
		if n := len(x.pending); n > 0 && x.r.IntN(10) == 0 {
			i := x.r.IntN(n)
			b = append(b, x.pending[i])
			x.pending = slices.Delete(x.pending, i, i+1)
		}
		b = append(b, r)
	}
	return b
}

// arriving drops from a batch what a replica would refuse. A batch has each key
// once: what one record means depends on those before it.
func (x *trial) arriving(batch []Record) (b []Record) {
	seen := map[string]bool{}
	for _, r := range batch {
		if seen[string(r.Key)] {
			continue
		}
		seen[string(r.Key)] = true
		if r = straggle(r, x.keys[string(r.Key)].set, x.horizon.Load()); r.Kind != 0 {
			b = append(b, r)
		}
	}
	return b
}

func (x *trial) apply() { x.write(x.batch(), x.r.IntN(50) == 0) }

func (x *trial) write(batch []Record, sync bool) {
	b := x.arriving(batch)
	if len(b) == 0 {
		return
	}
	x.begin()
	for i := range b {
		x.learn(&b[i])
	}
	if sync {
		x.must(x.tree.ApplySync(b))
	} else {
		x.must(x.tree.Apply(b))
	}
	x.acked(sync)
}

// burst submits several batches at once.
func (x *trial) burst() {
	var wg sync.WaitGroup
	for range 2 + x.r.IntN(15) {
		b := x.arriving(x.batch())
		if len(b) == 0 {
			continue
		}
		x.begin()
		for i := range b {
			x.learn(&b[i])
		}
		wg.Add(1)
		var refused atomic.Pointer[error]
		returned := make(chan struct{})
		x.tree.Submit(b, func(err error) {
			if err != nil {
				refused.Store(&err)
			}
			wg.Done()
		})
		close(returned)
		if err := refused.Load(); err != nil {
			if *err != ErrOverloaded {
				x.failf("submit: %v", *err)
			}
			x.takeBack()
		}
	}
	wg.Wait()
	x.acked(false)
}

// ingest takes a run in. What was submitted before it is made durable first, as
// the run itself is.
func (x *trial) ingest() {
	var b []Record
	for range 5 + x.r.IntN(40) {
		b = append(b, x.record())
	}
	b = x.arriving(b)
	slices.SortFunc(b, func(a, b Record) int { return a.Compare(b.Token, b.Key) })
	x.must(x.tree.Flush())
	x.durable.Store(x.started.Load())
	x.begin()
	for i := range b {
		x.learn(&b[i])
	}
	x.must(x.tree.Ingest(slices.Values(b)))
	x.durable.Store(x.started.Load())
	x.done.ingests++
}

// drop drops a range of tokens.
func (x *trial) drop() {
	lo := x.r.Uint64()
	hi := lo + x.r.Uint64N(math.MaxUint64-lo)/8
	x.begin()
	for _, k := range slices.Sorted(maps.Keys(x.keys)) {
		if tr := x.keys[k]; lo <= tr.token && tr.token <= hi {
			x.undo = append(x.undo, change{k, tr})
			x.keys[k] = truth{token: tr.token}
		}
	}
	x.must(x.tree.DropRange(lo, hi))
	x.durable.Store(x.started.Load())
	x.done.drops++
}

// checkpoint makes a copy of the tree and goes on in it, as a restore does.
func (x *trial) checkpoint() {
	if x.fuse.Load() > 0 {
		return
	}
	dir := fmt.Sprint("copy-", x.stepping)
	x.must(x.tree.Checkpoint(dir))
	x.close()
	gone := []string{x.dir, coldDir("cold", x.o.Identity)}
	x.dir = dir
	x.o.Identity[1]++
	x.now.Add(10)
	x.open()
	x.compare()
	for _, dir := range gone {
		names, err := x.disk.List(dir)
		if !errors.Is(err, fs.ErrNotExist) {
			x.must(err)
		}
		for _, name := range names {
			x.must(x.disk.Remove(path.Join(dir, name)))
		}
	}
	x.done.restores++
}

// put writes under the tree's own clock. The dot is the clock's last.
func (x *trial) put() {
	r := x.from.plain("own", vclock.Dot{})
	if x.moving && x.r.IntN(4) == 0 {
		r = x.from.plain("mix", vclock.Dot{})
	}
	if x.fuse.Load() > 0 {
		// A put that finds a higher dot, or what may be one, is two writes. A power
		// cut may come between them, so that it must not find any.
		x.must(x.tree.clock.Observe(x.from.stamp + 100))
	}
	r.Deadline = 0
	x.begin()
	if r.Kind == Value {
		x.must(x.tree.Put(r.Key, r.Value))
	} else {
		x.must(x.tree.Delete(r.Key))
	}
	r.Max = vclock.Dot{Stamp: x.tree.clock.Now(), Actor: LocalActor}
	r.Min = r.Max
	x.learn(&r)
	if set := x.keys[string(r.Key)].set; set.Max() != r.Max {
		x.failf("a put of %q is shadowed by what was there before: %v", r.Key, set)
	}
	x.from.stamp = max(x.from.stamp, r.Max.Stamp)
	x.acked(false)
}

// takeBack undoes the last batch.
func (x *trial) takeBack() {
	n := len(x.marks) - 1
	for _, c := range slices.Backward(x.undo[x.marks[n]:]) {
		x.keys[c.key] = c.before
	}
	x.undo, x.marks = x.undo[:x.marks[n]], x.marks[:n]
	x.started.Add(^uint64(0))
}

// any gives a key, mostly one that was written.
func (x *trial) any() []byte {
	if len(x.names) == 0 || x.r.IntN(20) == 0 {
		return fmt.Appendf(nil, "own-%d", 5000+x.r.IntN(100))
	}
	return []byte(x.names[x.r.IntN(len(x.names))])
}

func (x *trial) get() {
	k := x.any()
	tr := x.keys[string(k)]
	if token(k) != Token(k) {
		x.read()
		return
	}
	var want []byte
	live := false
	for i := range tr.set.Siblings {
		if b := &tr.set.Siblings[i]; !b.Tombstone && (b.Deadline == 0 || b.Deadline > x.now.Load()) {
			want, live = b.Value, true
			break
		}
	}
	got, ok, err := x.tree.AppendGet([]byte("before"), k)
	x.must(err)
	if ok != live || string(got) != "before"+string(want) {
		x.failf("get of %q: %q %v, want %q %v of %v", k, got, ok, want, live, tr.set)
	}
	x.done.reads++
}

func (x *trial) read() {
	k := x.any()
	r, ok, err := x.tree.ReadToken(token(k), k)
	x.must(err)
	if d := x.diff(string(k), &r, ok); d != "" {
		x.failf("read of %q: %s", k, d)
	}
	x.done.reads++
}

func (x *trial) readMemory() {
	k := x.any()
	r, found, certain := x.tree.ReadMemory(token(k), k, nil)
	tr := x.keys[string(k)]
	switch {
	case certain:
		if d := x.diff(string(k), &r, found); d != "" {
			x.failf("read of %q from memory: %s", k, d)
		}
	case found && !tr.loose && !x.partly(tr.set):
		if s := setOf(&r); !vclock.Join(s, tr.set).Equal(tr.set) {
			x.failf("read of %q from memory: %v, not in %v", k, s, tr.set)
		}
	}
	x.done.reads++
}

// diff says how a record read for a key differs from the truth, or nothing.
func (x *trial) diff(k string, r *Record, ok bool) string {
	tr := x.keys[k]
	if !ok {
		if len(tr.set.Siblings) == 0 || x.purgeable(tr.set) {
			return ""
		}
		return fmt.Sprintf("nothing, want %v", tr.set)
	}
	got := setOf(r)
	switch {
	case r.Kind == Causal && got.IsPlain():
		return "not in normal form"
	case tr.loose || x.partly(tr.set):
		if !slices.EqualFunc(x.alive(got), x.alive(tr.set), sameWrite) {
			return fmt.Sprintf("%v, want what is alive of %v", got, tr.set)
		}
	case !got.Equal(tr.set):
		return fmt.Sprintf("%v, want %v", got, tr.set)
	}
	return ""
}

// alive gives the siblings that no compaction may drop.
func (x *trial) alive(s vclock.Set) []vclock.Sibling {
	h := x.horizon.Load()
	dead := func(b vclock.Sibling) bool {
		return b.Tombstone || b.Deadline > 0 && b.Dot.Stamp <= h && uint64(b.Deadline) < h>>16
	}
	if !slices.ContainsFunc(s.Siblings, dead) {
		return s.Siblings
	}
	return slices.DeleteFunc(slices.Clone(s.Siblings), dead)
}

func sameWrite(a, b vclock.Sibling) bool {
	return a.Dot == b.Dot && a.Tombstone == b.Tombstone && a.Deadline == b.Deadline && bytes.Equal(a.Value, b.Value)
}

// scan compares a range of tokens.
func (x *trial) scan() {
	lo, hi := x.r.Uint64(), x.r.Uint64()
	if x.r.IntN(4) == 0 {
		hi = math.MaxUint64
	}
	x.compareRange(min(lo, hi), max(lo, hi))
	x.done.scans++
}

// compare compares all that the tree holds.
func (x *trial) compare() { x.compareRange(0, math.MaxUint64) }

func (x *trial) compareRange(lo, hi uint64) {
	for k, d := range x.differences(lo, hi) {
		x.failf("scan of %x to %x: %q: %s", lo, hi, k, d)
	}
}

// differences scans a range and gives what differs, by key.
func (x *trial) differences(lo, hi uint64) map[string]string {
	diffs := map[string]string{}
	seen := map[string]bool{}
	var last Record
	for r, err := range x.tree.Scan(lo, hi) {
		x.must(err)
		k := string(r.Key)
		switch {
		case last.Key != nil && last.Compare(r.Token, r.Key) >= 0:
			diffs[k] = "out of order"
		case r.Token < lo || hi < r.Token || r.Token != token(r.Key):
			diffs[k] = fmt.Sprintf("token %x", r.Token)
		default:
			if d := x.diff(k, &r, true); d != "" {
				diffs[k] = d
			}
		}
		seen[k] = true
		last = Record{Token: r.Token, Key: slices.Clone(r.Key)}
	}
	for k, tr := range x.keys {
		if !seen[k] && lo <= tr.token && tr.token <= hi {
			if d := x.diff(k, nil, false); d != "" {
				diffs[k] = d
			}
		}
	}
	return diffs
}

func (x *trial) compact() {
	x.must(x.tree.Compact(context.Background()))
	x.durable.Store(x.started.Load())
	x.done.compactions++
}

// moveCold moves all there is, once it is one run and has grown old.
func (x *trial) moveCold() {
	if x.o.ColdDir == "" {
		return
	}
	x.now.Add(200)
	x.compact()
	x.must(x.tree.moveCold())
	x.done.moved += int(x.tree.Metrics().ColdTables)
}

// moveHorizon raises the horizon, after everything behind it has arrived and is
// durable.
func (x *trial) moveHorizon() {
	if !x.moving {
		return
	}
	top := min(x.from.stamp, x.tree.clock.Now())
	old := x.horizon.Load()
	if top <= old {
		return
	}
	h := old + 1 + x.r.Uint64N(top-old)
	x.pending = slices.DeleteFunc(x.pending, func(r Record) bool {
		if r.Min.Stamp > h {
			return false
		}
		x.write([]Record{r}, false)
		return true
	})
	x.must(x.tree.Flush())
	x.durable.Store(x.started.Load())
	if x.cut.Load() == nil { // else what came before the flush may be lost
		x.horizon.Store(h)
	}
}

func (x *trial) close() {
	x.must(x.tree.Close())
	x.done.purged += int(x.tree.Metrics().Purged)
	x.tree = nil
	x.durable.Store(x.started.Load())
	if open := x.disk.Handles(); len(open) > 0 {
		x.failf("open after Close: %q", open)
	}
}

func (x *trial) reopen() {
	x.close()
	if x.r.IntN(4) == 0 {
		var cold []string
		if x.o.ColdDir != "" {
			cold = append(cold, x.o.ColdDir)
		}
		r, err := CheckFS(x.disk, x.dir, cold...)
		x.must(err)
		if len(r.Problems) > 0 {
			x.failf("after Close: %v", r)
		}
	}
	x.now.Add(10) // stamps go on above those of before
	x.open()
	x.done.reopens++
}

// recover goes on with the disk that a power cut left: it must hold the batches
// up to some one, all those that were durable.
func (x *trial) recover(p *powerCut) {
	x.fuse.Store(0)
	x.close()
	x.done.crashes++
	x.now.Add(10)
	for {
		x.disk = p.disk
		if x.r.IntN(3) == 0 {
			x.fate = x.r.Uint64()
			x.fuse.Store(1 + int64(x.r.IntN(20)))
		}
		x.open()
		again := x.defuse()
		if again == nil {
			break
		}
		x.done.nested++
		p.disk = again.disk
		x.must(x.tree.Close())
	}
	diffs := x.differences(0, math.MaxUint64)
	for len(diffs) > 0 {
		n := len(x.marks)
		if n == 0 || x.first+uint64(n) <= p.durable {
			for k, d := range diffs {
				x.failf("after a power cut with batches up to %d durable and %d submitted: at %d: %q: %s", p.durable, p.started, x.first+uint64(n), k, d)
			}
		}
		touched := map[string]bool{}
		for _, c := range x.undo[x.marks[n-1]:] {
			touched[c.key] = true
		}
		x.takeBack()
		x.done.undone++
		for k := range touched {
			r, ok, err := x.tree.ReadToken(token([]byte(k)), []byte(k))
			x.must(err)
			delete(diffs, k)
			if d := x.diff(k, &r, ok); d != "" {
				diffs[k] = d
			}
		}
	}
	x.names = slices.Sorted(maps.Keys(x.keys))
	x.durable.Store(x.started.Load())
	x.trim()
}
