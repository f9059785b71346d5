package manifest

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
)

// Hostile bytes under right checksums: damage or a state, and no panic.
func FuzzManifest(f *testing.F) {
	mem := newDir(f)
	m := create(f, mem)
	for i := range uint64(4) {
		require.NoError(f, m.Apply(editOf(i)))
	}
	f.Add(contentOf(f, mem))
	f.Fuzz(func(t *testing.T, b []byte) {
		repair(b)
		d, at, err := decode(b)
		if err != nil {
			if !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrIncompatible) {
				t.Fatal(err)
			}
			return
		}
		require.LessOrEqual(t, at.end, int64(len(b)+sealBytes))
		s := d.publish()
		p, e, err := decodeEdit(s.append(nil))
		require.NoError(t, err)
		again := newDraft(*p)
		require.NoError(t, again.check(e))
		again.apply(e)
		require.Equal(t, s, again.publish())
	})
}

// A checkpoint is a manifest of one frame, under another name.
func FuzzCheckpoint(f *testing.F) {
	mem := newDir(f)
	m := create(f, mem)
	for i := range uint64(4) {
		require.NoError(f, m.Apply(editOf(i)))
	}
	f.Add(AppendCheckpoint(nil, m.State()))
	f.Fuzz(func(t *testing.T, b []byte) {
		repair(b)
		s, err := decodeCheckpoint(b)
		if err != nil {
			if !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrIncompatible) {
				t.Fatal(err)
			}
			return
		}
		require.Equal(t, AppendCheckpoint(nil, s), b)
	})
}

// repair chains the frames of a manifest and makes their checksums right.
func repair(b []byte) {
	if len(b) < base.HeaderBytes {
		return
	}
	number := binary.LittleEndian.Uint64(b[16:])
	last := base.Checksum(number, 0, b[:28])
	binary.LittleEndian.PutUint32(b[28:], last)
	for off := base.HeaderBytes; off+frameHeadBytes <= len(b); {
		n := int(binary.LittleEndian.Uint32(b[off:]))
		if n > len(b)-off-frameHeadBytes {
			return
		}
		binary.LittleEndian.PutUint32(b[off+4:], last)
		payload := b[off+frameHeadBytes : off+frameHeadBytes+n]
		last = base.Extend(base.Checksum(number, int64(off), b[off:off+8]), payload)
		binary.LittleEndian.PutUint32(b[off+8:], last)
		off += frameHeadBytes + n + sealBytes
	}
}
