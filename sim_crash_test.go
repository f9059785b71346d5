package kvstore_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/lsm/vfs"
)

// TestSimPowerCutKeepsDirectory: the directories that Open made are as durable
// as what was acknowledged in them.
func TestSimPowerCutKeepsDirectory(t *testing.T) {
	disk := vfs.NewMem(1)
	for round, dir := range []string{"/deep/in/node", "/deep/in/node", "/deep/other"} {
		db, err := kvstore.Open(dir, &kvstore.Options{FS: disk})
		require.NoError(t, err)
		ready(t, db)
		if round == 1 {
			it, err := db.Get(ctx, "k")
			require.NoError(t, err)
			require.Equal(t, "v", string(it.Value))
		}
		_, err = db.Put(ctx, "k", []byte("v"))
		require.NoError(t, err)
		disk = disk.Strict()
		_ = db.Close()
	}
}
