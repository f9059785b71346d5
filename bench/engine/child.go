package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync/atomic"
	"time"
)

// jobVariable in the environment makes the process do one job.
const jobVariable = "KVSTORE_BENCH_JOB"

// A job is one store, opened once: to load a data set, or to run a workload.
type job struct {
	Engine   string
	Dir      string
	Load     bool
	Write    bool // until it is killed
	Workload workload
	Verify   bool
	Profile  string // file for a CPU profile
	Seed     uint64
	Quiet    time.Duration

	CacheBytes, MemtableBytes int64
}

// A result is one workload with one engine in one round.
type result struct {
	Round        int     `json:"round"`
	Workload     string  `json:"workload"`
	Engine       string  `json:"engine"`
	Error        string  `json:"error,omitempty"`
	Seconds      float64 `json:"seconds"`
	Ops          uint64  `json:"ops"`
	OpsPerSecond float64 `json:"ops_per_second"`
	P50          float64 `json:"p50_us"`
	P99          float64 `json:"p99_us"`
	P999         float64 `json:"p999_us"`
	CPU          float64 `json:"cpu_us_per_op"` // of the process, background work and garbage collection included
	Allocs       float64 `json:"allocs_per_op"`
	DeviceReads  float64 `json:"device_read_bytes_per_op"`

	// After the background work was done, for workloads that wait for it:
	Drained  float64 `json:"drained_ops_per_second,omitempty"`
	DrainCPU float64 `json:"drained_cpu_us_per_op,omitempty"`
	WriteAmp float64 `json:"write_amplification,omitempty"` // bytes to the device for each byte of keys and values

	// Space for each byte of live keys and values: all files, and tables alone; at
	// the end, and the worst of the samples.
	Space       float64 `json:"space_amplification"`
	Tables      float64 `json:"table_space"`
	TablesWorst float64 `json:"table_space_worst"`

	// Resident memory: the highest, less what the process had before it opened
	// the store, mapped files included; and the highest sample without files.
	PeakRSS      float64 `json:"peak_rss_bytes"`
	AnonymousRSS float64 `json:"anonymous_rss_bytes"`
	MemoryBudget float64 `json:"memory_budget_bytes,omitempty"` // what the engine promises for all its memory

	OpenSeconds  float64   `json:"open_seconds"`
	CloseSeconds float64   `json:"close_seconds"`
	Capped       bool      `json:"capped,omitempty"`     // a fill that ended early
	Samples      []float64 `json:"samples,omitempty"`    // ops/s of each half second
	Steadiness   float64   `json:"steadiness,omitempty"` // the worst sample by their median
}

// ofBudget is the share of the budget that was used, 0 for an engine without one.
func (r result) ofBudget() float64 {
	if r.MemoryBudget == 0 {
		return 0
	}
	return r.PeakRSS / r.MemoryBudget
}

// runAsChild does a job if the process was started for one.
func runAsChild() bool {
	text := os.Getenv(jobVariable)
	if text == "" {
		return false
	}
	var j job
	err := json.Unmarshal([]byte(text), &j)
	if err == nil {
		var r result
		if r, err = j.run(); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(r)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

func (j job) run() (result, error) {
	p, err := peerNamed(j.Engine)
	if err != nil {
		return result{}, err
	}
	if err := os.MkdirAll(j.Dir, 0o755); err != nil {
		return result{}, err
	}
	switch {
	case j.Load:
		return result{}, j.load(p)
	case j.Write:
		return result{}, j.writeUntilKilled(p)
	case j.Workload.Reopen:
		return j.reopen(p)
	}
	return j.measure(p)
}

func (j job) open(p peer) (engine, error) {
	return p.open(config{dir: j.Dir, synced: j.Workload.Synced, callers: j.Workload.Callers,
		cacheBytes: j.CacheBytes, memtableBytes: j.MemtableBytes})
}

// load makes a data set and leaves no background work to do.
func (j job) load(p peer) error {
	e, err := j.open(p)
	if err != nil {
		return err
	}
	w := j.Workload
	if l, ok := e.(loader); ok {
		key, value := make([]byte, keyBytes), make([]byte, w.ValueBytes)
		err = l.load(int(w.Keys), func(i int) ([]byte, []byte) {
			putKey(key, uint64(i))
			putValue(value, uint64(i), 0)
			return key, value
		})
	} else {
		_, err = drive(e, workload{Fill: true, ValueBytes: w.ValueBytes, Callers: w.Callers, Ops: w.Keys}, driveOptions{})
	}
	if err == nil {
		_, err = j.drain(e, func() uint64 { n, _ := diskBytes(j.Dir, nil); return n })
	}
	return errors.Join(err, e.close())
}

func (j job) measure(p peer) (r result, err error) {
	w := j.Workload
	r = result{Workload: w.Name, Engine: j.Engine}
	d := driveOptions{seed: j.Seed, verify: j.Verify}
	if w.Draw == "zipf" || w.Draw == "latest" {
		d.zipf = newZipf(w.Keys)
	}
	if !w.Cold {
		if err := readPages(j.Dir); err != nil {
			return r, err
		}
	}
	runtime.GC()
	base, _ := resident()
	began := time.Now()
	e, err := j.open(p)
	if err != nil {
		return r, err
	}
	defer func() {
		if e != nil {
			err = errors.Join(err, e.close())
		}
	}()
	r.OpenSeconds = time.Since(began).Seconds()
	if w.Cold { // now, as some engines read much when they open
		if err := dropPages(j.Dir); err != nil {
			return r, err
		}
	}
	if w.Warm > 0 {
		warm := w
		warm.Time = w.Warm
		d.seed++
		dry, err := drive(e, warm, d)
		if err != nil {
			return r, err
		}
		d.inserted = dry.inserted
		d.seed++
	}
	if j.Profile != "" {
		f, err := os.Create(j.Profile)
		if err != nil {
			return r, err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return r, err
		}
		defer pprof.StopCPUProfile()
	}

	s := startSampler(j.Dir, p.logs)
	d.done = make([]counter, w.Callers)
	s.watch(d.done)
	before := snapshot()
	n, err := drive(e, w, d)
	after := snapshot()
	s.stop()
	if err != nil {
		return r, err
	}
	ops := float64(max(n.tally.count(), 1))
	r.Ops, r.Seconds = n.tally.count(), n.took.Seconds()
	r.OpsPerSecond = ops / r.Seconds
	r.P50, r.P99, r.P999 = n.tally.quantile(0.50), n.tally.quantile(0.99), n.tally.quantile(0.999)
	r.CPU = micros(after.cpu-before.cpu) / ops
	r.Allocs = float64(after.mallocs-before.mallocs) / ops
	r.DeviceReads = float64(after.read-before.read) / ops
	r.Capped = w.Fill && w.Ops > 0 && r.Ops < w.Ops
	if w.Samples && len(s.rates) > 0 {
		r.Samples = s.rates
		r.Steadiness = slices.Min(r.Samples) / max(median(r.Samples), 1)
	}
	if w.Drain {
		took, err := j.drain(e, s.disk)
		if err != nil {
			return r, err
		}
		end := snapshot()
		r.Drained = ops / (n.took + took).Seconds()
		r.DrainCPU = micros(end.cpu-before.cpu) / ops
		r.WriteAmp = float64(end.written-before.written) / float64(max(n.userBytes, 1))
	}
	live := w.Keys
	for _, i := range n.inserted {
		live += i
	}
	if w.Fill {
		live = r.Ops
	}
	liveBytes := float64(max(live, 1)) * float64(keyBytes+w.ValueBytes)
	all, tables := diskBytes(j.Dir, p.logs)
	s.note(tables)
	r.Space, r.Tables, r.TablesWorst = float64(all)/liveBytes, float64(tables)/liveBytes, float64(s.worst)/liveBytes
	peak, _ := resident()
	r.PeakRSS, r.AnonymousRSS = float64(peak)-float64(base), float64(s.anonymous)
	if b, ok := e.(budgeted); ok {
		r.MemoryBudget = float64(b.memoryBudget())
	}

	began = time.Now()
	err, e = e.close(), nil
	r.CloseSeconds = time.Since(began).Seconds()
	if err == nil && j.Verify {
		err = j.verify(p, n)
	}
	return r, err
}

// verify opens the store again and compares every key that it must have.
func (j job) verify(p peer, n driven) (err error) {
	e, err := j.open(p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	w := j.Workload
	v := verifier{e: e, valueBytes: w.ValueBytes}
	for i := range max(w.Keys, n.filled) { // one of them is 0
		if err := v.check(i); err != nil {
			return err
		}
	}
	s := keyspace{keys: w.Keys, callers: uint64(w.Callers)}
	for c, inserted := range n.inserted {
		s.caller = uint64(c)
		for i := range inserted {
			if err := v.check(s.insertion(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxDrain bounds the wait for background work.
const maxDrain = 10 * time.Minute

// drain has the engine flush and waits until the process does nothing: what
// background work is, and when it is over, is the same for every engine. It gives
// the time until the process last did something. Files that are still being
// deleted are waited for too, but deleting is not work.
func (j job) drain(e engine, disk func() uint64) (time.Duration, error) {
	began := time.Now()
	if err := e.flush(); err != nil {
		return 0, err
	}
	const (
		polls     = 5
		busyShare = 0.10      // of one CPU
		busyBytes = 256 << 10 // written between two polls
	)
	poll := j.Quiet / polls
	busy, changed := time.Now(), time.Now()
	cpu, size := cpuTime(), disk()
	_, written := deviceBytes()
	for time.Since(changed) < j.Quiet {
		if time.Since(began) > maxDrain {
			return 0, fmt.Errorf("the background work did not end within %v", maxDrain)
		}
		time.Sleep(poll)
		now := time.Now()
		nowSize := disk()
		_, nowWritten := deviceBytes()
		nowCPU := cpuTime()
		if float64(nowCPU-cpu) > busyShare*float64(poll) || nowWritten-written > busyBytes {
			busy, changed = now, now
		}
		if nowSize != size {
			changed = now
		}
		cpu, size, written = nowCPU, nowSize, nowWritten
	}
	return busy.Sub(began), nil
}

// counters only grow; the difference of two snapshots belongs to what ran between.
type counters struct {
	cpu           time.Duration
	mallocs       uint64
	read, written uint64
}

func snapshot() counters {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	c := counters{cpu: cpuTime(), mallocs: mem.Mallocs}
	c.read, c.written = deviceBytes()
	return c
}

// A counter has a cache line of its own.
type counter struct {
	atomic.Uint64
	_ [56]byte
}

func micros(d time.Duration) float64 { return float64(d) / 1e3 }

func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}
