package main

import (
	"errors"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// goleveldbEngine is goleveldb with Bloom filters of 10 bits per key (it has
// none by default), and with sizes raised from those of 2011: memtables and cache
// as everybody's here, tables of 8 MiB, a first level that takes a memtable, and
// files that stay open. Without sync every write still goes to the file at once.
// There is no call to flush the memtable.
type goleveldbEngine struct {
	db    *leveldb.DB
	write *opt.WriteOptions
}

func openGoleveldb(c config) (engine, error) {
	db, err := leveldb.OpenFile(c.dir, &opt.Options{
		Filter:                 filter.NewBloomFilter(10),
		WriteBuffer:            int(c.memtableBytes),
		BlockCacheCapacity:     int(c.cacheBytes),
		CompactionTableSize:    8 << 20,
		CompactionTotalSize:    max(int(c.memtableBytes), 10<<20),
		OpenFilesCacheCapacity: 4096,
	})
	if err != nil {
		return nil, err
	}
	return goleveldbEngine{db, &opt.WriteOptions{Sync: c.synced}}, nil
}

func (e goleveldbEngine) get(dst, key []byte) ([]byte, bool, error) {
	value, err := e.db.Get(key, nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		return dst, false, nil
	}
	return append(dst, value...), err == nil, err
}

func (e goleveldbEngine) put(key, value []byte) error { return e.db.Put(key, value, e.write) }
func (e goleveldbEngine) delete(key []byte) error     { return e.db.Delete(key, e.write) }
func (e goleveldbEngine) flush() error                { return nil }
func (e goleveldbEngine) close() error                { return e.db.Close() }

func (e goleveldbEngine) scan(from []byte, n int, visit func(key, value []byte)) error {
	it := e.db.NewIterator(&util.Range{Start: from}, nil)
	defer it.Release()
	for ; n > 0 && it.Next(); n-- {
		visit(it.Key(), it.Value())
	}
	return it.Error()
}
