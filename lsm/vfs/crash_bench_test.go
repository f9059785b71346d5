package vfs_test

import (
	"fmt"
	"testing"

	"example.com/kvstore/lsm/vfs"
)

// BenchmarkCrash is one power cut of a directory of 20 files, in the middle of a
// write to a log of the given size that was synced before.
func BenchmarkCrash(b *testing.B) {
	for _, mib := range []int{1, 64} {
		b.Run(fmt.Sprintf("log=%dMiB", mib), func(b *testing.B) {
			m := vfs.NewMem(1)
			for i := range 20 {
				durable(b, m, fmt.Sprint("f", i), "some content")
			}
			log := durable(b, m, "log", string(make([]byte, mib<<20)))
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				write(b, log, "a group of the log", int64(i*100%(mib<<20-100)))
				m.Crash(uint64(i))
				log.SyncData()
				i++
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "points/s")
		})
	}
}

// BenchmarkCrashEach is a run of 200 synced appends with a power cut, and its
// recovery, before each operation.
func BenchmarkCrashEach(b *testing.B) {
	points := 0
	for b.Loop() {
		m := vfs.NewMem(1)
		newJournal(vfs.Faulty(m, vfs.CrashEach(m, 1, func(_ vfs.Op, disk *vfs.Mem) {
			recovered(b, disk)
			points++
		}))).run(200)
	}
	b.ReportMetric(float64(points)/b.Elapsed().Seconds(), "points/s")
}

func BenchmarkMemWriteSync(b *testing.B) {
	f := durable(b, vfs.NewMem(1), "log", string(make([]byte, 16<<20)))
	p := make([]byte, 200)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f.WriteAt(p, int64(i*200%(15<<20)))
		f.SyncData()
	}
}
