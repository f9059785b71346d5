package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// machine is the engine of the rows that say what the machine can do at best.
const machine = "machine"

const (
	floorFile = 8 << 20   // written before its blocks are written again and synced
	floorRead = 256 << 20 // at most
)

// measureFloor measures a bare synced write of one block, one after the other, on
// a file whose blocks are all there, and a sequential read from the device. The
// rate of the read is in MiB.
func measureFloor(dir string, d time.Duration, size int64) ([]result, error) {
	name := filepath.Join(dir, "floor")
	defer os.Remove(name)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	syncs, err := floorSyncs(f, d)
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	read, err := floorReads(f, size)
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	return []result{syncs, read}, nil
}

func floorSyncs(f *os.File, d time.Duration) (result, error) {
	r := result{Workload: "floor/fdatasync", Engine: machine}
	for off := int64(0); off < floorFile; off += poolBytes {
		if _, err := f.WriteAt(pool, off); err != nil {
			return r, err
		}
	}
	if err := f.Sync(); err != nil {
		return r, err
	}
	var t tally
	start := time.Now()
	for began := time.Duration(0); began < d; {
		off := int64(t.count()) * 4096 % floorFile
		if _, err := f.WriteAt(pool[:4096], off); err != nil {
			return r, err
		}
		if err := syncData(f); err != nil {
			return r, err
		}
		ended := time.Since(start)
		t.add(ended - began)
		began = ended
	}
	r.Ops, r.Seconds = t.count(), time.Since(start).Seconds()
	r.OpsPerSecond = float64(r.Ops) / r.Seconds
	r.P50, r.P99, r.P999 = t.quantile(0.50), t.quantile(0.99), t.quantile(0.999)
	return r, nil
}

func floorReads(f *os.File, size int64) (result, error) {
	r := result{Workload: "floor/sequential-read MiB", Engine: machine}
	for off := int64(0); off < size; off += poolBytes {
		if _, err := f.WriteAt(pool, off); err != nil {
			return r, err
		}
	}
	if err := dropFile(f.Name()); err != nil {
		return r, err
	}
	buf := make([]byte, 1<<20)
	start := time.Now()
	for off := int64(0); off < size; off += int64(len(buf)) {
		if _, err := f.ReadAt(buf, off); err != nil && !errors.Is(err, io.EOF) {
			return r, err
		}
	}
	r.Ops, r.Seconds = uint64(size)>>20, time.Since(start).Seconds()
	r.OpsPerSecond = float64(r.Ops) / r.Seconds
	return r, nil
}
