package table

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// aheadFile notes where it was asked to read ahead.
type aheadFile struct {
	vfs.File
	asked []int64
}

func (f *aheadFile) ReadAhead(off, n int64) { f.asked = append(f.asked, off) }

func TestReadAround(t *testing.T) {
	var recs []base.Record
	for i := range uint32(4000) {
		key := binary.BigEndian.AppendUint32(nil, i)
		d := vclock.Dot{Stamp: uint64(i + 1), Actor: 1}
		recs = append(recs, base.Record{Token: base.Token(key), Key: key, Kind: base.Value, Min: d, Max: d, Value: make([]byte, 1000)})
	}
	sortRecords(recs)
	f, m := build(t, WriterOptions{Compression: None}, recs)
	stretches := (m.Bytes + aroundBytes - 1) / aroundBytes
	require.Greater(t, stretches, uint64(4))

	file, allowed := &aheadFile{File: f}, false
	r, err := Open(file, m)
	require.NoError(t, err)
	r.ReadAround(func() bool { return allowed })
	var s Scratch
	get := func(r0 *base.Record) {
		_, ok, err := r.Get(r0.Token, r0.Key, &s)
		require.NoError(t, err)
		require.True(t, ok)
	}
	for i := range recs {
		get(&recs[i])
	}
	require.Empty(t, file.asked, "not allowed")

	allowed = true
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(recs)) {
		before := len(file.asked)
		get(&recs[i])
		require.LessOrEqual(t, len(file.asked), before+1)
	}
	seen := map[int64]bool{}
	for _, off := range file.asked {
		require.Zero(t, off%aroundBytes)
		require.Less(t, uint64(off), m.Bytes)
		require.False(t, seen[off], "asked for twice")
		seen[off] = true
	}
	require.GreaterOrEqual(t, uint64(len(seen)), stretches-1, "the last one may hold no block")
}
