// Package base holds what every part of the engine shares: the record with its
// order and its encoding, the header that starts each file, checksums, file
// names, and the errors of damaged and of newer files.
package base

import (
	"bytes"

	"example.com/kvstore/vclock"
)

// Kind says what a record is.
type Kind uint8

const (
	// Value is a plain value: one dot, the last writer wins.
	Value Kind = 1
	// Tombstone is a plain delete.
	Tombstone Kind = 2
	// Causal is an encoded vclock.Set: siblings under a version vector.
	Causal Kind = 3
)

// Limits of one record. Whoever writes checks them; a decoder takes anything
// beyond as damage.
const (
	MaxKeyBytes   = 1<<16 - 1
	MaxValueBytes = 64 << 20
)

// A Record is one version of one key. Min and Max are equal for plain records;
// for causal ones they bound the dots inside.
type Record struct {
	Token    uint64
	Key      []byte
	Min, Max vclock.Dot
	Kind     Kind
	// Deadline is when the value expires, in Unix milliseconds; 0 is never.
	Deadline int64
	Value    []byte
	// Newer is set by Apply and Submit where the tree may hold a dot above the
	// record's own for this key; zero otherwise. It is not stored.
	Newer vclock.Dot
}

// Compare orders records by token, then key.
func (r *Record) Compare(token uint64, key []byte) int {
	switch {
	case r.Token < token:
		return -1
	case r.Token > token:
		return 1
	}
	return bytes.Compare(r.Key, key)
}
