//go:build unix

package lsm

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestManyKeys fills a tree on a real disk with KVSTORE_KEYS keys of 16 bytes with
// values of 100, reads a sample, and prints what a key costs beside a tree of at
// most 5,000,000 keys that was made in the same run. The memory of the process stays
// within the budget and 15 percent. Torture has 5,000,000 keys unless KVSTORE_KEYS is
// set: 200,000,000 take about 25 GB of disk and hours.
func TestManyKeys(t *testing.T) {
	keys := sized(5_000_000, 20_000, 20_000)
	if s := os.Getenv("KVSTORE_KEYS"); s != "" {
		n, err := strconv.Atoi(s)
		require.NoError(t, err)
		keys = n
	}
	if keys > 5_000_000 {
		manyKeys(t, 5_000_000)
	}
	manyKeys(t, keys)
}

// manyKey gives the i-th key and value; half of the value is random. Keys come in
// no order of theirs.
func manyKey(dst []byte, i uint64) (key, value []byte) {
	r := rand.NewPCG(i, 1)
	dst = fmt.Appendf(dst[:0], "%016x", r.Uint64())
	for range 6 {
		dst = binary.LittleEndian.AppendUint64(dst, r.Uint64())
	}
	return dst[:16], append(dst, "half of what services store looks like this, again.."...)[16:]
}

func manyKeys(t *testing.T, n int) {
	const writers = 4
	// Room for the indexes and filters of all tables: without, a read reads them again.
	o := &Options{Sync: SyncEvery(time.Second), MemoryBytes: 512<<20 + 4*int64(n)}
	memory := watchMemory()
	tree, err := Open(t.TempDir(), o)
	require.NoError(t, err)
	defer tree.Close()
	each := func(n int, do func(i uint64, buf []byte) error) (cpu, wall time.Duration) {
		began, spent := time.Now(), spentCPU(t)
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				buf := make([]byte, 0, 256)
				for i := w; i < n; i += writers {
					if err := do(uint64(i), buf); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		return (spentCPU(t) - spent) / time.Duration(n), time.Since(began) / time.Duration(n)
	}
	put, putWall := each(n, func(i uint64, buf []byte) error {
		key, value := manyKey(buf, i)
		return tree.Put(key, value)
	})
	require.NoError(t, tree.Flush())
	sample := min(n, 1_000_000)
	stride := uint64(n/sample)*2 + 1 // an odd step meets all parts
	get, getWall := each(sample, func(i uint64, buf []byte) error {
		key, want := manyKey(buf, i*stride%uint64(n))
		got, ok, err := tree.AppendGet(make([]byte, 0, 128), key)
		if err == nil && (!ok || string(got) != string(want)) {
			err = fmt.Errorf("key %s: %x %v, want %x", key, got, ok, want)
		}
		return err
	})
	absent, _ := each(sample, func(i uint64, buf []byte) error {
		key, _ := manyKey(buf, math.MaxUint64-i)
		_, ok, err := tree.AppendGet(nil, key)
		if ok {
			err = fmt.Errorf("key %s was never written", key)
		}
		return err
	})
	m := tree.Metrics()
	grown := memory()
	t.Logf("%d keys: put %v CPU, %v wall; get %v CPU, %v wall; absent %v CPU; %.1f bytes of tables and %.1f of memory for their indexes and filters a key, write amplification %.2f; budget %d kB, memory at most %d kB above that before, %s",
		n, put, putWall, get, getWall, absent, float64(m.TableBytes)/float64(n), float64(m.MetadataBytes)/float64(n), m.WriteAmplification(), o.MemoryBytes>>10, grown>>10, memoryOfProcess())
	require.LessOrEqual(t, grown, o.MemoryBytes+o.MemoryBytes*15/100)
	require.NoError(t, tree.Close())
}

// spentCPU is the time of all processors that this process has used.
func spentCPU(t *testing.T) time.Duration {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// watchMemory looks at the anonymous memory of the process until the function that it
// gives is called, which gives by how much it grew at most. It is 0 where the system
// does not tell.
func watchMemory() (grown func() int64) {
	debug.FreeOSMemory()
	before, peak := anonymous(), int64(0)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			peak = max(peak, anonymous())
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	return func() int64 {
		close(stop)
		<-stopped
		return peak - before
	}
}

// anonymous is the memory of the process that is no file's.
func anonymous() (kb int64) {
	for line := range strings.Lines(status()) {
		if n, err := fmt.Sscanf(line, "RssAnon: %d kB", &kb); n == 1 && err == nil {
			return kb << 10
		}
	}
	return 0
}

func status() string {
	b, _ := os.ReadFile("/proc/self/status")
	return string(b)
}

// memoryOfProcess gives the peak and the anonymous part, where the system tells.
func memoryOfProcess() string {
	var out []string
	for line := range strings.Lines(status()) {
		if strings.HasPrefix(line, "VmHWM") || strings.HasPrefix(line, "RssAnon") {
			out = append(out, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(out, ", ")
}
