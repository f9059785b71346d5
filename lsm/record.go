package lsm

import "example.com/kvstore/lsm/internal/base"

// A Record is one version of one key, with the dots of the writes it holds. Scan
// and Read give them, Apply, Submit and Ingest take them. Its fields:
//
//	Token    uint64     // Token(Key), or FirstSystemToken to SystemToken
//	Key      []byte     // at most MaxKeyBytes
//	Min, Max vclock.Dot // lowest and highest dot inside; equal in plain records
//	Kind     Kind       // Value, Tombstone or Causal
//	Deadline int64      // when it expires, in Unix milliseconds; 0 is never
//	Value    []byte     // at most MaxValueBytes; of a tombstone empty
//	Newer    vclock.Dot // set by Apply and Submit where the tree may hold a dot
//	                    // above Max for this key; zero otherwise, and not stored
type Record = base.Record

// Kind says what a record is: a uint8, one of the constants.
type Kind = base.Kind

const (
	// Value is a plain value: one dot, the last writer wins.
	Value = base.Value
	// Tombstone is a plain delete.
	Tombstone = base.Tombstone
	// Causal is an encoded vclock.Set: siblings under a version vector.
	Causal = base.Causal
)

// Tokens from FirstSystemToken to SystemToken are reserved for a node's own state. To
// the tree they are tokens like any other; no key hashes to one of them.
const (
	FirstSystemToken uint64 = base.FirstSystemToken
	SystemToken      uint64 = base.SystemToken
)

// LocalActor is the actor in the dots of Put and Delete.
const LocalActor = 0

// Limits of one record and of one batch.
const (
	MaxKeyBytes   = base.MaxKeyBytes   // 64 KiB - 1
	MaxValueBytes = base.MaxValueBytes // 64 MiB
	MaxBatchBytes = 128 << 20          // keys, values and at most 72 bytes for each record
)

// Token gives the position of a key in the order of everything: its xxHash64,
// lowered to stay below FirstSystemToken.
func Token(key []byte) uint64 { return base.Token(key) }
