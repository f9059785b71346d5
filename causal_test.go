package kvstore_test

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
)

// values gives an item's siblings as text, sorted newest first, or its one value.
func values(it kvstore.Item) []string {
	if !it.Found() {
		return nil
	}
	if it.Siblings() == nil {
		return []string{string(it.Value)}
	}
	var all []string
	for _, s := range it.Siblings() {
		all = append(all, string(s.Value))
	}
	return all
}

// TestReplaces: a causal write supersedes what its version has seen and stays
// beside everything else, under every resolver.
func TestReplaces(t *testing.T) {
	for _, r := range []kvstore.Resolver{kvstore.LastWriterWins, kvstore.KeepSiblings} {
		t.Run(r.String(), func(t *testing.T) {
			db := open(t, "", &kvstore.Options{Conflicts: r})
			ready(t, db)
			var never kvstore.Version
			va, err := db.Put(ctx, "k", []byte("a"), kvstore.Replaces(never))
			require.NoError(t, err)
			vb, err := db.Put(ctx, "k", []byte("b"), kvstore.Replaces(never))
			require.NoError(t, err)
			require.True(t, va.Concurrent(vb))
			it, err := db.Get(ctx, "k")
			require.NoError(t, err)
			require.Equal(t, "b", string(it.Value), "the newest")
			require.Equal(t, []string{"b", "a"}, values(it))
			require.True(t, it.Version.After(va) && it.Version.After(vb))

			// One sibling goes, the other stays.
			vc, err := db.Put(ctx, "k", []byte("c"), kvstore.Replaces(it.Siblings()[1].Version))
			require.NoError(t, err)
			it, err = db.Get(ctx, "k")
			require.NoError(t, err)
			require.Equal(t, []string{"c", "b"}, values(it))
			require.False(t, vc.After(vb))

			// Its author's next write replaces its last one and nothing else.
			_, err = db.Put(ctx, "k", []byte("d"), kvstore.Replaces(vc))
			require.NoError(t, err)
			it, err = db.Get(ctx, "k")
			require.NoError(t, err)
			require.Equal(t, []string{"d", "b"}, values(it))

			require.NoError(t, db.Delete(ctx, "k", kvstore.Replaces(vb)))
			it, err = db.Get(ctx, "k")
			require.NoError(t, err)
			require.Equal(t, []string{"d"}, values(it))

			require.NoError(t, db.Delete(ctx, "k"))
			it, err = db.Get(ctx, "k")
			require.ErrorIs(t, err, kvstore.ErrNotFound)
			require.False(t, it.Version.Equal(never))
			require.NoError(t, db.Delete(ctx, "never"))

			v, err := db.Put(ctx, "k", []byte("e"), kvstore.Replaces(it.Version))
			require.NoError(t, err)
			require.True(t, v.After(it.Version))
			it, err = db.Get(ctx, "k")
			require.NoError(t, err)
			require.Equal(t, []string{"e"}, values(it))
			require.True(t, it.Version.Equal(v))
		})
	}
}

// TestMergeFunc: the merged value is a view, stored by a causal write only.
func TestMergeFunc(t *testing.T) {
	longer := func(a, b []byte) []byte {
		if len(b) > len(a) || len(a) == len(b) && string(b) > string(a) {
			return b
		}
		return a
	}
	db := open(t, "", &kvstore.Options{Conflicts: kvstore.MergeFunc(longer)})
	ready(t, db)
	for _, v := range []string{"x", "xxx", "xx"} {
		_, err := db.Put(ctx, "k", []byte(v))
		require.NoError(t, err)
	}
	it, err := db.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "xxx", string(it.Value))
	require.Equal(t, []string{"xx", "xxx", "x"}, values(it))
	again, err := db.Get(ctx, "k")
	require.NoError(t, err)
	require.True(t, again.Version.Equal(it.Version), "reading stores nothing")
	it.Value[0] = '?' // the caller's own
	require.Equal(t, "xxx", string(it.Siblings()[1].Value))

	_, err = db.Put(ctx, "k", again.Value, kvstore.Replaces(again.Version))
	require.NoError(t, err)
	it, err = db.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, []string{"xxx"}, values(it))
}

// increment adds one to a decimal value.
func increment(it kvstore.Item) ([]byte, error) {
	n := 0
	if it.Found() {
		var err error
		if n, err = strconv.Atoi(string(it.Value)); err != nil {
			return nil, err
		}
	}
	return strconv.AppendInt(nil, int64(n+1), 10), nil
}

// TestUpdate: updates by many callers through all nodes add up.
func TestUpdate(t *testing.T) {
	dbs := openThree(t, nil)
	const callers, each = 6, 30
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for range each {
				_, err := dbs[caller%3].Update(ctx, "n", increment)
				for errors.Is(err, kvstore.ErrConflict) {
					if kvstore.OutcomeOf(err) != kvstore.NotApplied {
						break
					}
					_, err = dbs[caller%3].Update(ctx, "n", increment)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, db := range dbs {
		it, err := db.Get(ctx, "n")
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(callers*each), string(it.Value))
		require.Nil(t, it.Siblings())
	}
	t.Log(dbs[0].Metrics().Reruns, dbs[1].Metrics().Reruns, dbs[2].Metrics().Reruns)

	stop := errors.New("stop")
	_, err := dbs[0].Update(ctx, "n", func(kvstore.Item) ([]byte, error) { return nil, stop })
	require.ErrorIs(t, err, stop)
	_, err = dbs[0].Update(ctx, "n", increment, kvstore.Replaces(kvstore.Version{}))
	require.ErrorIs(t, err, kvstore.ErrInvalid)
}
