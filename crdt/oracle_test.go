package crdt

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/vclock"
)

// The tests below let a few replicas mutate and merge at random, and compare what they
// show with what follows from the history of operations alone.

var torture = os.Getenv("KVSTORE_TORTURE") != ""

// maxOps is how many operations a run may have: a replica's past is a bit for each.
const maxOps = 64

// An op is one mutation that was made, and what its author had seen.
type op struct {
	Mutation
	dot  vclock.Dot
	seen uint64
}

// A peer is a replica and what it has seen.
type peer struct {
	state State
	seen  uint64
	actor uint64
}

// A run is one history.
type run struct {
	*rand.Rand
	kind  Kind
	ops   []op
	peers []peer
	old   []peer
	next  uint64
	merge func(a, b State) (State, error)
	// forgetful runs apply without request ids.
	forgetful bool
	states    []State
}

func newRun(seed uint64, kind Kind, peers int) *run {
	r := &run{Rand: rand.New(rand.NewPCG(seed, 7)), kind: kind, merge: State.Merge}
	for range peers {
		r.peers = append(r.peers, peer{actor: r.actor()})
	}
	return r
}

func (r *run) actor() uint64 {
	r.next++
	return r.next * 0x9e3779b97f4a7c15
}

// draw makes a mutation. Requests come again.
func (r *run) draw() Mutation {
	m := Mutation{Kind: r.kind}
	names := func() (s []string) {
		for range r.IntN(3) {
			s = append(s, string(rune('a'+r.IntN(4))))
		}
		return s
	}
	if r.kind == MapKind {
		m.Field = Field{string(rune('x' + r.IntN(2))), []Kind{CounterKind, SetKind, RegisterKind}[r.IntN(3)]}
		if m.Remove = r.IntN(4) == 0; m.Remove {
			return m
		}
	}
	switch m.target() {
	case CounterKind:
		m.Delta = r.Int64N(2001) - 1000
		if r.kind == CounterKind && r.IntN(2) == 0 {
			id := r.IntN(8)
			m.Request, m.Delta = fmt.Sprint("request ", id), int64(1)<<(10+id) // always the same of one id
		}
	case SetKind:
		m.Add, m.Drop = names(), names()
	case RegisterKind:
		m.Value = fmt.Appendf(nil, "v%d", r.IntN(3))
	}
	return m
}

// step does one thing at random.
func (r *run) step() error {
	i := r.IntN(len(r.peers))
	p := &r.peers[i]
	switch c := r.IntN(20); {
	case c < 10 && len(r.ops) < maxOps:
		// Stamps go up for each actor, and every which way between them.
		d := vclock.Dot{Stamp: uint64(len(r.ops)+1)*8 + r.Uint64N(64), Actor: p.actor}
		if own := (vclock.History{V: []vclock.Dot{d}}); p.state.context.Covers(own) {
			d.Stamp = p.state.context.Max().Stamp + 1
		}
		m := r.draw()
		applied := m
		if r.forgetful {
			applied.Request = ""
		}
		next, err := p.state.Apply(applied, d)
		if err != nil {
			return err
		}
		r.ops = append(r.ops, op{m, d, p.seen})
		p.state, p.seen = next, p.seen|1<<(len(r.ops)-1)
	case c < 17:
		q := r.peers[r.IntN(len(r.peers))]
		if len(r.old) > 0 && r.IntN(4) == 0 { // a late message
			q = r.old[r.IntN(len(r.old))]
		}
		m, err := r.merge(p.state, q.state)
		if err != nil {
			return err
		}
		p.state, p.seen = m, p.seen|q.seen
	case c < 19:
		r.old = append(r.old, *p)
	default: // it starts anew, and may have lost what it knew
		if len(r.old) > 0 && r.IntN(2) == 0 {
			*p = r.old[r.IntN(len(r.old))]
		}
		p.actor = r.actor()
	}
	r.states = append(r.states, p.state)
	return r.compare(*p)
}

// compare wants a peer to show what the history says.
func (r *run) compare(p peer) error {
	if p.state.kind == 0 {
		return nil
	}
	want, got := r.expect(p.seen), show(p.state)
	if want != got {
		return fmt.Errorf("a replica shows %s, the history says %s", got, want)
	}
	return nil
}

// show writes down what a state shows.
func show(s State) string {
	switch s.kind {
	case CounterKind:
		n, err := s.Count()
		return fmt.Sprint(n, err)
	case SetKind:
		return strings.Join(s.Elements(), ",")
	case RegisterKind:
		return fmt.Sprintf("%s", s.Values())
	}
	var b strings.Builder
	for _, f := range s.Fields() {
		v, _ := s.Field(f)
		fmt.Fprintf(&b, "%s %v: %s; ", f.Name, f.Kind, show(v))
	}
	return b.String()
}

// expect is what somebody sees who has seen these operations.
func (r *run) expect(seen uint64) string {
	if r.kind != MapKind {
		text, _ := r.expectField(Field{}, r.kind, seen)
		return text
	}
	var b strings.Builder
	for _, name := range []string{"x", "y"} {
		for _, k := range []Kind{CounterKind, SetKind, RegisterKind} {
			if text, there := r.expectField(Field{name, k}, k, seen); there {
				fmt.Fprintf(&b, "%s %v: %s; ", name, k, text)
			}
		}
	}
	return b.String()
}

// each gives the operations in seen on a field.
func (r *run) each(f Field, seen uint64, do func(i int, o *op)) {
	for i := range r.ops {
		if seen>>i&1 == 1 && r.ops[i].Field == f {
			do(i, &r.ops[i])
		}
	}
}

func (r *run) expectField(f Field, k Kind, seen uint64) (text string, there bool) {
	// undone: somebody who had seen operation i did what undoes it.
	undone := func(i int, seen uint64, undoes func(o *op) bool) (yes bool) {
		r.each(f, seen, func(_ int, o *op) { yes = yes || o.seen>>i&1 == 1 && (o.Remove || undoes(o)) })
		return yes
	}
	switch k {
	case SetKind:
		in := map[string]bool{}
		r.each(f, seen, func(i int, o *op) {
			for _, e := range o.Add {
				in[e] = in[e] || !undone(i, seen, func(o *op) bool { return slices.Contains(o.Drop, e) && !slices.Contains(o.Add, e) })
			}
		})
		var all []string
		for e, yes := range in {
			if yes {
				all = append(all, e)
			}
		}
		slices.Sort(all)
		return strings.Join(all, ","), len(all) > 0
	case RegisterKind:
		var all []*op
		r.each(f, seen, func(i int, o *op) {
			if !o.Remove && !undone(i, seen, func(o *op) bool { return true }) {
				all = append(all, o)
			}
		})
		slices.SortFunc(all, func(a, b *op) int { return b.dot.Compare(a.dot) })
		var values [][]byte
		for _, o := range all {
			values = append(values, o.Value)
		}
		return fmt.Sprintf("%s", values), len(all) > 0
	}
	// A counter: of each actor what it counted since the last removal that had seen
	// all it had counted by then.
	sum, requests := int64(0), map[string]bool{}
	totals, last := map[uint64]int64{}, map[uint64]int{}
	removed := func(actor, seen uint64) bool { return undone(last[actor], seen, func(o *op) bool { return false }) }
	r.each(f, seen, func(i int, o *op) {
		if o.Remove {
			return
		}
		a := o.dot.Actor
		if _, ok := last[a]; ok && removed(a, o.seen) {
			totals[a] = 0
		}
		last[a] = i
		if o.Request != "" {
			if !requests[o.Request] {
				sum += o.Delta
			}
			requests[o.Request] = true
			return
		}
		totals[a] += o.Delta
	})
	for a := range last {
		if !removed(a, seen) {
			sum, there = sum+totals[a], true
		}
	}
	return fmt.Sprint(sum, error(nil)), there
}

// oracle runs histories until one differs from what it should show.
func oracle(runs int, set func(*run)) error {
	for seed := range runs {
		for _, k := range []Kind{CounterKind, SetKind, MapKind} {
			r := newRun(uint64(seed), k, 2+seed%4)
			if set != nil {
				set(r)
			}
			for i := range 150 {
				if err := r.step(); err != nil {
					return fmt.Errorf("%v, seed %d, step %d: %w", k, seed, i, err)
				}
			}
			if set != nil {
				continue
			}
			if err := r.converge(); err != nil {
				return fmt.Errorf("%v, seed %d: %w", k, seed, err)
			}
		}
	}
	return nil
}

// converge merges all into each, in different orders: they are the same, byte for byte.
func (r *run) converge() error {
	var first []byte
	for range len(r.peers) {
		var s State
		for _, i := range r.Perm(len(r.peers)) {
			var err error
			if s, err = s.Merge(r.peers[i].state); err != nil {
				return err
			}
		}
		if s.kind == 0 {
			continue
		}
		b := s.Append(nil)
		if first == nil {
			first = b
		}
		if string(b) != string(first) {
			return fmt.Errorf("replicas that have seen the same differ: %x and %x", b, first)
		}
	}
	return nil
}

// TestOracle: counters, sets and maps show what the history of operations says, through
// merges in any order, late messages, replicas that start anew and replicas that lost what
// they knew.
func TestOracle(t *testing.T) {
	runs := 150
	if torture {
		runs *= 50
	}
	require.NoError(t, oracle(runs, nil))
}

// TestOracleSees: the test above fails for a merge that does not look at what was
// seen, and without request ids.
func TestOracleSees(t *testing.T) {
	require.ErrorContains(t, oracle(50, func(r *run) {
		r.merge = func(a, b State) (State, error) {
			return State{r.kind, a.context.Join(b.context), join(a.store, vclock.History{}, b.store, vclock.History{})}, nil
		}
	}), "the history says")
	require.ErrorContains(t, oracle(50, func(r *run) { r.forgetful = true }), "the history says")
}

// pool gives states as they come to be, those of two histories that used the same dots
// for different things among them.
func pool(kind Kind, seed uint64) []State {
	var all []State
	for s := range uint64(2) {
		r := newRun(seed*2+s, kind, 3)
		for range 60 {
			_ = r.step()
		}
		all = append(all, r.states...)
	}
	return slices.DeleteFunc(all, func(s State) bool { return s.kind == 0 })
}

// TestLaws: Merge is commutative, associative and idempotent, and never takes anything
// back; equal states have equal bytes; the encoding is the only one.
func TestLaws(t *testing.T) {
	rounds := 40
	if torture {
		rounds *= 20
	}
	for _, k := range []Kind{CounterKind, SetKind, MapKind} {
		for round := range rounds {
			states := pool(k, uint64(round))
			draw := rand.New(rand.NewPCG(uint64(round), uint64(k)))
			for range 60 {
				var s [3]State
				for i := range s {
					s[i] = states[draw.IntN(len(states))]
				}
				ab, ba := merged(t, s[0], s[1]), merged(t, s[1], s[0])
				require.Equal(t, ab.Append(nil), ba.Append(nil), "commutative")
				require.Equal(t, merged(t, ab, s[2]).Append(nil), merged(t, s[0], merged(t, s[1], s[2])).Append(nil), "associative")
				require.Equal(t, s[0].Append(nil), merged(t, s[0], s[0]).Append(nil), "idempotent")
				require.Equal(t, ab.Append(nil), merged(t, ab, s[1]).Append(nil), "inflation")
				require.True(t, ab.context.Covers(s[0].context))
				back, err := Decode(ab.Append(nil))
				require.NoError(t, err)
				require.Equal(t, ab.Append(nil), back.Append(nil))
				require.Equal(t, show(ab), show(back))
			}
		}
	}
}

func merged(t *testing.T, a, b State) State {
	t.Helper()
	m, err := a.Merge(b)
	require.NoError(t, err)
	return m
}
