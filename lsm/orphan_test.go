package lsm

import (
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/manifest"
	"example.com/kvstore/lsm/vfs"
)

// requireTidy requires that a closed tree has no files but those that FORMAT.md gives a
// meaning: row S7. Segments that wait to be recycled are within the allotment.
func requireTidy(t testing.TB, at string, disk vfs.FS) {
	t.Helper()
	state, err := manifest.Read(disk, "db")
	require.NoError(t, err, at)
	places, idle := state.Places(), 0
	for _, name := range filesOf(t, disk, "db", "") {
		file := path.Base(name)
		if n, ok := base.ParseTableName(file); ok {
			cold, live := places[n]
			require.True(t, live && !cold, "%s: %s is left", at, name)
			continue
		}
		if n, ok := base.ParseLogName(file); ok {
			if n < state.LogFrom {
				idle++
			}
			continue
		}
		switch file {
		case base.ManifestName, base.ManifestTmpName, base.LockName, base.ReserveName:
		default:
			require.True(t, strings.HasSuffix(file, base.DamagedSuffix), "%s: %s is left", at, name)
		}
	}
	require.LessOrEqual(t, idle, defaultMaxMemtables+2, at)
	if _, err := disk.Stat(coldHome); err != nil {
		return
	}
	for _, name := range filesOf(t, disk, coldHome, ".table") {
		n, _ := base.ParseTableName(path.Base(name))
		require.True(t, places[n], "%s: %s is left", at, name)
	}
}

// TestOrphans leaves one of each kind of file behind that a crash may leave: after the
// next opening they are gone.
func TestOrphans(t *testing.T) {
	disk, c := bottomDisk(t)
	tree := open(t, cooling(disk))
	require.NoError(t, tree.moveCold())
	require.NoError(t, tree.Checkpoint("copy"))
	require.NoError(t, tree.Close())
	cold := path.Base(filesOf(t, disk, coldHome, ".table")[0])
	for name, like := range map[string]string{
		"db/" + base.TableName(900):              path.Join(coldHome, cold),
		"db/" + cold:                             path.Join(coldHome, cold), // live elsewhere
		path.Join(coldHome, base.TableName(901)): path.Join(coldHome, cold),
		"db/" + base.LogName(902):                "", // got its name, and then the power went
		"db/" + base.CheckpointName:              "copy/" + base.CheckpointName,
		"db/" + base.ManifestTmpName:             "copy/" + base.CheckpointName,
	} {
		b := base.AppendHeader(nil, base.LogMagic, base.Header{Version: 1, Number: 902})
		if like != "" {
			b = contentOf(t, disk, like)
		}
		f, err := disk.Create(name)
		require.NoError(t, err)
		_, err = f.WriteAt(b, 0)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	for range 2 {
		tree := open(t, cooling(disk))
		c.exactly(t, "orphans", tree)
		require.NoError(t, tree.Close())
	}
	requireTidy(t, "the end", disk)
}
