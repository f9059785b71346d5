package kvstore_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/replica"
)

// TestRoundRepeated: a driver that did not hear that a horizon was recorded asks
// again, and is told.
func TestRoundRepeated(t *testing.T) {
	db := open(t, "", nil)
	ready(t, db)
	require.Equal(t, make([]replica.Status, 4), kvstore.TakeRound(db))
}

// TestForgottenMeanwhile: a causal write whose coordinator has read the key, and
// which meets the log when a delete of that was forgotten, does not bring it back.
func TestForgottenMeanwhile(t *testing.T) {
	require.Equal(t, []string{"new"}, forgottenMeanwhile(t))
}

// forgottenMeanwhile gives the values that there are in the end.
func forgottenMeanwhile(t *testing.T) []string {
	var db *kvstore.DB
	var ahead atomic.Int64
	var armed atomic.Bool
	var failed error
	clock := func() time.Time { // asked for the write's stamp, after the read
		if armed.CompareAndSwap(true, false) {
			failed = kvstore.Forget(db, "k")
		}
		return time.Now().Add(time.Duration(ahead.Load()))
	}
	db = open(t, "", &kvstore.Options{Conflicts: kvstore.KeepSiblings, Clock: clock})
	ready(t, db)
	_, err := db.Put(ctx, "k", []byte("old"))
	require.NoError(t, err)
	ahead.Store(int64(time.Minute))
	armed.Store(true)
	_, err = db.Put(ctx, "k", []byte("new"))
	require.NoError(t, err)
	require.NoError(t, failed)
	require.False(t, armed.Load())
	it, err := db.Get(ctx, "k")
	require.NoError(t, err)
	return values(it)
}

// TestForgottenBase: a change of a set, for which a set was read that was deleted and
// forgotten before the change is made, does not bring back what was in it.
func TestForgottenBase(t *testing.T) {
	require.Equal(t, []string{"new"}, forgottenBase(t))
}

// forgottenBase gives the elements that there are in the end.
func forgottenBase(t *testing.T) []string {
	var ahead atomic.Int64
	db := open(t, "", &kvstore.Options{Clock: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	ready(t, db)
	require.NoError(t, db.Set("k").Add(ctx, "old"))
	ahead.Store(int64(time.Minute))
	require.NoError(t, kvstore.AddLate(db, "k", "new"))
	elements, err := db.Set("k").Elements(ctx)
	require.NoError(t, err)
	return elements
}
