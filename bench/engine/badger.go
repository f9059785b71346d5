package main

import (
	"errors"

	"github.com/dgraph-io/badger/v4"
)

// badgerEngine is Badger with its defaults, which keep values below 1 MiB in the
// tree, as one wants for small values, and compress with Snappy. Conflict
// detection is off, as nothing here reads before it writes within a transaction,
// and so are metrics. The log is a mapped file: without sync it survives a killed
// process. There is no call to flush the memtable.
type badgerEngine struct{ db *badger.DB }

func openBadger(c config) (engine, error) {
	o := badger.DefaultOptions(c.dir).
		WithSyncWrites(c.synced).
		WithMemTableSize(c.memtableBytes).
		WithBlockCacheSize(c.cacheBytes).
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithLogger(nil)
	// An entry may be an eighth of a memtable at most.
	o.ValueThreshold = min(o.ValueThreshold, c.memtableBytes/16)
	db, err := badger.Open(o)
	if err != nil {
		return nil, err
	}
	return badgerEngine{db}, nil
}

func (e badgerEngine) get(dst, key []byte) (value []byte, found bool, err error) {
	txn := e.db.NewTransaction(false)
	defer txn.Discard()
	item, err := txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return dst, false, nil
	}
	if err != nil {
		return dst, false, err
	}
	err = item.Value(func(v []byte) error { dst = append(dst, v...); return nil })
	return dst, err == nil, err
}

func (e badgerEngine) put(key, value []byte) error {
	txn := e.db.NewTransaction(true)
	defer txn.Discard()
	if err := txn.Set(key, value); err != nil {
		return err
	}
	return txn.Commit()
}

func (e badgerEngine) delete(key []byte) error {
	txn := e.db.NewTransaction(true)
	defer txn.Discard()
	if err := txn.Delete(key); err != nil {
		return err
	}
	return txn.Commit()
}

func (e badgerEngine) flush() error { return nil }
func (e badgerEngine) close() error { return e.db.Close() }

func (e badgerEngine) scan(from []byte, n int, visit func(key, value []byte)) error {
	txn := e.db.NewTransaction(false)
	defer txn.Discard()
	o := badger.DefaultIteratorOptions
	o.PrefetchSize = n
	it := txn.NewIterator(o)
	defer it.Close()
	for it.Seek(from); it.Valid() && n > 0; n-- {
		item := it.Item()
		err := item.Value(func(v []byte) error { visit(item.Key(), v); return nil })
		if err != nil {
			return err
		}
		it.Next()
	}
	return nil
}

func (e badgerEngine) load(n int, item func(i int) (key, value []byte)) error {
	b := e.db.NewWriteBatch()
	defer b.Cancel()
	for i := range n {
		key, value := item(i)
		// A batch keeps both until it is flushed.
		if err := b.Set(append([]byte(nil), key...), append([]byte(nil), value...)); err != nil {
			return err
		}
	}
	return b.Flush()
}
