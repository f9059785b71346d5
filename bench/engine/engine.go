package main

import (
	"errors"
	"fmt"
	"strings"
)

// An engine is a store under test. Its methods are for any goroutine. A write is
// as durable on return as config.synced says. Keys and values are the caller's
// to reuse after the call.
type engine interface {
	// get appends the value to dst.
	get(dst, key []byte) (value []byte, found bool, err error)
	put(key, value []byte) error
	delete(key []byte) error
	// flush starts writing what is only in memory and the log to tables, where
	// the engine has such a call.
	flush() error
	close() error
}

// A scanner is an engine whose keys are ordered: visit gets up to n values of
// the keys from a key on. kvstore's tree orders keys by their hash and pogreb
// does not order them at all; neither can scan a range of keys.
type scanner interface {
	scan(from []byte, n int, visit func(key, value []byte)) error
}

// A budgeted engine keeps its memory below so many bytes.
type budgeted interface{ memoryBudget() int64 }

// A loader is an engine that has a quicker way to write many keys at once.
type loader interface {
	load(n int, item func(i int) (key, value []byte)) error
}

// A config is what every adapter translates into the options of its engine. All
// engines get the same memory.
type config struct {
	dir           string
	synced        bool  // a write is durable when it returns
	cacheBytes    int64 // for blocks or records, where the engine has a cache
	memtableBytes int64 // where it has memtables
	callers       int   // goroutines that will write at once
}

// A peer is one row of the register of engines.
type peer struct {
	name string
	open func(config) (engine, error)
	// logs are the suffixes of the files that are not tables: what is in them is
	// in a table as well, or soon will be, or they keep space free.
	logs  []string
	scans bool // it is a scanner
	// extra engines run only when named.
	extra bool
}

// ours is the engine that the others are compared with.
const ours = "kvstore"

var peers = []peer{
	{name: ours, open: openKvstore, logs: []string{".log", "reserve"}},
	{name: "pebble", open: openPebble, scans: true, logs: []string{".log"}},
	{name: "badger", open: openBadger, scans: true, logs: []string{".mem", ".vlog"}},
	{name: "goleveldb", open: openGoleveldb, scans: true, logs: []string{".log"}},
	{name: "bbolt", open: openBbolt, scans: true},
	{name: "pogreb", open: openPogreb},
	{name: "pebble-blobs", open: openPebbleBlobs, scans: true, logs: []string{".log"}, extra: true},
	{name: "nothing", open: openNothing, extra: true},
}

func peerNames() []string {
	var names []string
	for _, p := range peers {
		names = append(names, p.name)
	}
	return names
}

func peerNamed(name string) (peer, error) {
	for _, p := range peers {
		if p.name == name {
			return p, nil
		}
	}
	return peer{}, fmt.Errorf("no engine %q; there are %s", name, strings.Join(peerNames(), ", "))
}

// chosenPeers gives the engines of a comma-separated list, or all that are not extra.
func chosenPeers(list string) ([]peer, error) {
	var some []peer
	if list == "" {
		for _, p := range peers {
			if !p.extra {
				some = append(some, p)
			}
		}
		return some, nil
	}
	for name := range strings.SplitSeq(list, ",") {
		p, err := peerNamed(name)
		if err != nil {
			return nil, err
		}
		some = append(some, p)
	}
	return some, nil
}

// nothing is an engine that does nothing: its row is what the measurement itself
// costs. Reads find an empty value, so that it cannot be verified.
type nothing struct{}

func openNothing(config) (engine, error) { return nothing{}, nil }

func (nothing) get(dst, _ []byte) ([]byte, bool, error) { return dst, true, nil }
func (nothing) put(_, _ []byte) error                   { return nil }
func (nothing) delete([]byte) error                     { return nil }
func (nothing) flush() error                            { return nil }
func (nothing) close() error                            { return nil }

// errNoScan is what a workload with scans gives for an engine without.
var errNoScan = errors.New("not applicable: the engine cannot scan a range of keys")
