package kvstore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/transport"
)

// TestClusterKey: nodes with the key form a cluster, one with another key, or
// with none, is told so and stays out.
func TestClusterKey(t *testing.T) {
	key := []byte("a secret of sixteen bytes or more")
	dbs := openThree(t, func(o *kvstore.Options) { o.ClusterKey = key })
	_, err := dbs[0].Put(ctx, "k", []byte("v"), kvstore.All)
	require.NoError(t, err)
	s, err := dbs[0].Status(ctx)
	require.NoError(t, err)
	for name, wrong := range map[string][]byte{"another": []byte("a secret that nobody else has"), "none": nil} {
		t.Run(name, func(t *testing.T) {
			db := open(t, "", &kvstore.Options{Listen: "127.0.0.1:0", Seeds: []string{s.Members[0].Addr}, ClusterKey: wrong, GossipInterval: 20 * time.Millisecond})
			require.Eventually(t, func() bool {
				ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
				defer cancel()
				return errors.Is(db.Ready(ctx), transport.ErrBadKey)
			}, 20*time.Second, 20*time.Millisecond)
		})
	}
}

// TestJoinRefused: once a write was accepted, a new node is refused and told
// why, at Ready and at every call.
func TestJoinRefused(t *testing.T) {
	dbs := openThree(t, nil)
	_, err := dbs[0].Put(ctx, "k", []byte("v"))
	require.NoError(t, err)
	s, err := dbs[0].Status(ctx)
	require.NoError(t, err)
	late := open(t, "", &kvstore.Options{NodeID: "late", Listen: "127.0.0.1:0", Seeds: []string{s.Members[0].Addr}})
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	err = late.Ready(ctx)
	require.ErrorIs(t, err, kvstore.ErrJoinRefused)
	require.Contains(t, err.Error(), "holds data")
	_, err = late.Put(ctx, "k", nil)
	require.ErrorIs(t, err, kvstore.ErrJoinRefused)
	require.Equal(t, kvstore.NotApplied, kvstore.OutcomeOf(err))

	taken := open(t, "", &kvstore.Options{NodeID: "n1", Listen: "127.0.0.1:0", Seeds: []string{s.Members[0].Addr},
		SuspectAfter: 200 * time.Millisecond, GossipInterval: 100 * time.Millisecond})
	require.ErrorIs(t, taken.Ready(ctx), kvstore.ErrJoinRefused)
}
