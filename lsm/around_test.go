package lsm

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
)

// machine is a file system on a machine with some memory, that counts what is to be
// read ahead.
type machine struct {
	vfs.FS
	memory int64
	ahead  atomic.Int64
}

func (m *machine) Memory() int64 { return m.memory }

func (m *machine) Create(name string) (vfs.File, error) {
	f, err := m.FS.Create(name)
	return aheadFile{f, m}, err
}

type aheadFile struct {
	vfs.File
	m *machine
}

func (f aheadFile) ReadAhead(_, n int64) { f.m.ahead.Add(n) }

// TestReadAroundFits: reads bring their surroundings with them only while the page
// cache may hold all tables.
func TestReadAroundFits(t *testing.T) {
	for _, memory := range []int64{0, 1 << 20, 1 << 30} {
		m := &machine{FS: vfs.NewMem(1), memory: memory}
		tree := open(t, &Options{FS: m, CacheBytes: -1})
		value := make([]byte, 1000)
		for i := range value {
			value[i] = byte(i * i >> 3)
		}
		for i := range 2000 {
			require.NoError(t, tree.Put(key(i), append(value, key(i)...)))
		}
		require.NoError(t, tree.Flush())
		for i := range 2000 {
			_, ok, err := tree.Get(key(i))
			require.NoError(t, err)
			require.True(t, ok)
		}
		tables := int64(tree.Metrics().TableBytes)
		t.Logf("memory %d, tables %d: %d read ahead", memory, tables, m.ahead.Load())
		if memory/2 < tables {
			require.Zero(t, m.ahead.Load())
		} else {
			require.GreaterOrEqual(t, m.ahead.Load(), tables)
		}
		require.NoError(t, tree.Close())
	}
}
