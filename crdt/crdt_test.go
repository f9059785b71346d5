package crdt_test

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/crdt"
	"example.com/kvstore/vclock"
)

// An author applies mutations as one actor.
type author struct {
	t     testing.TB
	actor uint64
	state crdt.State
	stamp uint64
}

func (a *author) apply(m crdt.Mutation) {
	a.t.Helper()
	require.NoError(a.t, a.try(m))
}

func (a *author) try(m crdt.Mutation) error {
	a.stamp = max(a.stamp, a.state.Context().Max().Stamp) + 1
	next, err := a.state.Apply(m, vclock.Dot{Stamp: a.stamp, Actor: a.actor})
	if err == nil {
		a.state = next
	}
	return err
}

func (a *author) merge(b *author) {
	a.t.Helper()
	m, err := a.state.Merge(b.state)
	require.NoError(a.t, err)
	a.state = m
}

func (a *author) count() int64 {
	a.t.Helper()
	n, err := a.state.Count()
	require.NoError(a.t, err)
	return n
}

func count(n int64, id string) crdt.Mutation {
	return crdt.Mutation{Kind: crdt.CounterKind, Delta: n, Request: id}
}

// TestRequests: a request is counted once, wherever it is sent again, also when two
// actors counted it that had not heard of each other, and of whom one never comes back.
func TestRequests(t *testing.T) {
	a, b, c := &author{t: t, actor: 1}, &author{t: t, actor: 2}, &author{t: t, actor: 3}
	for _, x := range []*author{a, b, c} {
		x.apply(count(5, "r"))
		x.apply(count(5, "r"))
		require.Equal(t, int64(5), x.count())
	}
	a.merge(b)
	require.Equal(t, int64(5), a.count())
	a.apply(count(1, ""))
	a.merge(c)
	require.Equal(t, int64(6), a.count())
	b.merge(a)
	b.apply(count(1, "s"))
	require.Equal(t, int64(7), b.count())
	c.merge(b)
	c.apply(count(0, ""))
	a.merge(c)
	for _, x := range []*author{a, c} {
		x.apply(count(5, "r"))
		require.Equal(t, int64(7), x.count())
	}
}

// TestRequestsForgotten: as many requests are remembered as the documentation says, and
// the oldest is forgotten first. To forget does not change the count.
func TestRequestsForgotten(t *testing.T) {
	a := &author{t: t, actor: 1}
	b := &author{t: t, actor: 2}
	a.apply(count(1, "twice"))
	b.apply(count(1, "twice"))
	a.merge(b)
	for i := range crdt.MaxRequests - 2 { // beside the two above
		a.apply(count(1, fmt.Sprint(i)))
	}
	sum := int64(crdt.MaxRequests - 1)
	a.apply(count(1, "0"))
	require.Equal(t, sum, a.count())
	full := len(a.state.Append(nil))
	for i := range 10 * crdt.MaxRequests {
		a.apply(count(1, fmt.Sprint("more ", i)))
	}
	sum += 10 * crdt.MaxRequests
	require.Equal(t, sum, a.count())
	require.Less(t, len(a.state.Append(nil)), 2*full)
	a.apply(count(1, "twice")) // in doubt still, so not forgotten
	require.Equal(t, sum, a.count())
	a.apply(count(1, "0"))
	require.Equal(t, sum+1, a.count())
}

// TestOverflow: a count beyond an int64 is refused, and where two sides reached it
// apart it is an error of the read, until enough is counted down.
func TestOverflow(t *testing.T) {
	a, b := &author{t: t, actor: 1}, &author{t: t, actor: 2}
	a.apply(count(math.MaxInt64, ""))
	require.ErrorIs(t, a.try(count(1, "r")), crdt.ErrOverflow)
	require.Equal(t, int64(math.MaxInt64), a.count())
	b.apply(count(2, ""))
	a.merge(b)
	_, err := a.state.Count()
	require.ErrorIs(t, err, crdt.ErrOverflow)
	require.ErrorIs(t, a.try(count(0, "")), crdt.ErrOverflow)
	a.apply(count(-1, ""))
	_, err = a.state.Count()
	require.ErrorIs(t, err, crdt.ErrOverflow)
	a.apply(count(-1, ""))
	require.Equal(t, int64(math.MaxInt64), a.count())
	a.apply(count(-math.MaxInt64, ""))
	require.Equal(t, int64(0), a.count())
	b.merge(a)
	b.apply(count(math.MinInt64, ""))
	require.Equal(t, int64(math.MinInt64), b.count())
	require.ErrorIs(t, b.try(count(-1, "")), crdt.ErrOverflow)
}

// TestSet: an element that one side removes and the other adds again is there, one that
// nobody added again is not, and what is removed leaves nothing but the context.
func TestSet(t *testing.T) {
	a, b := &author{t: t, actor: 1}, &author{t: t, actor: 2}
	change := func(add, drop string) crdt.Mutation {
		return crdt.Mutation{Kind: crdt.SetKind, Add: strings.Fields(add), Drop: strings.Fields(drop)}
	}
	a.apply(change("x y z", ""))
	b.merge(a)
	a.apply(change("", "x y"))
	b.apply(change("x", ""))
	b.merge(a)
	require.Equal(t, []string{"x", "z"}, b.state.Elements())
	require.True(t, b.state.Contains("x"))
	require.False(t, b.state.Contains("y"))
	b.apply(change("y", "nothing"))
	require.Equal(t, 3, b.state.Len())
	b.apply(change("", "x y z"))
	bare := len(b.state.Append(nil))
	for i := range 1000 {
		b.apply(change(fmt.Sprint("e", i), fmt.Sprint("e", i-1)))
	}
	b.apply(change("", "e999"))
	require.Len(t, b.state.Append(nil), bare)
}

// TestKinds: states of different kinds do not merge, and none is changed as another.
func TestKinds(t *testing.T) {
	a, b := &author{t: t, actor: 1}, &author{t: t, actor: 2}
	a.apply(count(1, ""))
	b.apply(crdt.Mutation{Kind: crdt.SetKind, Add: []string{"x"}})
	_, err := a.state.Merge(b.state)
	require.ErrorIs(t, err, crdt.ErrKind)
	require.ErrorIs(t, b.try(count(1, "")), crdt.ErrKind)
	for _, m := range []crdt.Mutation{
		{}, {Kind: crdt.RegisterKind}, {Kind: crdt.MapKind}, {Kind: crdt.MapKind, Field: crdt.Field{Kind: crdt.MapKind}},
		{Kind: crdt.CounterKind, Remove: true}, {Kind: crdt.SetKind, Field: crdt.Field{Name: "f"}},
	} {
		require.ErrorIs(t, m.Check(), crdt.ErrKind, "%+v", m)
	}
	long := strings.Repeat("x", crdt.MaxNameBytes+1)
	for _, m := range []crdt.Mutation{
		count(1, strings.Repeat("x", crdt.MaxRequestBytes+1)), {Kind: crdt.SetKind, Add: []string{"", long}}, {Kind: crdt.SetKind, Drop: []string{long}},
		{Kind: crdt.MapKind, Field: crdt.Field{Name: long, Kind: crdt.RegisterKind}},
	} {
		require.ErrorIs(t, m.Check(), crdt.ErrLimit)
	}
	require.Panics(t, func() { _, _ = a.state.Apply(count(1, ""), vclock.Dot{Stamp: 1, Actor: 1}) })
}

// samples are states and mutations of all kinds.
func samples(t testing.TB) (states, mutations [][]byte) {
	for _, list := range [][]crdt.Mutation{
		{count(3, "a request"), count(-1, "")},
		{{Kind: crdt.SetKind, Add: []string{"", "b", "a"}}, {Kind: crdt.SetKind, Drop: []string{"b"}}},
		{
			{Kind: crdt.MapKind, Field: crdt.Field{Name: "n", Kind: crdt.CounterKind}, Delta: math.MinInt64},
			{Kind: crdt.MapKind, Field: crdt.Field{Name: "n", Kind: crdt.SetKind}, Add: []string{"x"}},
			{Kind: crdt.MapKind, Field: crdt.Field{Name: "n", Kind: crdt.RegisterKind}, Value: []byte("v")},
			{Kind: crdt.MapKind, Field: crdt.Field{Name: "m", Kind: crdt.RegisterKind}, Value: []byte("w")},
			{Kind: crdt.MapKind, Field: crdt.Field{Name: "m", Kind: crdt.RegisterKind}, Remove: true},
		},
	} {
		a, b := &author{t: t, actor: 1 << 60}, &author{t: t, actor: 2}
		for _, m := range list {
			a.apply(m)
			b.apply(m)
			mutations = append(mutations, m.Append(nil))
			states = append(states, a.state.Append(nil))
		}
		a.merge(b)
		states = append(states, a.state.Append(nil))
	}
	return states, mutations
}

// TestDecode: what was written is read back, and nothing that was cut short or has a
// byte too many.
func TestDecode(t *testing.T) {
	states, mutations := samples(t)
	for _, b := range states {
		s, err := crdt.Decode(b)
		require.NoError(t, err)
		require.Equal(t, b, s.Append(nil))
		require.True(t, crdt.Encoded(b))
		for i := range b {
			_, err := crdt.Decode(b[:i])
			require.ErrorIs(t, err, crdt.ErrMalformed)
		}
		_, err = crdt.Decode(append(bytes.Clone(b), 0))
		require.ErrorIs(t, err, crdt.ErrMalformed)
	}
	for _, b := range mutations {
		m, err := crdt.DecodeMutation(b)
		require.NoError(t, err)
		require.Equal(t, b, m.Append(nil))
	}
	require.False(t, crdt.Encoded([]byte("text")))
}

func FuzzDecode(f *testing.F) {
	states, _ := samples(f)
	for _, b := range states {
		f.Add(b, b)
	}
	f.Add(states[0], states[1])
	f.Fuzz(func(t *testing.T, a, b []byte) {
		x, err := crdt.Decode(a)
		if err != nil {
			return
		}
		if !bytes.Equal(x.Append(nil), a) {
			t.Fatalf("%x is read, but written as %x", a, x.Append(nil))
		}
		_, _ = x.Count()
		_, _, _ = x.Elements(), x.Fields(), x.Values()
		m, err := crdt.MergeEncoded(a, b)
		if err != nil {
			return
		}
		n, err := crdt.MergeEncoded(b, a)
		if err != nil || !bytes.Equal(m, n) {
			t.Fatalf("%x and %x, %v", m, n, err)
		}
		if again, err := crdt.MergeEncoded(m, b); err != nil || !bytes.Equal(m, again) {
			t.Fatalf("%x again %x, %v", m, again, err)
		}
	})
}

func FuzzDecodeMutation(f *testing.F) {
	_, mutations := samples(f)
	for _, b := range mutations {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := crdt.DecodeMutation(b)
		if err != nil {
			return
		}
		if !bytes.Equal(m.Append(nil), b) {
			t.Fatalf("%x is read, but written as %x", b, m.Append(nil))
		}
		s, err := crdt.State{}.Apply(m, vclock.Dot{Stamp: 1, Actor: 1})
		if err != nil {
			t.Fatal(err) // from nothing, every mutation is possible
		}
		if _, err := crdt.Decode(s.Append(nil)); err != nil {
			t.Fatal(err)
		}
	})
}
