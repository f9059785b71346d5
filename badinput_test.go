package kvstore_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/replica"
	"example.com/kvstore/transport"
	"example.com/kvstore/vclock"
)

// TestOptionsRefused: settings that cannot work are ErrInvalid, and the text
// names the option.
func TestOptionsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		o    kvstore.Options
		says string
	}{
		"negative N":              {kvstore.Options{N: -1}, "Options.N"},
		"too many replicas":       {kvstore.Options{N: 17}, "Options.N"},
		"partitions":              {kvstore.Options{Partitions: 1000}, "Options.Partitions"},
		"weight":                  {kvstore.Options{Weight: -1}, "Options.Weight"},
		"proxy alone":             {kvstore.Options{Proxy: true}, "Options.Proxy"},
		"key limit":               {kvstore.Options{MaxKeyBytes: 1 << 20}, "Options.MaxKeyBytes"},
		"value limit":             {kvstore.Options{MaxValueBytes: 1 << 30}, "Options.MaxValueBytes"},
		"memory":                  {kvstore.Options{MemoryBytes: 1}, "Options.MemoryBytes"},
		"negative time":           {kvstore.Options{MaxRequest: -1}, "negative"},
		"short cluster key":       {kvstore.Options{ClusterKey: []byte("short")}, "Options.ClusterKey"},
		"seeds without listener":  {kvstore.Options{Seeds: []string{"127.0.0.1:1"}}, "Listen"},
		"seed without port":       {kvstore.Options{Listen: "127.0.0.1:0", Seeds: []string{"host"}}, "Options.Seeds"},
		"seed of another scheme":  {kvstore.Options{Listen: "127.0.0.1:0", Seeds: []string{"http://host:1"}}, "Options.Seeds"},
		"read level":              {kvstore.Options{Read: kvstore.AtLeast(4)}, "Options.Read"},
		"write level":             {kvstore.Options{N: 1, Write: kvstore.AtLeast(2)}, "Options.Write"},
		"long name":               {kvstore.Options{NodeID: strings.Repeat("n", 200)}, "NodeID"},
		"open listener, no key":   {kvstore.Options{Listen: "0.0.0.0:0"}, "set ClusterKey"},
		"public listener, no key": {kvstore.Options{Listen: "192.0.2.1:7000"}, "set ClusterKey"},
		"any listener, no key":    {kvstore.Options{Listen: ":7000"}, "set ClusterKey"},
		"listener without port":   {kvstore.Options{Listen: "127.0.0.1"}, "Options.Listen: \"127.0.0.1\" is not host:port"},
		"no listener":             {kvstore.Options{Listen: "garbage"}, "Options.Listen: \"garbage\" is not host:port"},
		"listener, large port":    {kvstore.Options{Listen: "127.0.0.1:99999"}, "port from 0 to 65535"},
		"advertise without port":  {kvstore.Options{Listen: "127.0.0.1:0", Advertise: "x"}, "Options.Advertise"},
		"advertise alone":         {kvstore.Options{Advertise: "127.0.0.1:1"}, "Listen"},
		"merge by nothing":        {kvstore.Options{Conflicts: kvstore.MergeFunc(nil)}, "Options.Conflicts"},
		"newline in a name":       {kvstore.Options{NodeID: "a\nb"}, "printable"},
		"newline in a zone":       {kvstore.Options{Zone: "a\nb"}, "printable"},
		"name of blanks":          {kvstore.Options{Cluster: "  "}, "printable"},
		"no time to gossip":       {kvstore.Options{GossipInterval: 1}, "GossipInterval"},
		"no time for requests":    {kvstore.Options{MaxRequest: 1}, "MaxRequest"},
		"key without listener":    {kvstore.Options{ClusterKey: make([]byte, 16)}, "Listen"},
		"TLS without listener":    {kvstore.Options{TLS: &tls.Config{}}, "Listen"},
		"TLS without certificate": {kvstore.Options{Listen: "127.0.0.1:0", TLS: &tls.Config{}}, "certificate"},
		"more memory than any":    {kvstore.Options{MemoryBytes: 1 << 62}, "Options.MemoryBytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := kvstore.Open("", &c.o)
			require.ErrorIs(t, err, kvstore.ErrInvalid)
			require.Contains(t, err.Error(), c.says)
			require.Equal(t, 1, strings.Count(err.Error(), "kvstore: "), "%v", err)
			require.Equal(t, kvstore.NotApplied, kvstore.OutcomeOf(err))
		})
	}
}

// TestCallsRefused: bad arguments of calls leave nothing behind and say what is
// wrong.
func TestCallsRefused(t *testing.T) {
	db := open(t, "", &kvstore.Options{MaxKeyBytes: 10, MaxValueBytes: 20})
	ready(t, db)
	put := func(key string, n int, opts ...kvstore.PutOption) error {
		_, err := db.Put(ctx, key, make([]byte, n), opts...)
		return err
	}
	get := func(key string, opts ...kvstore.GetOption) error {
		_, err := db.Get(ctx, key, opts...)
		return err
	}
	for name, c := range map[string]struct {
		err, is error
		says    string
	}{
		"empty key":           {put("", 1), kvstore.ErrInvalid, "empty key"},
		"get of empty key":    {get(""), kvstore.ErrInvalid, "empty key"},
		"delete of empty key": {db.Delete(ctx, ""), kvstore.ErrInvalid, "empty key"},
		"long key":            {put("12345678901", 1), kvstore.ErrKeyTooLarge, "MaxKeyBytes is 10"},
		"large value":         {put("k", 21), kvstore.ErrValueTooLarge, "MaxValueBytes is 20"},
		"level too high":      {put("k", 1, kvstore.AtLeast(2)), kvstore.ErrInvalid, "which is 1"},
		"read level too high": {get("k", kvstore.AtLeast(3)), kvstore.ErrInvalid, "which is 1"},
		"level of none":       {put("k", 1, kvstore.AtLeast(0)), kvstore.ErrInvalid, "level"},
		"unknown level":       {get("k", kvstore.Consistency(99)), kvstore.ErrInvalid, "unknown level"},
		"short TTL":           {put("k", 1, kvstore.TTL(time.Microsecond)), kvstore.ErrInvalid, "TTL"},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, c.err, c.is)
			require.Contains(t, c.err.Error(), c.says)
			require.Equal(t, kvstore.NotApplied, kvstore.OutcomeOf(c.err))
			require.False(t, kvstore.Retryable(c.err))
		})
	}
	require.NoError(t, put("1234567890", 20), "at the limits")
	require.NoError(t, put("k", 0), "an empty value is a value")
	it, err := db.Get(ctx, "k")
	require.NoError(t, err)
	require.NotNil(t, it.Value)
}

// TestNilRefused: a nil context, function or batch is an error that says so.
func TestNilRefused(t *testing.T) {
	db := open(t, "", nil)
	ready(t, db)
	var none context.Context
	keep := func(it kvstore.Item) ([]byte, error) { return it.Value, nil }
	_, get := db.Get(none, "k")
	_, put := db.Put(none, "k", nil)
	_, update := db.Update(none, "k", keep)
	_, many := db.GetMany(none, []string{"k"})
	_, status := db.Status(none)
	_, explain := db.Explain(none, "k")
	_, plan := db.Plan(none, kvstore.Change{})
	_, function := db.Update(ctx, "k", nil)
	all := []error{get, put, update, many, status, explain, plan, function, db.Delete(none, "k"), db.Apply(none, &kvstore.Batch{}), db.Ready(none), db.Apply(ctx, nil), db.Checkpoint(none, "copy"),
		db.Counter("c").Add(none, 1), db.Set("s").Add(none, "x")}
	for _, err := range db.Scan(none) {
		all = append(all, err)
	}
	for _, err := range db.Repair(none) {
		all = append(all, err)
	}
	require.Len(t, all, 17)
	for i, err := range all {
		require.ErrorIs(t, err, kvstore.ErrInvalid, "%d", i)
		require.ErrorContains(t, err, "nil", "%d", i)
	}
}

// TestNothingHappened: errors after which nothing is stored say so.
func TestNothingHappened(t *testing.T) {
	db := open(t, "", nil)
	ready(t, db)
	stop := errors.New("stop")
	_, many := db.GetMany(ctx, []string{"k", ""})
	_, update := db.Update(ctx, "k", func(kvstore.Item) ([]byte, error) { return nil, stop })
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	_, opened := kvstore.Open(file, nil)
	var b kvstore.Batch
	b.Put("", nil)
	for err, is := range map[error]error{many: kvstore.ErrInvalid, update: stop, opened: kvstore.ErrInvalid, db.Apply(ctx, &b): kvstore.ErrInvalid} {
		require.ErrorIs(t, err, is)
		require.Equal(t, kvstore.NotApplied, kvstore.OutcomeOf(err), "%v", err)
	}
	require.Equal(t, stop.Error(), update.Error())
}

// TestDirectoryRefused: a directory that is in use, of another cluster, of
// another node, of a newer format, or damaged.
func TestDirectoryRefused(t *testing.T) {
	dir := t.TempDir()
	db, err := kvstore.Open(dir, &kvstore.Options{NodeID: "a", Cluster: "one"})
	require.NoError(t, err)
	ready(t, db)
	_, err = kvstore.Open(dir, nil)
	require.ErrorIs(t, err, kvstore.ErrLocked)
	require.Equal(t, 1, strings.Count(err.Error(), dir), "%v", err)
	_, err = db.Put(ctx, "k", []byte("v"))
	require.NoError(t, err)
	require.NoError(t, db.Close())

	_, err = kvstore.Open(dir, &kvstore.Options{Cluster: "two"})
	require.ErrorIs(t, err, kvstore.ErrIncompatible)
	require.Contains(t, err.Error(), `"one"`)
	_, err = kvstore.Open(dir, &kvstore.Options{Cluster: "one", NodeID: "b"})
	require.ErrorIs(t, err, kvstore.ErrIncompatible)
	for _, o := range []kvstore.Options{{Cluster: "one", N: 2}, {Cluster: "one", Partitions: 64}} {
		_, err = kvstore.Open(dir, &o)
		require.ErrorIs(t, err, kvstore.ErrInvalid)
		require.ErrorContains(t, err, "was formed with")
	}

	manifests, err := filepath.Glob(filepath.Join(dir, "data", "*"))
	require.NoError(t, err)
	var manifest string
	for _, f := range manifests {
		if strings.Contains(strings.ToLower(filepath.Base(f)), "manifest") {
			manifest = f
		}
	}
	require.NotEmpty(t, manifest, "%v", manifests)
	whole, err := os.ReadFile(manifest)
	require.NoError(t, err)

	damaged := append([]byte(nil), whole...)
	damaged[50] ^= 1 // in the first edit
	require.NoError(t, os.WriteFile(manifest, damaged, 0o644))
	_, err = kvstore.Open(dir, &kvstore.Options{Cluster: "one"})
	require.ErrorIs(t, err, kvstore.ErrCorrupt)
	require.Contains(t, err.Error(), filepath.Base(manifest))

	require.NoError(t, os.WriteFile(manifest, whole, 0o644))
	db, err = kvstore.Open(dir, &kvstore.Options{Cluster: "one"})
	require.NoError(t, err)
	require.NoError(t, db.Close())
}

// TestListenRefused: a port in use.
func TestListenRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, err = kvstore.Open("", &kvstore.Options{Listen: l.Addr().String()})
	require.ErrorIs(t, err, kvstore.ErrListen)
	require.Contains(t, err.Error(), "no other process listens")
}

// TestSeedRefused: a seed that is something else, or of another cluster, is
// named by Ready.
func TestSeedRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"))
			_ = c.Close()
		}
	}()
	other := open(t, "", &kvstore.Options{Cluster: "other", Listen: "127.0.0.1:0"})
	s, err := other.Status(ctx)
	require.NoError(t, err)

	for _, c := range []struct {
		seed string
		is   error
	}{{l.Addr().String(), transport.ErrNotKvstore}, {s.Members[0].Addr, transport.ErrWrongCluster}} {
		db := open(t, "", &kvstore.Options{Listen: "127.0.0.1:0", Seeds: []string{c.seed}, GossipInterval: 20 * time.Millisecond})
		require.Eventually(t, func() bool {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
			defer cancel()
			err := db.Ready(ctx)
			require.ErrorIs(t, err, kvstore.ErrNotReady)
			return strings.Contains(err.Error(), c.seed) && errors.Is(err, c.is)
		}, 20*time.Second, 20*time.Millisecond)
		_, err := db.Get(ctx, "k")
		require.ErrorIs(t, err, kvstore.ErrNotReady)
		require.Equal(t, kvstore.NotApplied, kvstore.OutcomeOf(err))
	}
}

// TestStampsInside: a causal record whose head does not show what it holds is refused
// for a stamp from the far future all the same, and the clock does not follow.
func TestStampsInside(t *testing.T) {
	db := open(t, "", nil)
	dot := func(d time.Duration) vclock.Dot {
		return vclock.Dot{Stamp: vclock.NewStamp(time.Now().Add(d)), Actor: 1}
	}
	for _, d := range []time.Duration{-time.Hour, time.Hour} {
		rec := replica.FromSet(vclock.Set{}.Write(vclock.History{}, vclock.Sibling{Dot: dot(d)}))
		require.True(t, rec.Causal)
		require.Equal(t, d > 0, kvstore.Observe(db, rec) != nil)
		rec.Dot = dot(-time.Hour)
		require.Equal(t, d > 0, kvstore.Observe(db, rec) != nil)
	}
	require.NoError(t, kvstore.Observe(db, replica.Record{Dot: dot(-time.Hour), Causal: true, Value: []byte("damaged")}), "found out elsewhere")
}

// TestScanAdvances: a page of a scan that ends where it began, or beyond its range, is
// no page.
func TestScanAdvances(t *testing.T) {
	token := kvstore.TokenOf("key")
	require.True(t, kvstore.Advances(replica.ScanRequest{Lo: token, Hi: token}, "key"))
	require.False(t, kvstore.Advances(replica.ScanRequest{Lo: token, Hi: token, After: []byte("key")}, "key"))
	require.False(t, kvstore.Advances(replica.ScanRequest{Lo: token + 1, Hi: token + 9}, "key"))
	require.False(t, kvstore.Advances(replica.ScanRequest{Hi: token - 1}, "key"))
}
