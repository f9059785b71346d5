package lsm

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// TestDefences switches off one rule at a time: the same tests that pass with all
// of them notice. Most run by themselves too; torture has each pass here, as long as
// it is, before the rule goes.
func TestDefences(t *testing.T) {
	if testing.Short() {
		t.Skip("the tests that notice run by themselves too")
	}
	require.NoError(t, flag.Set("rapid.nofailfile", "true"))
	defer flag.Set("rapid.nofailfile", "false")
	d := &base.Defences
	for _, tt := range []struct {
		name    string
		defence *bool
		by      string
		test    func(testing.TB)
	}{
		{"checksum-place", &d.ChecksumPlace, "swapped blocks", swappedBlocks},
		{"block-checksum", &d.BlockChecksum, "every bit", func(t testing.TB) { everyBit(t, 3, newSpecimen(t, false)) }},
		{"table-sync", &d.TableSync, "power cuts", powerCuts},
		{"table-dir-sync", &d.TableDirSync, "power cuts", powerCuts},
		{"manifest-sync", &d.ManifestSync, "power cuts", powerCuts},
		{"manifest-seal", &d.ManifestSeal, "failed syncs", func(t testing.TB) {
			for range 5 { // few of the syncs tell, and whether they do depends on the order of goroutines
				failedSyncs(t, vfs.PagesKept, 1, 2000)
			}
		}},
		{"group-sync", &d.GroupSync, "power cuts", powerCuts},
		{"group-visible", &d.GroupVisible, "reads during a sync", visibleWhenSynced},
		{"failed-sync", &d.FailedSync, "failed syncs", func(t testing.TB) { failedSyncs(t, vfs.PagesDropped, 3, 200) }},
		{"segment-sync", &d.SegmentSync, "oracle", oracle(true)},
		{"torn-or-damaged", &d.TornOrDamaged, "every bit", func(t testing.TB) { everyBit(t, 3, newSpecimen(t, true)) }},
		{"log-end", &d.LogEnd, "every cut", func(t testing.TB) { everyCut(t, 1, newSpecimen(t, false)) }},
		{"rewrite-tail", &d.RewriteTail, "failed syncs", func(t testing.TB) { failedSyncs(t, vfs.PagesKept, 1, 2000) }},
		{"release-last", &d.ReleaseLast, "a rotation during an edit", func(t testing.TB) {
			for range 20 { // it tells when the segment is recycled soon enough
				rotationDuringEdit(t)
			}
		}},
		{"seal-waits", &d.SealWaits, "a slow writer", slowWriter},
		{"end-plain", &d.EndPlain, "schedules", func(t testing.TB) { schedules(t, 0, 3000) }},
		{"end-strict", &d.EndStrict, "early end", func(t testing.TB) { earlyEnd(t) }},
		{"hold-files", &d.HoldFiles, "a slow reader", slowReader},
		{"restamp", &d.Restamp, "oracle", oracle(false)},
		{"purge-horizon", &d.PurgeHorizon, "schedules", func(t testing.TB) { schedules(t, 0, 3000) }},
		{"purge-tables", &d.PurgeTables, "schedules", func(t testing.TB) { schedules(t, 1200, 9000) }},
		{"purge-memtables", &d.PurgeMemtables, "schedules", func(t testing.TB) { schedules(t, 5500, 20_000) }},
		{"purge-strays", &d.PurgeStrays, "a stray value", strayValue},
	} {
		t.Run(tt.name, func(t *testing.T) {
			began := time.Now()
			if torture {
				require.Empty(t, verdict(t, tt.test), "with all rules")
			}
			control := time.Since(began)
			*tt.defence = false
			defer func() { *tt.defence = true }()
			began = time.Now()
			found := verdict(t, tt.test)
			require.NotEmpty(t, found, "nothing notices that %s is off", tt.name)
			t.Logf("%-16s off: noticed by %-20s in %6v, nothing in %6v with it on: %.100s", tt.name, tt.by, time.Since(began).Round(time.Millisecond), control.Round(time.Millisecond), strings.ReplaceAll(found, "\n", " "))
		})
	}
}

// A probe stands in for a test: it notes the first failure and ends there.
type probe struct {
	testing.TB
	failed   atomic.Bool
	found    string
	cleanups []func()
}

func (p *probe) fail(message string) {
	if p.failed.CompareAndSwap(false, true) {
		p.found = strings.TrimSpace(message)
	}
}

func (p *probe) Errorf(format string, args ...any) { p.fail(fmt.Sprintf(format, args...)) }
func (p *probe) Error(args ...any)                 { p.fail(fmt.Sprint(args...)) }
func (p *probe) Fatalf(format string, args ...any) { p.Errorf(format, args...); p.FailNow() }
func (p *probe) Fatal(args ...any)                 { p.Error(args...); p.FailNow() }
func (p *probe) FailNow()                          { p.fail("failed"); runtime.Goexit() }
func (p *probe) Fail()                             { p.fail("failed") }
func (p *probe) Failed() bool                      { return p.failed.Load() }
func (p *probe) Cleanup(f func())                  { p.cleanups = append(p.cleanups, f) }
func (p *probe) Logf(string, ...any)               {}
func (p *probe) Log(...any)                        {}
func (p *probe) Helper()                           {}

// verdict runs a test and gives how it failed, or nothing.
func verdict(tb testing.TB, test func(testing.TB)) string {
	p := &probe{TB: tb}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if cause := recover(); cause != nil {
				p.fail(fmt.Sprint("panic: ", cause))
			}
			for _, f := range p.cleanups {
				f()
			}
		}()
		test(p)
	}()
	<-done
	return p.found
}

// powerCuts is the short form of TestCrash.
func powerCuts(t testing.TB) {
	w := cutEverywhere(t, 2, 2)
	for _, p := range w.mu.points {
		w.verify(t, p, p.disk)
	}
}

// oracle gives a short form of TestOracle: of the option sets with a lazy
// policy, or of all.
func oracle(lazy bool) func(testing.TB) {
	return func(t testing.TB) {
		for set := range 50 {
			if x := newTrial(t, set, 1); x.lazy || !lazy {
				x.run(8000)
			}
		}
	}
}

// TestVisibleWhenSynced: nobody sees a write while the sync of its group is under
// way. A power cut could still take it.
func TestVisibleWhenSynced(t *testing.T) { visibleWhenSynced(t) }

func visibleWhenSynced(t testing.TB) {
	var tree *Tree
	seen, syncs := 0, 0
	o := small(vfs.Faulty(vfs.NewMem(1), func(op vfs.Op) error {
		if op.Kind == vfs.OpSyncData && tree != nil {
			syncs++
			for i := range 10 {
				if _, found, _ := tree.ReadMemory(Token(key(i)), key(i), nil); found {
					seen++
				}
			}
		}
		return nil
	}))
	tree = open(t, o)
	defer tree.Close()
	for i := range 10 {
		require.NoError(t, tree.Put(key(i), nil))
	}
	require.Equal(t, 10, syncs)
	require.Equal(t, 45, seen, "the i-th sync may find i keys, not its own")
}

// TestSlowWriter: a memtable is not flushed while a writer is still in it, whose
// record is in the memtable's log already.
func TestSlowWriter(t *testing.T) { slowWriter(t) }

func slowWriter(t testing.TB) {
	o := small(vfs.NewMem(1))
	o.Sync = SyncNever
	tree := open(t, o)
	defer tree.Close()
	require.NoError(t, tree.Put(key(0), nil))
	m := tree.enter() // as appendLazy does
	flushed := make(chan error, 1)
	go func() { flushed <- tree.Flush() }()
	for tree.active.Load() == m { // sealed
		runtime.Gosched()
	}
	if !base.Defences.SealWaits {
		<-m.flushed
	}
	d := vclock.Dot{Stamp: math.MaxUint64 >> 1, Actor: 1}
	m.Apply(&Record{Token: Token(key(1)), Key: key(1), Kind: Value, Min: d, Max: d, Value: key(1)})
	tree.leave(m)
	require.NoError(t, <-flushed)
	requireGet(t, tree, key(1), string(key(1)))
}

// TestSlowReader: what a scan reads stays until it ends, whatever is compacted
// meanwhile.
func TestSlowReader(t *testing.T) { slowReader(t) }

func slowReader(t testing.TB) {
	disk := vfs.NewMem(1)
	tree := open(t, small(disk))
	defer tree.Close()
	for i := range 300 {
		require.NoError(t, tree.Put(key(i), make([]byte, 1000)))
		if i%100 == 99 {
			require.NoError(t, tree.Flush())
		}
	}
	n := 0
	for _, err := range tree.Scan(0, math.MaxUint64) {
		require.NoError(t, err)
		if n++; n == 10 {
			require.NoError(t, tree.Compact(t.Context()))
		}
	}
	require.Equal(t, 300, n)
}

// TestRotationDuringEdit begins another segment of the log while the manifest
// does not know yet that the oldest one may go: that is not taken for it.
func TestRotationDuringEdit(t *testing.T) { rotationDuringEdit(t) }

func rotationDuringEdit(t testing.TB) {
	disk := vfs.NewMem(1)
	var tree *Tree
	var armed atomic.Bool
	var after []*vfs.Mem
	rotated := make(chan error, 1)
	o := small(vfs.Faulty(disk, func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite && strings.HasPrefix(op.Name, "db/manifest") && armed.CompareAndSwap(true, false) {
			before := tree.active.Load()
			go func() {
				err := tree.Put(key(1000), nil)
				rotated <- errors.Join(err, tree.Flush())
			}()
			for tree.active.Load() == before {
				runtime.Gosched()
			}
			after = append(after, disk.Strict(), disk.CrashSynced())
		}
		return nil
	}))
	tree = open(t, o)
	defer tree.Close()
	for i := range 30 {
		require.NoError(t, tree.Put(key(i), key(i)))
	}
	armed.Store(true)
	require.NoError(t, tree.Flush())
	require.NoError(t, <-rotated)
	require.Len(t, after, 2)
	for _, disk := range after {
		again := open(t, small(disk))
		defer again.Close()
		for i := range 30 {
			requireGet(t, again, key(i), string(key(i)))
		}
		require.NoError(t, again.Close())
	}
}

// TestSwappedBlocks puts two blocks of one table each in the place of the other,
// as misdirected writes may. That is damage, and no key is absent because of it.
func TestSwappedBlocks(t *testing.T) { swappedBlocks(t) }

func swappedBlocks(t testing.TB) {
	disk := vfs.NewMem(1)
	o := specimenOptions(disk)
	o.Compression = NoCompression
	tree := open(t, o)
	defer tree.Close()
	for i := range 500 {
		d := vclock.Dot{Stamp: 1, Actor: 1}
		require.NoError(t, tree.Apply([]Record{{Token: Token(key(i)), Key: key(i), Kind: Value, Min: d, Max: d, Value: make([]byte, 100)}}))
	}
	require.NoError(t, tree.Flush())
	var id uint64
	for f := range tree.version.Load().tables() {
		id = f.ID
	}
	require.NoError(t, tree.Close())
	name := "db/" + base.TableName(id)
	b := contentOf(t, disk, name)
	// The blocks have one size, but for the last; a checksum shows where they end.
	n := 0
	for end := 100; n == 0; end++ {
		if base.Checksum(id, 32, b[32:32+end-4]) == binary.LittleEndian.Uint32(b[32+end-4:]) {
			n = end
		}
	}
	f, err := disk.OpenReadWrite(name)
	require.NoError(t, err)
	_, err = f.WriteAt(b[32:32+n], int64(32+n))
	require.NoError(t, err)
	_, err = f.WriteAt(b[32+n:32+2*n], 32)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	tree = open(t, o)
	defer tree.Close()
	damaged := 0
	for i := range 500 {
		_, ok, err := tree.Get(key(i))
		switch {
		case errors.Is(err, ErrCorrupt):
			damaged++
		default:
			require.NoError(t, err)
			require.True(t, ok, "%s is absent", key(i))
		}
	}
	require.Greater(t, damaged, 20)
}

// TestMisplacedWrites lets one write, of each in turn, go astray: lost, or
// to another place of its file. It is reported, or does no harm, or was the last one and is taken for torn (S5).
func TestMisplacedWrites(t *testing.T) { misplacedWrites(t) }

func misplacedWrites(t testing.TB) {
	reported, harmless := 0, 0
	for _, astray := range []int64{0, 64, -64, 512, -512, 4096} {
		for i, hit := 0, "x"; hit != ""; i += sized(1, 1, 5) {
			hit = ""
			behind := 0 // writes to the same file after it
			disk := vfs.NewMem(1)
			s := &specimen{models: []model{{}}, options: specimenOptions}
			var mu sync.Mutex
			n := 0
			o := specimenOptions(vfs.Faulty(disk, func(op vfs.Op) error {
				if op.Kind != vfs.OpWrite {
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				if n++; n-1 != i {
					if op.Name == hit {
						behind++
					}
					return nil
				}
				hit = op.Name
				if astray == 0 || op.Off+astray < 0 {
					return vfs.ErrLost
				}
				return &vfs.MisdirectedError{Off: op.Off + astray}
			}))
			o.Compression = NoCompression
			at := func() string { return fmt.Sprintf("write %d astray by %d", i, astray) }
			tree, err := Open("db", o)
			if err == nil {
				from := newWriter(3, 6, 60)
				for k := 0; k < 60 && err == nil; k++ {
					b := from.batch()
					s.models = append(s.models, s.models[k].with(b))
					if err = tree.Apply(b); err == nil && k%25 == 24 {
						err = tree.Flush()
					}
				}
				tree.Close()
			}
			if err != nil {
				require.True(t, strings.Contains(err.Error(), "damaged"), "%s: %v", at(), err)
				reported++
				continue
			}
			least := len(s.models) - 1
			if strings.HasSuffix(hit, ".log") && behind == 0 {
				least -= 10 // what it hit on its way is torn with it
			}
			if s.judge(t, disk, least, at) {
				reported++
			} else {
				harmless++
			}
		}
	}
	require.Positive(t, reported)
	t.Logf("%d astray writes reported, %d harmless", reported, harmless)
}
