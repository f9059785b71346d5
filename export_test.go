package kvstore

import "example.com/kvstore/ring"

// Defences are for the simulations to switch off.
var Defences = &defences

// RaiseFence raises a member's fence, as a promise for a join does, and gives
// what lowers it.
func RaiseFence(db *DB) (lower func()) {
	db.fence.raise()
	return db.fence.lower
}

// Fail gives the error of a call that cause ended, left that behind, and had
// these errors from its replicas.
func Fail(op string, left Outcome, cause error, replicas ...error) error {
	e := QuorumError{Op: op, Key: "k", Level: Quorum, Required: 2, outcome: left}
	for _, err := range replicas {
		e.Replicas = append(e.Replicas, ReplicaError{Node: "n", Err: err})
	}
	return e.fail(cause)
}

// TokenOf is the token of a key.
func TokenOf(key string) uint64 { return ring.Token(key) }
