package main

import (
	"io"
	"log"
	"time"

	"github.com/akrylysov/pogreb"
)

// pogrebEngine is pogreb with its default mapped files, synced every second as
// kvstore is, or with every write, and compacted in the background every ten
// seconds, without which overwritten values are never given back. It is a hash
// index over a log: it has neither memtables nor a cache of its own, nor a group
// commit, and compresses nothing.
type pogrebEngine struct{ db *pogreb.DB }

func openPogreb(c config) (engine, error) {
	pogreb.SetLogger(log.New(io.Discard, "", 0))
	o := &pogreb.Options{BackgroundSyncInterval: time.Second, BackgroundCompactionInterval: 10 * time.Second}
	if c.synced {
		o.BackgroundSyncInterval = -1
	}
	db, err := pogreb.Open(c.dir, o)
	if err != nil {
		return nil, err
	}
	return pogrebEngine{db}, nil
}

func (e pogrebEngine) get(dst, key []byte) ([]byte, bool, error) {
	value, err := e.db.Get(key)
	return append(dst, value...), value != nil, err
}

func (e pogrebEngine) put(key, value []byte) error { return e.db.Put(key, value) }
func (e pogrebEngine) delete(key []byte) error     { return e.db.Delete(key) }
func (e pogrebEngine) flush() error                { return nil }
func (e pogrebEngine) close() error                { return e.db.Close() }
