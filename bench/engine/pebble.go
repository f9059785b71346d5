package main

import (
	"errors"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

// pebbleEngine is Pebble with the settings of its authors' own benchmark
// (cmd/pebble) and of CockroachDB: newest format, 64 MiB memtables of which four
// may wait, compaction from two sublevels of L0 on, writes hardly ever stopped,
// Bloom filters of 10 bits per key. Unlike there, blocks have the default 4 KiB
// instead of 32 KiB, all levels have filters, and as many compactions may run as
// there are CPUs: better for point reads, and for keys that are absent.
type pebbleEngine struct {
	db    *pebble.DB
	write *pebble.WriteOptions
}

func openPebble(c config) (engine, error) { return openPebbleWith(c, false) }

// openPebbleBlobs adds the separation of values from 512 B on, which is
// experimental and off by default; the authors' benchmark has it.
func openPebbleBlobs(c config) (engine, error) { return openPebbleWith(c, true) }

func openPebbleWith(c config, blobs bool) (engine, error) {
	o := &pebble.Options{
		CacheSize:                   c.cacheBytes,
		FormatMajorVersion:          pebble.FormatNewest,
		L0CompactionThreshold:       2,
		L0StopWritesThreshold:       1000,
		LBaseMaxBytes:               64 << 20,
		MaxOpenFiles:                16384,
		MemTableSize:                uint64(c.memtableBytes),
		MemTableStopWritesThreshold: 4,
		CompactionConcurrencyRange:  func() (int, int) { return 1, max(2, runtime.NumCPU()) },
		Logger:                      silentPebble{},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	if blobs {
		o.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
			return pebble.ValueSeparationPolicy{Enabled: true, MinimumSize: 512, MaxBlobReferenceDepth: 10,
				RewriteMinimumAge: 5 * time.Minute, TargetGarbageRatio: 0.2}
		}
	}
	db, err := pebble.Open(c.dir, o)
	if err != nil {
		return nil, err
	}
	e := &pebbleEngine{db, pebble.NoSync}
	if c.synced {
		e.write = pebble.Sync
	}
	return e, nil
}

func (e *pebbleEngine) get(dst, key []byte) ([]byte, bool, error) {
	value, closer, err := e.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return dst, false, nil
	}
	if err != nil {
		return dst, false, err
	}
	dst = append(dst, value...)
	return dst, true, closer.Close()
}

func (e *pebbleEngine) put(key, value []byte) error { return e.db.Set(key, value, e.write) }
func (e *pebbleEngine) delete(key []byte) error     { return e.db.Delete(key, e.write) }
func (e *pebbleEngine) flush() error                { return e.db.Flush() }
func (e *pebbleEngine) close() error                { return e.db.Close() }

func (e *pebbleEngine) scan(from []byte, n int, visit func(key, value []byte)) error {
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: from})
	if err != nil {
		return err
	}
	for ok := it.First(); ok && n > 0; ok, n = it.Next(), n-1 {
		value, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(err, it.Close())
		}
		visit(it.Key(), value)
	}
	return it.Close()
}

// silentPebble drops what Pebble tells while it runs, except what ends it.
type silentPebble struct{}

func (silentPebble) Infof(string, ...any)              {}
func (silentPebble) Errorf(string, ...any)             {}
func (silentPebble) Fatalf(format string, args ...any) { pebble.DefaultLogger.Fatalf(format, args...) }
