package lsm

import (
	"context"
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
	for _, policy := range []SyncPolicy{SyncAlways, SyncNever} {
		t.Run(policy.String(), func(t *testing.T) {
			tree := open(t, &Options{FS: quiet{vfs.NewMem(1)}, Sync: policy})
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
			require.Zero(t, testing.AllocsPerRun(2000, get), "AppendGet from a table")
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
