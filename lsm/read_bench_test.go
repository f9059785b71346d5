package lsm

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
)

// BenchmarkAppendGet reads 100,000 keys of 100 B in random order from the one place
// where they are, and keys that are nowhere.
func BenchmarkAppendGet(b *testing.B) {
	const keys = 100_000
	for _, c := range []struct {
		name   string
		cache  int64
		merged bool // in one table for each slice
		base   int  // of the keys that are read
	}{{"memtable", -1, false, 0}, {"cache", 0, true, 0}, {"table", -1, true, 0}, {"absent", 0, true, keys}} {
		b.Run(c.name, func(b *testing.B) {
			tree, err := Open(b.TempDir(), &Options{FS: vfs.OS, Sync: SyncNever, CacheBytes: c.cache})
			require.NoError(b, err)
			defer tree.Close()
			value := make([]byte, 100)
			names := make([][]byte, keys)
			for i := range keys {
				require.NoError(b, tree.Put(key(i), value))
				names[i] = key(c.base + i)
			}
			if c.merged {
				require.NoError(b, tree.Compact(context.Background()))
			}
			rand.New(rand.NewPCG(1, 1)).Shuffle(keys, func(i, j int) { names[i], names[j] = names[j], names[i] })
			dst := make([]byte, 0, 200)
			get := func(i int) {
				if _, ok, err := tree.AppendGet(dst, names[i%keys]); ok != (c.base == 0) || err != nil {
					b.Fatal(ok, err)
				}
			}
			for i := range keys {
				get(i)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				get(i)
			}
		})
	}
}
