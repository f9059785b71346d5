package main

import (
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// bboltEngine is bbolt with the hash-map freelist, which is not written out, and
// a mapping large enough never to be moved while readers run. Several writers
// share a transaction: a batch is committed as soon as all of them wait, or after
// about the time of a commit, not after the default 10 ms. The file is a B+ tree of uncompressed pages and has no
// log, so that an unsynced write is not even consistent after a power cut.
type bboltEngine struct {
	db      *bbolt.DB
	batches bool
}

var bucketName = []byte("bench")

func openBbolt(c config) (engine, error) {
	db, err := bbolt.Open(filepath.Join(c.dir, "bbolt"), 0o644, &bbolt.Options{
		NoFreelistSync:  true,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: 32 << 30,
		NoSync:          !c.synced,
		NoStatistics:    true,
	})
	if err != nil {
		return nil, err
	}
	db.MaxBatchSize, db.MaxBatchDelay = c.callers, 100*time.Microsecond
	if c.synced {
		db.MaxBatchDelay = time.Millisecond // about what a commit takes
	}
	e := bboltEngine{db, c.callers > 1}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketName)
		return err
	})
	if err != nil {
		db.Close()
		return nil, err
	}
	return e, nil
}

func (e bboltEngine) get(dst, key []byte) (_ []byte, found bool, err error) {
	err = e.db.View(func(tx *bbolt.Tx) error {
		value := tx.Bucket(bucketName).Get(key)
		dst, found = append(dst, value...), value != nil
		return nil
	})
	return dst, found, err
}

func (e bboltEngine) update(fn func(*bbolt.Tx) error) error {
	if e.batches {
		return e.db.Batch(fn)
	}
	return e.db.Update(fn)
}

func (e bboltEngine) put(key, value []byte) error {
	return e.update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketName).Put(key, value) })
}

func (e bboltEngine) delete(key []byte) error {
	return e.update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketName).Delete(key) })
}

func (e bboltEngine) flush() error { return nil }

func (e bboltEngine) close() error { return e.db.Close() }

func (e bboltEngine) scan(from []byte, n int, visit func(key, value []byte)) error {
	return e.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketName).Cursor()
		for key, value := c.Seek(from); key != nil && n > 0; key, value = c.Next() {
			visit(key, value)
			n--
		}
		return nil
	})
}

// load writes some ten thousand keys with each transaction.
func (e bboltEngine) load(n int, item func(i int) (key, value []byte)) error {
	const some = 10_000
	for from := 0; from < n; from += some {
		err := e.db.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketName)
			for i := from; i < min(n, from+some); i++ {
				key, value := item(i)
				// A transaction keeps the value until it commits, and copies the key.
				if err := b.Put(key, append([]byte(nil), value...)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
