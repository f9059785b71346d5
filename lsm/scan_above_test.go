package lsm

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// TestScanAbove: tables with nothing above the floor are left out, whatever lies in
// memory and in newer tables is there.
func TestScanAbove(t *testing.T) {
	tree, err := Open("/t", &Options{FS: vfs.NewMem(1)})
	require.NoError(t, err)
	defer tree.Close()
	apply := func(stamp uint64) {
		key := fmt.Appendf(nil, "key%d", stamp)
		dot := vclock.Dot{Stamp: stamp, Actor: 1}
		require.NoError(t, tree.Apply([]Record{{Token: Token(key), Key: key, Min: dot, Max: dot, Kind: Value, Value: key}}))
	}
	for _, stamps := range [][]uint64{{1, 2}, {3, 4}} {
		for _, s := range stamps {
			apply(s)
		}
		require.NoError(t, tree.Flush())
	}
	apply(5)
	for floor := range uint64(6) {
		seen := map[uint64]bool{}
		for rec, err := range tree.ScanAbove(0, SystemToken, vclock.Dot{Stamp: floor, Actor: 1}) {
			require.NoError(t, err)
			seen[rec.Max.Stamp] = true
		}
		for s := uint64(1); s <= 5; s++ {
			if s > floor {
				require.True(t, seen[s], "floor %d: %d", floor, s)
			}
		}
		require.True(t, seen[5])
	}
	seen := 0
	for range tree.ScanAbove(0, SystemToken, vclock.Dot{Stamp: 4, Actor: 1}) {
		seen++
	}
	require.Equal(t, 1, seen, "no table is read")
}

// TestOverwritten: only plain records that are in memory, all of them above the dot,
// overwrite what else there is.
func TestOverwritten(t *testing.T) {
	tree := open(t, small(vfs.NewMem(1)))
	defer func() { require.NoError(t, tree.Close()) }()
	put := func(stamp uint64) {
		r := Record{Key: key(1), Kind: Value, Max: vclock.Dot{Stamp: stamp}}
		r.Token, r.Min = Token(r.Key), r.Max
		require.NoError(t, tree.Apply([]Record{r}))
	}
	over := func(stamp uint64) bool { return tree.Overwritten(Token(key(1)), vclock.Dot{Stamp: stamp}) }
	require.False(t, over(0), "there is nothing")
	put(5)
	require.True(t, over(4))
	require.False(t, over(5))
	require.NoError(t, tree.Flush())
	require.False(t, over(4), "it is in a table")
	put(6)
	require.True(t, over(5))
	set := vclock.Set{}.Write(vclock.History{}, vclock.Sibling{Dot: vclock.Dot{Stamp: 9, Actor: 1}})
	r := Record{Token: Token(key(1)), Key: key(1), Kind: Causal, Value: vclock.AppendSet(nil, set), Min: set.Min(), Max: set.Max()}
	require.NoError(t, tree.Apply([]Record{r}))
	require.False(t, over(5), "siblings may be elsewhere")
}
