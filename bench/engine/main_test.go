package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain makes the test's own binary a child where the benchmark would.
func TestMain(m *testing.M) {
	if runAsChild() {
		return
	}
	os.Exit(m.Run())
}

// Every adapter must do what the benchmark takes for granted.
func TestAdapters(t *testing.T) {
	for _, p := range peers {
		if p.name == "nothing" {
			continue
		}
		for _, synced := range []bool{true, false} {
			name := p.name + "/unsynced"
			if synced {
				name = p.name + "/synced"
			}
			t.Run(name, func(t *testing.T) { testAdapter(t, p, synced) })
		}
	}
}

func testAdapter(t *testing.T, p peer, synced bool) {
	const keys, size = 200, 100
	c := config{dir: t.TempDir(), synced: synced, callers: 1, cacheBytes: 1 << 20, memtableBytes: 1 << 20}
	e, err := p.open(c)
	require.NoError(t, err)
	key, value, scratch := make([]byte, keyBytes), make([]byte, size), make([]byte, size)
	write := func(i, seed uint64) {
		putKey(key, i)
		putValue(value, i, seed)
		require.NoError(t, e.put(key, value))
		clear(value) // is ours again
	}
	for i := range uint64(keys) {
		write(i, 0)
	}
	for i := uint64(0); i < keys; i += 2 {
		write(i, i+1) // an older value must not show
	}
	for i := uint64(0); i < keys; i += 10 {
		putKey(key, i)
		require.NoError(t, e.delete(key))
	}
	check := func() {
		t.Helper()
		for i := range uint64(keys) {
			putKey(key, i)
			got, found, err := e.get([]byte("before"), key)
			require.NoError(t, err)
			require.Equal(t, i%10 != 0, found, "key %d", i)
			require.Equal(t, "before", string(got[:6]), "get appends")
			if !found {
				continue
			}
			require.True(t, validValue(got[6:], i, size, scratch), "key %d", i)
			seed := uint64(0)
			if i%2 == 0 {
				seed = i + 1
			}
			putValue(value, i, seed)
			require.Equal(t, value, got[6:])
		}
		putKey(key, absentKeys)
		_, found, err := e.get(nil, key)
		require.NoError(t, err)
		require.False(t, found)
	}
	check()
	require.NoError(t, e.flush())
	check()
	require.NoError(t, e.close())
	e, err = p.open(c)
	require.NoError(t, err)
	check()

	s, ok := e.(scanner)
	require.Equal(t, p.scans, ok, "the register must know")
	if ok {
		var want, got []string
		for i := range uint64(keys) {
			if i%10 != 0 {
				putKey(key, i)
				want = append(want, string(key))
			}
		}
		slices.Sort(want)
		require.NoError(t, s.scan([]byte(want[100]), 50, func(k, v []byte) {
			got = append(got, string(k))
			require.Len(t, v, size)
		}))
		require.Equal(t, want[100:150], got)
		got = nil
		require.NoError(t, s.scan([]byte(want[len(want)-3]), 50, func(k, _ []byte) { got = append(got, string(k)) }))
		require.Equal(t, want[len(want)-3:], got, "the end of the keys ends a scan")
	}
	if l, ok := e.(loader); ok {
		require.NoError(t, l.load(keys, func(i int) ([]byte, []byte) {
			putKey(key, keys+uint64(i))
			putValue(value, keys+uint64(i), 0)
			return key, value
		}))
		v := verifier{e: e, valueBytes: size}
		for i := range uint64(keys) {
			require.NoError(t, v.check(keys+i))
		}
	}
	require.NoError(t, e.close())
}

// tiny is a profile that shows that everything runs.
var tiny = profile{rounds: 1, time: 30 * time.Millisecond, warm: 5 * time.Millisecond, overwrite: 600 * time.Millisecond, limit: time.Second,
	quiet: 20 * time.Millisecond, keys: 2_000, many: 3_000, most: 4_000, fillBytes: 1 << 20, bigBytes: 1 << 20, cacheBytes: 1 << 20, memtableBytes: 1 << 20}

// Every workload runs with our engine, and all its answers are right, also after
// it was closed and opened again.
func TestRound(t *testing.T) {
	out := filepath.Join(t.TempDir(), "results", "tiny")
	o := options{profile: tiny, dir: t.TempDir(), engines: "kvstore,bbolt", verify: true, out: out}
	results, err := measure(t.Context(), o)
	require.NoError(t, err)
	var scanned []string
	for _, r := range results {
		if r.Workload == "ycsb/E" && r.Engine == ours {
			require.Equal(t, errNoScan.Error(), r.Error)
			continue
		}
		require.Empty(t, r.Error)
		require.NotZero(t, r.Ops, r.Workload)
		if r.Workload == "ycsb/E" {
			scanned = append(scanned, r.Engine)
		}
		if drains(r.Workload) {
			require.NotZero(t, r.Drained)
			require.LessOrEqual(t, r.Drained, r.OpsPerSecond)
			require.NotZero(t, r.Tables)
		}
	}
	require.Equal(t, []string{"bbolt"}, scanned)
	left, err := os.ReadDir(o.dir)
	require.NoError(t, err)
	require.Empty(t, left, "the stores are removed")

	report := tabulate(results)
	require.Contains(t, report, "| fill-drained/8KiB-16 ")
	again, err := readResults([]string{out + ".jsonl", out + ".jsonl"})
	require.NoError(t, err)
	require.Equal(t, results, again[:len(results)])
	require.Equal(t, 2*tiny.rounds, again[len(again)-1].Round)
	require.NoError(t, save(out, results, report))
	for family, svg := range plots(results) {
		file, err := os.Open(out + "-" + family + ".svg")
		require.NoError(t, err)
		defer file.Close()
		require.NoError(t, wellFormed(file), "%s: %s", family, svg)
	}
	require.FileExists(t, out+"-overwrite-over-time.svg")
}

func wellFormed(r io.Reader) error {
	for d := xml.NewDecoder(r); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// A wrong answer fails the run: the benchmark of a broken engine has no result.
func TestLies(t *testing.T) {
	w := workload{Reads: 100, Draw: "uniform", Keys: 100, ValueBytes: 100, Callers: 2, Time: time.Second}
	_, err := drive(nothing{}, w, driveOptions{verify: true})
	require.ErrorContains(t, err, "wrong value")
	w.Draw = "absent"
	_, err = drive(nothing{}, w, driveOptions{})
	require.ErrorContains(t, err, "found is true")
}

// The zipfian draw is as frequent as its definition says.
func TestZipf(t *testing.T) {
	const n, draws = 1000, 200_000
	z := newZipf(n)
	rng := rand.New(rand.NewPCG(1, 2))
	count := make([]float64, n)
	for range draws {
		count[z.rank(rng)]++
	}
	require.InEpsilon(t, draws/z.zetan, count[0], 0.05)
	tenth := 0.0
	for _, c := range count[:n/10] {
		tenth += c
	}
	require.InDelta(t, 0.69, tenth/draws, 0.02)
}

// A caller never draws a key as latest that it has not seen written.
func TestLatest(t *testing.T) {
	s := keyspace{draw: "latest", rng: rand.New(rand.NewPCG(1, 2)), zipf: newZipf(100), keys: 100, caller: 3, callers: 8}
	written := map[uint64]bool{}
	for i := range uint64(100) {
		written[i] = true
	}
	for range 200 {
		require.True(t, written[s.next()])
		i := s.insert()
		require.False(t, written[i])
		written[i] = true
	}
}

// The quantiles of a tally are those of the sorted list, within a bucket.
func TestQuantiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var all []time.Duration
	var a, b tally
	for i := range 10_000 {
		d := time.Duration(rng.Int64N(1 << rng.IntN(40)))
		all = append(all, d)
		if i%2 == 0 {
			a.add(d)
		} else {
			b.add(d)
		}
	}
	a.merge(&b)
	require.EqualValues(t, len(all), a.count())
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.99, 0.999} {
		want, got := micros(all[int(q*float64(len(all)))]), a.quantile(q)
		require.LessOrEqual(t, got, want)
		require.LessOrEqual(t, want-got, want/subBuckets, "quantile %v", q)
	}
}

// Holes stay holes, and everything else is the same.
func TestCopyFiles(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.MkdirAll(filepath.Join(from, "sub"), 0o755))
	f, err := os.Create(filepath.Join(from, "sub", "file"))
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("middle"), 5<<20)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(9<<20))
	require.NoError(t, f.Close())
	require.NoError(t, copyFiles(to, from))
	want, err := os.ReadFile(filepath.Join(from, "sub", "file"))
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(to, "sub", "file"))
	require.NoError(t, err)
	require.True(t, string(want) == string(got))
	all, _ := diskBytes(to, nil)
	require.Less(t, all, uint64(2<<20))
}
