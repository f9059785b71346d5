package merkle

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzDecode: what decodes is a tree with the same encoding.
func FuzzDecode(f *testing.F) {
	for _, n := range []uint64{0, 1, 4, 5, 40} {
		f.Add(random(1, n, everything).tree(f, NewShape(0, 1<<64-1, n)).Append(nil))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tree, err := Decode(data)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		require.Equal(t, data, tree.Append(nil))
		require.True(t, tree.Shape().valid())
	})
}

// FuzzAnswer: any request is refused or gets a bounded reply.
func FuzzAnswer(f *testing.F) {
	p := append(random(1, 300, everything)[:150], one(1<<63, 150)...)
	s := NewShape(0, 1<<64-1, 300)
	tree := p.tree(f, s)
	for _, q := range []question{
		{shape: s, level: 0, indexes: []uint32{0}},
		{shape: s, level: 2, indexes: []uint32{0, 3, 4, 15}},
		{shape: s, level: 4, indexes: []uint32{0, 128, 255}},
		{shape: s, level: sliced, leaf: 128, span: everything, indexes: []uint32{1, 2, 4095}},
		{shape: s, level: sliced, leaf: 128, span: Range{5, 9}, indexes: []uint32{1}},
	} {
		f.Add(q.append(nil))
	}
	f.Fuzz(func(t *testing.T, request []byte) {
		reply, err := tree.Answer(nil, request, p.read)
		if err != nil {
			require.Empty(t, reply)
			return
		}
		require.NotEmpty(t, reply)
		require.LessOrEqual(t, len(reply), MaxReplyBytes)
	})
}

// FuzzStep: any reply is refused or taken, and the comparison ends: each reply taken
// answers something.
func FuzzStep(f *testing.F) {
	mine := append(random(1, 20, everything)[:10], one(1<<63, 20)...)
	theirs := mine.changed(1, 3)
	s := NewShape(0, 1<<64-1, 30)
	tree, other := mine.tree(f, s), theirs.tree(f, s)
	for n := range 4 { // honest replies, n bytes short
		d, replies := NewDiff(tree, other.Root(), Salt{}, mine.read), []byte(nil)
		for !d.Done() {
			reply, err := other.Answer(nil, d.Request(nil), theirs.read)
			require.NoError(f, err)
			require.NoError(f, d.Step(reply, func(Difference) {}))
			replies = append(replies, byte(len(reply)>>8), byte(len(reply)))
			replies = append(replies, reply[:max(0, len(reply)-n)]...)
		}
		f.Add(replies)
	}
	f.Fuzz(func(t *testing.T, replies []byte) {
		d := NewDiff(tree, other.Root(), Salt{}, mine.read)
		for steps := 0; len(replies) >= 2 && !d.Done(); steps++ {
			n := min(int(replies[0])<<8|int(replies[1]), len(replies)-2)
			request := d.Request(nil)
			require.LessOrEqual(t, len(request), MaxRequestBytes)
			if _, err := other.Answer(nil, request, theirs.read); err != nil {
				t.Fatal(err) // requests are well formed whatever came before
			}
			err := d.Step(replies[2:2+n], func(e Difference) { require.True(t, s.holds(e.Token)) })
			if err != nil {
				require.ErrorIs(t, err, ErrMalformed)
				return
			}
			replies = replies[2+n:]
		}
	})
}
