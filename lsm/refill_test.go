package lsm

import (
	"fmt"
	"path"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/wal"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// TestRefill recovers a log of several batches with old and new records of each
// key among them.
func TestRefill(t *testing.T) {
	const keys, rounds = 3000, 8
	disk := vfs.NewMem(1)
	o := small(disk)
	o.MemtableBytes, o.CacheBytes = 32<<20, -1
	o.Sync = SyncNever
	o.pick = neverPick
	tree := open(t, o)
	var top uint64
	for round := range rounds {
		for i := range keys {
			// Even keys end with their highest dot, odd ones begin with it.
			stamp := uint64(round + 1)
			if i%2 == 1 {
				stamp = uint64(rounds - round)
			}
			top = max(top, stamp)
			d := vclock.Dot{Stamp: stamp, Actor: 3}
			r := Record{Token: Token(key(i)), Key: key(i), Kind: Value, Min: d, Max: d, Value: fmt.Appendf(nil, "%0200d", stamp)}
			require.NoError(t, tree.Apply([]Record{r}))
		}
	}
	require.NoError(t, tree.Close())
	tree = open(t, o)
	require.Greater(t, tree.Metrics().ReplayedBytes, uint64(2*refillBytes), "more than one batch")
	for i := range keys {
		r, ok, err := tree.Read(key(i))
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, uint64(rounds), r.Max.Stamp)
		require.Equal(t, fmt.Sprintf("%0200d", rounds), string(r.Value))
	}
	require.NoError(t, tree.Close())
}

// TestRefillMalformed requires an error for a group that passes its checksum and
// holds no records, whenever it is met.
func TestRefillMalformed(t *testing.T) {
	o, err := small(vfs.NewMem(1)).withDefaults()
	require.NoError(t, err)
	tree := open(t, &o)
	defer tree.Close()
	m := tree.newMem(1, 0)
	defer m.Free()
	d := vclock.Dot{Stamp: 77, Actor: 1}
	good := base.AppendRecord(nil, &Record{Token: 5, Key: []byte("k"), Kind: Value, Min: d, Max: d})
	f := &refill{dir: "db"}
	require.NoError(t, f.add(logged{m, 9, 40, good}))
	require.NoError(t, f.flush())
	require.Equal(t, uint64(77), f.highest())
	_, ok := m.Get(5, []byte("k"))
	require.True(t, ok)
	require.NoError(t, f.add(logged{m, 9, 100, append(good[:len(good):len(good)], 0xff)}))
	err = f.flush()
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, fmt.Sprint(100+len(good)))
	require.ErrorIs(t, f.flush(), ErrCorrupt, "it stays")
}

// TestMalformedGroup opens a log with a good group that does not hold records: as a
// damaged log, which with Isolate is set aside from there on.
func TestMalformedGroup(t *testing.T) {
	disk := vfs.NewMem(1)
	tree := open(t, small(disk))
	require.NoError(t, tree.Put(key(1), []byte("v")))
	killed := disk.CrashSynced()
	require.NoError(t, tree.Close())
	disk = killed // Close would say that nothing replaces the last group
	var logs []uint64
	for _, name := range filesOf(t, disk, "db", ".log") {
		n, ok := base.ParseLogName(path.Base(name))
		require.True(t, ok)
		logs = append(logs, n)
	}
	found, err := wal.Replay(disk, "db", logs[0], base.LogEnd{}, logs, func(uint64, int64, []byte) error { return nil })
	require.NoError(t, err)
	next := uint64(1000)
	w := wal.NewWriter(wal.WriterOptions{FS: disk, Dir: "db", SegmentBytes: 1 << 16, Segments: 9, Number: func() uint64 { return next }, Salt: systemRandom},
		found.At, found.Live, nil)
	group := append(make([]byte, wal.GroupHeaderBytes), found.Tail...)
	require.NoError(t, w.Rotate(append(group, 0xff, 0xff)))
	require.NoError(t, w.Close())

	_, err = Open("db", small(disk.CrashSynced()))
	require.ErrorIs(t, err, ErrCorrupt)
	tree = open(t, isolating(disk))
	damaged := tree.Damaged()
	require.Len(t, damaged, 1)
	require.Equal(t, next, damaged[0].File)
	require.NoError(t, tree.Healed(damaged...))
	requireGet(t, tree, key(1), "v")
	require.NoError(t, tree.Close())
	tree = open(t, isolating(disk))
	requireGet(t, tree, key(1), "v")
	require.NoError(t, tree.Close())
}
