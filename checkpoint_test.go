package kvstore_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
)

// TestCheckpoint: a copy has what was there before, opens as the node, and is refused
// when anything of it is missing or wrong.
func TestCheckpoint(t *testing.T) {
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "node"), &kvstore.Options{NodeID: "n"})
	ready(t, db)
	for i := range 100 {
		_, err := db.Put(ctx, fmt.Sprint("key", i), []byte("before"))
		require.NoError(t, err)
	}
	copies := make([]string, 3)
	for i := range copies {
		copies[i] = filepath.Join(dir, "copies", fmt.Sprint(i))
		require.NoError(t, db.Checkpoint(ctx, copies[i]))
	}
	for i := range 100 {
		_, err := db.Put(ctx, fmt.Sprint("key", i), []byte("after"))
		require.NoError(t, err)
	}
	restored := open(t, copies[0], &kvstore.Options{NodeID: "n"})
	ready(t, restored)
	for i := range 100 {
		it, err := restored.Get(ctx, fmt.Sprint("key", i))
		require.NoError(t, err)
		require.Equal(t, "before", string(it.Value))
	}

	_, err := kvstore.Open(copies[1], &kvstore.Options{NodeID: "another"})
	require.ErrorIs(t, err, kvstore.ErrIncompatible)
	table := tablesIn(t, copies[2])[0]
	require.NoError(t, os.Remove(table))
	_, err = kvstore.Open(copies[2], &kvstore.Options{NodeID: "n", Listen: "127.0.0.1:0"})
	require.ErrorIs(t, err, kvstore.ErrCorrupt)

	require.ErrorIs(t, db.Checkpoint(ctx, ""), kvstore.ErrInvalid)
	require.ErrorIs(t, db.Checkpoint(ctx, copies[2]), kvstore.ErrInvalid, "not empty")
	require.ErrorIs(t, db.Checkpoint(ctx, filepath.Join(dir, "node")), kvstore.ErrLocked, "its own")
	over, cancel := context.WithCancel(ctx)
	cancel()
	last := filepath.Join(dir, "last")
	require.ErrorIs(t, db.Checkpoint(over, last), context.Canceled)
	require.Empty(t, tablesIn(t, last))
	require.NoError(t, db.Checkpoint(ctx, last))
	require.NoError(t, db.Close())
	require.ErrorIs(t, db.Checkpoint(ctx, filepath.Join(dir, "closed")), kvstore.ErrClosed)
}

// tablesIn are the table files of a node's directory.
func tablesIn(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "data", "*.table"))
	require.NoError(t, err)
	return names
}

// TestColdDir: a node passes its second directory on, and needs it then.
func TestColdDir(t *testing.T) {
	dir := t.TempDir()
	o := &kvstore.Options{ColdDir: filepath.Join(dir, "cold"), ColdAfter: time.Hour}
	require.Contains(t, o.String(), o.ColdDir)
	for _, bad := range []kvstore.Options{{ColdAfter: time.Hour}, {ColdDir: "x", ColdAfter: -1}} {
		_, err := kvstore.Open("", &bad)
		require.ErrorIs(t, err, kvstore.ErrInvalid)
		require.Contains(t, err.Error(), "ColdAfter")
	}
	late := func() time.Time { return time.Now().Add(24 * time.Hour) }
	db := open(t, filepath.Join(dir, "node"), o)
	ready(t, db)
	_, err := db.Put(ctx, "k", []byte("v"))
	require.NoError(t, err)
	require.NoError(t, kvstore.Compact(db))
	require.NoError(t, db.Close())

	o.Clock = late
	db = open(t, filepath.Join(dir, "node"), o)
	ready(t, db)
	require.NoError(t, kvstore.Compact(db))
	require.Eventually(t, func() bool { return db.Metrics().Engine.ColdBytes > 0 }, time.Minute, 10*time.Millisecond)
	it, err := db.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "v", string(it.Value))
	require.NoError(t, db.Close())
	_, err = kvstore.Open(filepath.Join(dir, "node"), &kvstore.Options{Clock: late})
	require.ErrorIs(t, err, kvstore.ErrInvalid)
	require.Contains(t, err.Error(), "ColdDir")
}

// three opens three nodes on loopback that know each other.
func three(t *testing.T, dir string) (dbs []*kvstore.DB, reopen func(i int, dir string) *kvstore.DB) {
	t.Helper()
	var seeds []string
	reopen = func(i int, dir string) *kvstore.DB {
		return open(t, dir, &kvstore.Options{NodeID: fmt.Sprint("n", i), Listen: "127.0.0.1:0", Seeds: seeds, Partitions: 64,
			MemoryBytes: 8 << 20, GossipInterval: 50 * time.Millisecond, MaxClockOffset: 200 * time.Millisecond})
	}
	for i := range 3 {
		db := reopen(i, filepath.Join(dir, fmt.Sprint("n", i)))
		if i == 0 {
			s, err := db.Status(ctx)
			require.NoError(t, err)
			seeds = []string{s.Members[0].Addr}
		}
		dbs = append(dbs, db)
	}
	ready(t, dbs...)
	for _, db := range dbs {
		require.Eventually(t, func() bool {
			s, err := db.Status(ctx)
			return err == nil && len(s.Members) == 3 && !strings.Contains(fmt.Sprint(s.Members), "dead")
		}, 30*time.Second, 10*time.Millisecond)
	}
	return dbs, reopen
}

// whole waits until a node has healed and holds what another one does.
func whole(t *testing.T, db, like *kvstore.DB) {
	t.Helper()
	require.Eventually(t, func() bool {
		m := db.Metrics()
		return m.Healed > 0 && m.Incomplete == 0
	}, 60*time.Second, 20*time.Millisecond)
	require.Eventually(t, func() bool {
		a, err := kvstore.Holds(db)
		require.NoError(t, err)
		b, err := kvstore.Holds(like)
		require.NoError(t, err)
		return fmt.Sprint(a) == fmt.Sprint(b)
	}, 60*time.Second, 100*time.Millisecond)
}

// TestDeletedTable: somebody deletes a table of a node that is down. It comes back, and
// what was acknowledged by it is there.
func TestDeletedTable(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for real time")
	}
	dir := t.TempDir()
	dbs, reopen := three(t, dir)
	for i := range 200 {
		_, err := dbs[i%3].Put(ctx, fmt.Sprint("key", i), []byte(fmt.Sprint(i)), kvstore.All)
		require.NoError(t, err)
	}
	require.NoError(t, kvstore.Flush(dbs[2]))
	require.NoError(t, dbs[2].Close())
	home := filepath.Join(dir, "n2")
	names := tablesIn(t, home)
	require.NoError(t, os.Remove(names[len(names)-1])) // with the node's own state, too
	db := reopen(2, home)
	ready(t, db)
	whole(t, db, dbs[0])
	for i := range 200 {
		it, err := db.Get(ctx, fmt.Sprint("key", i), kvstore.One)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), string(it.Value))
	}
}

// TestRestoredDirectory: a node is restored from a checkpoint while the others have gone
// on. It finds out that its data is old before it is read, and no write is lost.
func TestRestoredDirectory(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for real time")
	}
	dir := t.TempDir()
	dbs, reopen := three(t, dir)
	write := func(i int, value string) kvstore.Version {
		v, err := dbs[i%len(dbs)].Put(ctx, fmt.Sprint("key", i), []byte(value), kvstore.All)
		require.NoError(t, err)
		return v
	}
	for i := range 100 {
		write(i, "before")
	}
	restored := filepath.Join(dir, "restored")
	require.NoError(t, dbs[2].Checkpoint(ctx, restored))
	ceiling := kvstore.Ceiling(dbs[2])
	before := actorOf(t, write(2, "after"))
	require.Eventually(t, func() bool {
		for i := range 50 {
			write(i, "after")
		}
		return kvstore.Told(dbs[0], dbs[2]) > ceiling && kvstore.Told(dbs[1], dbs[2]) > ceiling
	}, 30*time.Second, 50*time.Millisecond)
	require.NoError(t, dbs[2].Close())

	dbs[2] = reopen(2, restored)
	ready(t, dbs[2])
	for i := range 100 {
		want := "before"
		if i < 50 {
			want = "after"
		}
		it, err := dbs[2].Get(ctx, fmt.Sprint("key", i), kvstore.One)
		require.NoError(t, err)
		require.Equal(t, want, string(it.Value))
	}
	require.NotEqual(t, before, actorOf(t, write(2, "again")))
	whole(t, dbs[2], dbs[0])
	it, err := dbs[0].Get(ctx, "key2")
	require.NoError(t, err)
	require.Equal(t, "again", string(it.Value))
}

// TestIdentityFile: of the second copy of the identity every bit counts, and nothing in
// it is trusted.
func TestIdentityFile(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, &kvstore.Options{NodeID: "n", Partitions: 8})
	ready(t, db)
	text, err := os.ReadFile(filepath.Join(dir, "identity"))
	require.NoError(t, err)
	id, uid, epochs, err := kvstore.DecodeIdentity(text)
	require.NoError(t, err)
	require.Equal(t, "n", id)
	require.NotZero(t, uid)
	require.Equal(t, 1, epochs)
	for i := range text {
		_, _, _, err := kvstore.DecodeIdentity(text[:i])
		require.ErrorIs(t, err, kvstore.ErrCorrupt)
		text[i] ^= 1 << (i % 8)
		_, _, _, err = kvstore.DecodeIdentity(text)
		require.ErrorIs(t, err, kvstore.ErrCorrupt)
		if i < len(text)-4 { // with a checksum that is right it must not panic
			sum := crc32.Checksum(text[:len(text)-4], crc32.MakeTable(crc32.Castagnoli))
			_, _, _, _ = kvstore.DecodeIdentity(binary.LittleEndian.AppendUint32(slices.Clone(text[:len(text)-4]), sum))
		}
		text[i] ^= 1 << (i % 8)
	}
}

// TestIdentityWithoutData: where the identity is and the data is not, something is wrong, and
// a node that nobody can refill does not begin anew.
func TestIdentityWithoutData(t *testing.T) {
	dir := t.TempDir()
	db, err := kvstore.Open(dir, nil)
	require.NoError(t, err)
	_, err = db.Put(ctx, "k", []byte("v"))
	require.NoError(t, err)
	require.NoError(t, db.Close())
	data, away := filepath.Join(dir, "data"), filepath.Join(dir, "away")
	require.NoError(t, os.Rename(data, away))
	for range 2 {
		_, err = kvstore.Open(dir, nil)
		require.ErrorIs(t, err, kvstore.ErrCorrupt)
		require.Contains(t, err.Error(), "put it back")
	}
	_, err = kvstore.Open(dir, &kvstore.Options{Cluster: "another"})
	require.ErrorIs(t, err, kvstore.ErrIncompatible)
	require.NoError(t, os.RemoveAll(data))
	require.NoError(t, os.Rename(away, data))
	db = open(t, dir, nil)
	ready(t, db)
	it, err := db.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "v", string(it.Value))
}

// TestIdentityRefills: a member of several whose data is gone keeps its name and gets the data
// from the others, if it is told who they are.
func TestIdentityRefills(t *testing.T) {
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	dbs := make([]*kvstore.DB, 3)
	bootstrap := false
	start := func(i int, seeds ...string) error {
		var err error
		dbs[i], err = kvstore.Open(dirs[i], &kvstore.Options{Listen: "127.0.0.1:0", Seeds: seeds, Bootstrap: bootstrap, MemoryBytes: 16 << 20, Partitions: 16, GossipInterval: 50 * time.Millisecond, SuspectAfter: 500 * time.Millisecond})
		return err
	}
	require.NoError(t, start(0))
	self := func(db *kvstore.DB) kvstore.MemberStatus {
		s, err := db.Status(ctx)
		require.NoError(t, err)
		for _, m := range s.Members {
			if m.Self {
				return m
			}
		}
		t.Fatal("a node is no member")
		return kvstore.MemberStatus{}
	}
	ready(t, dbs[0])
	first := self(dbs[0]).Addr
	require.NoError(t, start(1, first))
	require.NoError(t, start(2, first))
	ready(t, dbs...)
	require.Eventually(t, func() bool {
		s, err := dbs[0].Status(ctx)
		return err == nil && len(s.Members) == 3
	}, time.Minute, 10*time.Millisecond)
	_, err := dbs[0].Put(ctx, "k", []byte("v"), kvstore.All)
	require.NoError(t, err)
	id := self(dbs[2]).ID
	require.NoError(t, dbs[2].Close())
	require.NoError(t, os.RemoveAll(filepath.Join(dirs[2], "data")))
	err = start(2)
	require.ErrorIs(t, err, kvstore.ErrCorrupt)
	require.Contains(t, err.Error(), "Options.Seeds")
	bootstrap = true // which is for a first start
	require.NoError(t, start(2, first))
	defer func() {
		for _, db := range dbs {
			require.NoError(t, db.Close())
		}
	}()
	ready(t, dbs[2])
	require.Equal(t, id, self(dbs[2]).ID)
	require.Eventually(t, func() bool {
		it, err := dbs[2].Get(ctx, "k", kvstore.All)
		return err == nil && string(it.Value) == "v"
	}, time.Minute, 10*time.Millisecond)
}
