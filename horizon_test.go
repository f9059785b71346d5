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
