package merkle

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMalformedRequests: each rule of the encoding, broken.
func TestMalformedRequests(t *testing.T) {
	s := Shape{Range{0, 1<<32 - 1}, 2}
	p := one(1, 3)
	tree := p.tree(t, s)
	nodes := question{shape: s, level: 1, indexes: []uint32{0, 3}}
	cut := question{shape: s, level: sliced, leaf: 15, span: Range{3, 5}, indexes: []uint32{0, 2}}
	head := shapeBytes + len(Salt{})
	with := func(q question, change func([]byte) []byte) []byte { return change(q.append(nil)) }
	set := func(i int, v byte) func([]byte) []byte {
		return func(b []byte) []byte { b[i] = v; return b }
	}
	for _, q := range []question{nodes, cut} {
		_, err := tree.Answer(nil, q.append(nil), p.read)
		require.NoError(t, err)
		for n := range len(q.append(nil)) {
			_, err := tree.Answer(nil, q.append(nil)[:n], p.read)
			require.ErrorIs(t, err, ErrMalformed, n)
		}
	}
	many := nodes
	many.shape, many.level, many.indexes = Shape{everything, MaxDepth}, MaxDepth, make([]uint32, MaxItems+1)
	for i := range many.indexes {
		many.indexes[i] = uint32(i)
	}
	for name, request := range map[string][]byte{
		"level below the leaves": with(nodes, set(head, 3)),
		"depth":                  with(nodes, set(16, MaxDepth+1)),
		"range":                  with(nodes, set(0, 1)),
		"no items":               append(nodes.append(nil)[:head+1], 0),
		"too many items":         many.append(nil),
		"index":                  append(nodes.append(nil)[:head+1], 1, 4),
		"sum of gaps":            append(nodes.append(nil)[:head+1], 2, 2, 1),
		"huge gap":               append(binary.AppendUvarint(append(nodes.append(nil)[:head+1], 2, 1), 1<<64-1), 0),
		"bytes after":            append(nodes.append(nil), 0),
		"leaf":                   with(cut, set(head+4, 16)),
		"span":                   with(cut, set(head+12, 6)),
		"slice beyond its span":  with(cut, set(len(cut.append(nil))-1, 2)),
		"length":                 append(nodes.append(nil), make([]byte, MaxRequestBytes)...),
	} {
		reply, err := tree.Answer(nil, request, p.read)
		require.ErrorIs(t, err, ErrMalformed, name)
		require.Empty(t, reply, name)
	}
}

// TestMalformedReplies: replies that do not fit what was asked.
func TestMalformedReplies(t *testing.T) {
	defer fewEntries(4)()
	mine := one(5, 20)
	theirs := mine.changed(1, 20)
	s := Shape{Range{0, 9}, 0}
	other := theirs.tree(t, s)
	// at returns a Diff that has asked for the leaf, or for the slices of a cut of it.
	at := func(asked int) (*Diff, []byte) {
		d := NewDiff(mine.tree(t, s), other.Root(), Salt{}, mine.read)
		for {
			reply, err := other.Answer(nil, d.Request(nil), theirs.read)
			require.NoError(t, err)
			if asked--; asked < 0 {
				return d, reply
			}
			require.NoError(t, d.Step(reply, func(Difference) {}))
		}
	}
	none := func(Difference) { t.Fatal("found in malformed bytes") }
	leaf := func(entries ...byte) []byte { return append([]byte{byte(2 * len(entries) / 9)}, entries...) }
	parts := append([]byte{1}, make([]byte, Slices*shortBytes)...)
	for name, reply := range map[string][]byte{
		"nothing":           {},
		"cut short":         {2, 1, 2, 3},
		"flags":             {3, 0},
		"count":             binary.AppendUvarint(nil, 1<<63),
		"cut slices":        parts[:1000],
		"token above range": leaf(10, 1, 2, 3, 4, 5, 6, 7, 8),
	} {
		d, _ := at(0)
		require.ErrorIs(t, d.Step(reply, none), ErrMalformed, name)
	}
	d, honest := at(0)
	require.Equal(t, parts[0], honest[0])
	require.ErrorIs(t, d.Step(append(bytes.Clone(honest), 0), none), ErrMalformed)

	d, _ = at(1)
	slice := uint64(d.asked.indexes[0])
	outside := append([]byte{1}, leaf(5, 0, 0, 0, 0, 0, 0, 0, 0)...)
	binary.BigEndian.PutUint64(outside[3:], everything.part(Slices, slice).Hi+1)
	for name, reply := range map[string][]byte{
		"nothing":                {},
		"no slice":               {0, 0},
		"more slices than asked": {41, 0},
		"short of another slice": outside,
		"slices of many slices":  append([]byte{2}, parts...),
		"bytes after":            {1, 0, 0},
	} {
		d, _ := at(1)
		require.ErrorIs(t, d.Step(reply, none), ErrMalformed, name)
	}

	// A peer that goes on cutting comes to an end: a span of one short, or of fewer
	// shorts than the slices it gives.
	for _, honest := range []bool{true, false} {
		d, _ := at(0)
		reply := parts
		for {
			span := everything
			if d.Request(nil); d.asked.level == sliced {
				span = (&selection{span: d.asked.span, indexes: d.asked.indexes[:1]}).only()
				reply = append([]byte{1}, parts...)
			}
			for k := range Slices {
				digest := uint64(1)
				if honest && uint64(k) >= slicesOf(span) {
					digest = 0
				}
				binary.BigEndian.PutUint64(reply[len(reply)-(Slices-k)*shortBytes:], digest)
			}
			err := d.Step(reply, none)
			if honest && span.Lo < span.Hi || slicesOf(span) == Slices {
				require.NoError(t, err)
				continue
			}
			require.ErrorIs(t, err, ErrMalformed)
			break
		}
	}
}
