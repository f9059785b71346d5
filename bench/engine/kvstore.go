package main

import (
	"time"

	"example.com/kvstore/lsm"
)

// kvstoreEngine is package lsm of this repository, with its defaults. Without
// sync its log is written at once and synced every second, which promises more
// than the unsynced modes of most peers: they sync when a segment ends, or never.
type kvstoreEngine struct{ t *lsm.Tree }

func openKvstore(c config) (engine, error) {
	o := &lsm.Options{MemtableBytes: c.memtableBytes, CacheBytes: c.cacheBytes}
	if !c.synced {
		o.Sync = lsm.SyncEvery(time.Second)
	}
	t, err := lsm.Open(c.dir, o)
	if err != nil {
		return nil, err
	}
	return kvstoreEngine{t}, nil
}

func (e kvstoreEngine) get(dst, key []byte) ([]byte, bool, error) { return e.t.AppendGet(dst, key) }
func (e kvstoreEngine) put(key, value []byte) error               { return e.t.Put(key, value) }
func (e kvstoreEngine) delete(key []byte) error                   { return e.t.Delete(key) }
func (e kvstoreEngine) flush() error                              { return e.t.Flush() }
func (e kvstoreEngine) memoryBudget() int64                       { return e.t.Metrics().MemoryBudget }
func (e kvstoreEngine) close() error                              { return e.t.Close() }
