package lsm

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/vclock"
)

// A model is what a tree should hold: the join of everything that was applied,
// by key, with vclock's join. It is never changed once made.
type model map[string]vclock.Set

// with gives the model after a batch.
func (m model) with(batch []Record) model {
	next := maps.Clone(m)
	for i := range batch {
		r := &batch[i]
		next[string(r.Key)] = vclock.Join(next[string(r.Key)], setOf(r))
	}
	return next
}

func setOf(r *Record) vclock.Set {
	if r.Kind != Causal {
		return plainSet(r)
	}
	s, err := vclock.DecodeSet(r.Value)
	if err != nil {
		panic(err)
	}
	return s
}

// purgeableLocally reports whether a tree without a horizon may drop what it
// knows of a key: a tombstone of its own.
func purgeableLocally(s vclock.Set) bool {
	return s.IsPlain() && s.Siblings[0].Tombstone && s.Siblings[0].Dot.Actor == LocalActor
}

// diff says how the tree differs from the model, or nothing. Tombstones of the
// tree's own actor may have been purged.
func (m model) diff(tree *Tree) string { return m.diffUnless(tree, nil) }

// diffUnless is diff, or the text of an expected error if that is what a scan
// gives.
func (m model) diffUnless(tree *Tree, expected error) string {
	seen := map[string]bool{}
	var last Record
	for r, err := range tree.Scan(0, math.MaxUint64) {
		switch {
		case expected != nil && errors.Is(err, expected):
			return expected.Error()
		case err != nil:
			return err.Error()
		}
		if last.Key != nil && last.Compare(r.Token, r.Key) >= 0 {
			return fmt.Sprintf("scan out of order at %q", r.Key)
		}
		last = Record{Token: r.Token, Key: slices.Clone(r.Key)}
		k := string(r.Key)
		seen[k] = true
		if got := setOf(&r); !got.Equal(m[k]) {
			return fmt.Sprintf("key %q: tree has %v, want %v", k, got, m[k])
		}
		if r.Kind == Causal && setOf(&r).IsPlain() {
			return fmt.Sprintf("key %q is not in normal form", k)
		}
	}
	for k, s := range m {
		if !seen[k] && !purgeableLocally(s) {
			return fmt.Sprintf("key %q is lost, want %v", k, s)
		}
	}
	return ""
}

func (m model) require(t testing.TB, tree *Tree) {
	t.Helper()
	if d := m.diff(tree); d != "" {
		t.Fatal(d)
	}
	for k, s := range m {
		r, ok, err := tree.Read([]byte(k))
		require.NoError(t, err)
		if ok {
			require.True(t, setOf(&r).Equal(s), "read of %q", k)
		}
	}
}

// A writer makes up batches. Keys that begin with "own" get the dots of the
// tree's own actor, in order; the others get records of two actors with dots in
// any order, plain and causal, and sometimes one that was made before.
type writer struct {
	r     *rand.Rand
	keys  int
	value int // length of values
	stamp uint64
	old   []Record
	// deadline makes up that of a record; nil: the record's stamp, which is long
	// past or never.
	deadline func() int64
	// causal is what the causal writers know of each key: they obey the rule
	// that a state with a dot of an actor reflects all its earlier causal dots.
	causal map[string]vclock.Set
}

func newWriter(seed uint64, keys, value int) *writer {
	return &writer{r: rand.New(rand.NewPCG(seed, 1)), keys: keys, value: value, causal: map[string]vclock.Set{}}
}

func (w *writer) batch() []Record {
	n := 1
	if w.r.IntN(4) == 0 {
		n = 2 + w.r.IntN(3)
	}
	var b []Record
	for range n {
		b = append(b, w.record())
	}
	return b
}

func (w *writer) record() Record {
	w.stamp += 1 + uint64(w.r.IntN(3))
	if len(w.old) > 0 && w.r.IntN(10) == 0 {
		return w.old[w.r.IntN(len(w.old))]
	}
	var r Record
	if w.r.IntN(2) == 0 {
		r = w.plain("own", vclock.Dot{Stamp: w.stamp, Actor: LocalActor})
	} else {
		late := uint64(w.r.IntN(20))
		d := vclock.Dot{Stamp: 100 + w.stamp - min(late, w.stamp), Actor: w.stamp<<8 | 1 + uint64(w.r.IntN(2))}
		if r = w.plain("any", d); w.r.IntN(3) == 0 {
			r = w.sibling(&r)
		}
		w.old = append(w.old, r)
	}
	return r
}

func (w *writer) plain(prefix string, d vclock.Dot) Record {
	k := fmt.Appendf(nil, "%s-%03d", prefix, w.r.IntN(w.keys))
	r := Record{Token: Token(k), Key: k, Min: d, Max: d, Kind: Tombstone}
	if w.r.IntN(4) > 0 {
		r.Kind, r.Value = Value, fmt.Appendf(nil, "%*d", w.r.IntN(w.value+1), w.stamp)
	}
	if r.Kind == Value && w.r.IntN(8) == 0 {
		r.Deadline = int64(w.stamp)
		if w.deadline != nil {
			r.Deadline = w.deadline()
		}
	}
	return r
}

// sibling makes a causal write of r: blind to what others wrote, or aware of it.
func (w *writer) sibling(r *Record) Record {
	k := string(r.Key)
	known := w.causal[k]
	seen := vclock.History{}
	if w.r.IntN(2) == 0 {
		seen = known.History
	}
	d := vclock.Dot{Stamp: max(known.Max().Stamp, r.Max.Stamp) + 1, Actor: 1<<40 + uint64(w.r.IntN(2))}
	s := known.Write(seen, vclock.Sibling{Dot: d, Tombstone: r.Kind == Tombstone, Value: r.Value})
	w.causal[k] = s
	c := Record{Token: r.Token, Key: r.Key, Kind: Causal, Value: vclock.AppendSet(nil, s)}
	c.Min, c.Max = s.Min(), s.Max()
	return c
}
