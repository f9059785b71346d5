package lsm

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// TestAllocations pins the paths that run for every operation at no allocation.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, o := range []Options{{}, {Sync: SyncNever}, {CacheBytes: -1}, {CacheBytes: -1, Compression: NoCompression}, {CacheBytes: -1, Compression: Zstd}} {
		t.Run(fmt.Sprintf("%v, cache %d, compression %d", o.Sync, o.CacheBytes, o.Compression), func(t *testing.T) {
			o.FS = quiet{vfs.NewMem(1)}
			tree := open(t, &o)
			defer tree.Close()
			k, value, dst := []byte("some key"), make([]byte, 100), make([]byte, 0, 200)
			put := func() {
				if err := tree.Put(k, value); err != nil {
					t.Fatal(err)
				}
			}
			put()
			require.Zero(t, testing.AllocsPerRun(2000, put), "Put")

			batch := make([]Record, 1)
			ready := make(chan struct{}, 1)
			done := func(error) { ready <- struct{}{} }
			stamp := uint64(1)
			require.Zero(t, testing.AllocsPerRun(2000, func() {
				stamp++
				d := vclock.Dot{Stamp: stamp, Actor: 1}
				batch[0] = Record{Token: 1, Key: k, Kind: Value, Min: d, Max: d, Value: value}
				tree.Submit(batch, done)
				<-ready
			}), "Submit")

			get := func() {
				if _, ok, err := tree.AppendGet(dst, k); !ok || err != nil {
					t.Fatal(ok, err)
				}
			}
			require.Zero(t, testing.AllocsPerRun(2000, get), "AppendGet from the memtable")
			token := Token(k)
			require.Zero(t, testing.AllocsPerRun(2000, func() {
				if _, found, certain := tree.ReadMemory(token, k, dst); !found || !certain {
					t.Fatal(found, certain)
				}
			}), "ReadMemory")
			require.NoError(t, tree.Compact(context.Background()))
			get()
			where := "a table"
			if o.CacheBytes >= 0 {
				where = "the cache"
			}
			before := tree.Metrics()
			require.Zero(t, testing.AllocsPerRun(2000, get), "AppendGet from "+where)
			require.Zero(t, testing.AllocsPerRun(2000, put), "Put of a key in "+where)
			after := tree.Metrics()
			if o.CacheBytes >= 0 {
				require.Equal(t, before.TableReads, after.TableReads)
				require.Equal(t, before.CacheHits+2001, after.CacheHits)
			} else {
				require.Equal(t, before.TableReads+2001, after.TableReads)
			}
		})
	}
}

// quiet keeps log segments in plain memory: the bookkeeping of a Mem allocates.
type quiet struct{ vfs.FS }

func (q quiet) Create(name string) (vfs.File, error) {
	f, err := q.FS.Create(name)
	if strings.HasSuffix(name, ".log") {
		f = &plainFile{File: f, b: make([]byte, 8<<20)}
	}
	return f, err
}

type plainFile struct {
	vfs.File
	b []byte
}

func (f *plainFile) WriteAt(b []byte, off int64) (int, error) { return copy(f.b[off:], b), nil }
func (f *plainFile) SyncData() error                          { return nil }
