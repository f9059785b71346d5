package kvstore_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"example.com/kvstore"
)

// child makes the process a node and reports true, if it was started for that.
var child = func() bool { return false }

func TestMain(m *testing.M) {
	if child() {
		return
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		tellSimulated()
		os.Exit(code)
	}))
}

var ctx = context.Background()

// open opens a node that is closed with the test.
func open(t testing.TB, dir string, o *kvstore.Options) *kvstore.DB {
	t.Helper()
	db, err := kvstore.Open(dir, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func ready(t testing.TB, dbs ...*kvstore.DB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for _, db := range dbs {
		require.NoError(t, db.Ready(ctx))
	}
}

// TestSingleNode: a node with nil options works without any listener.
func TestSingleNode(t *testing.T) {
	db := open(t, "", nil)
	ready(t, db)
	it, err := db.Get(ctx, "k")
	require.ErrorIs(t, err, kvstore.ErrNotFound)
	require.False(t, it.Found())

	v1, err := db.Put(ctx, "k", []byte("one"))
	require.NoError(t, err)
	it, err = db.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "one", string(it.Value))
	require.Equal(t, "k", it.Key)
	require.True(t, it.Found())
	require.True(t, it.Version.Equal(v1))
	require.WithinDuration(t, time.Now(), it.Modified, time.Minute)

	v2, err := db.Put(ctx, "k", []byte("two"))
	require.NoError(t, err)
	require.True(t, v2.After(v1))
	require.False(t, v2.Concurrent(v1))
	text, err := v2.MarshalText()
	require.NoError(t, err)
	var back kvstore.Version
	require.NoError(t, back.UnmarshalText(text))
	require.True(t, back.Equal(v2))
	require.ErrorIs(t, back.UnmarshalText([]byte("no version")), kvstore.ErrInvalid)

	require.NoError(t, db.Delete(ctx, "k"))
	it, err = db.Get(ctx, "k")
	require.ErrorIs(t, err, kvstore.ErrNotFound)
	require.True(t, it.Version.After(v2), "the item of a deleted key covers the tombstone")

	s, err := db.Status(ctx)
	require.NoError(t, err)
	require.True(t, s.Ready)
	require.Len(t, s.Members, 1)
	require.EqualValues(t, 1, s.Epoch)
	m := db.Metrics()
	require.EqualValues(t, 3, m.Gets)
	require.EqualValues(t, 2, m.Puts)
	require.NotEmpty(t, m.String())
}

// TestReopen: what was written is there after Close, and after a directory was
// left without one.
func TestReopen(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		db, err := kvstore.Open(dir, nil)
		require.NoError(t, err)
		ready(t, db)
		for r := range round {
			it, err := db.Get(ctx, fmt.Sprint("key", r))
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint("value", r), string(it.Value))
		}
		_, err = db.Put(ctx, fmt.Sprint("key", round), fmt.Append(nil, "value", round))
		require.NoError(t, err)
		require.NoError(t, db.Close())
		require.NoError(t, db.Close(), "Close may be called twice")
		_, err = db.Put(ctx, "k", nil)
		require.ErrorIs(t, err, kvstore.ErrClosed)
	}
}

// TestThreeNodesTCP: three nodes on loopback sockets and real disks.
func TestThreeNodesTCP(t *testing.T) {
	var dbs []*kvstore.DB
	var seeds []string
	for i := range 3 {
		db := open(t, t.TempDir(), &kvstore.Options{
			NodeID: fmt.Sprint("n", i), Listen: "127.0.0.1:0", Seeds: seeds,
			GossipInterval: 50 * time.Millisecond,
		})
		if i == 0 {
			s, err := db.Status(ctx)
			require.NoError(t, err)
			seeds = []string{s.Members[0].Addr}
		}
		dbs = append(dbs, db)
	}
	ready(t, dbs...)
	for i := range 100 {
		_, err := dbs[i%3].Put(ctx, fmt.Sprint("k", i), fmt.Append(nil, "v", i))
		require.NoError(t, err)
	}
	for i := range 100 {
		for j, level := range []kvstore.Consistency{kvstore.Quorum, kvstore.All, kvstore.AtLeast(2)} {
			it, err := dbs[(i+j)%3].Get(ctx, fmt.Sprint("k", i), level)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint("v", i), string(it.Value))
		}
	}
	s, err := dbs[1].Status(ctx)
	require.NoError(t, err)
	require.Len(t, s.Members, 3)
	for _, m := range s.Members {
		require.Equal(t, 4096, m.Partitions)
	}
}
