package vclock

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// rules are what the chain rule rests on: that a set with dot (n, a) reflects
// all earlier causal dots of a for the key. See Set.Write.
type rules struct {
	applyFirst  bool // a causal write is applied where it is coordinated, or not sent
	plainActors bool // plain writes have actors of their own
	freshActor  bool // an owner that lost its state takes a new causal actor
}

const (
	owners    = 2
	maxWrites = 6
)

type step struct {
	kind string
	at   int // the owner that acts
	to   int // a bit for each owner that receives the write
}

func (s step) String() string { return fmt.Sprintf("%s@%d->%02b", s.kind, s.at, s.to) }

// steps lists everything that can happen to two owners of one key.
func steps() []step {
	var all []step
	for at := range owners {
		for to := 1; to < 1<<owners; to++ {
			all = append(all, step{"plain", at, to}, step{"beside", at, to}, step{"replace", at, to})
		}
		all = append(all, step{"join", at, 1 << (1 - at)}, step{"lose", at, 0})
	}
	return all
}

// An execution is what two owners hold, next to the truth: bit i of a mask is
// write i, whose stamp is i+1.
type execution struct {
	set    [owners]Set
	knows  [owners]uint32 // writes that an owner's set reflects
	actor  [owners]uint64 // each owner's causal actor
	actors uint64
	writes int
	dot    [maxWrites]Dot
	beaten uint32            // writes superseded by another
	holds  [maxWrites]uint32 // owners that had the write and never lost their state
}

func (e *execution) deliver(to int, s Set, knows uint32) {
	e.set[to] = Join(e.set[to], s)
	e.knows[to] |= knows
	for i := range e.writes {
		if e.set[to].has(e.dot[i]) {
			e.holds[i] |= 1 << to
		}
	}
}

// do returns the execution after a step, and whether the rules allow it.
func (e execution) do(s step, r rules) (execution, bool) {
	at := s.at
	switch s.kind {
	case "join":
		e.deliver(1-at, e.set[at], e.knows[at])
		return e, true
	case "lose":
		e.set[at], e.knows[at] = Set{}, 0
		for i := range e.holds {
			e.holds[i] &^= 1 << at
		}
		if r.freshActor {
			e.actor[at] = e.actors
			e.actors++
		}
		return e, true
	}

	if e.writes == maxWrites || s.kind != "plain" && r.applyFirst && s.to>>at&1 == 0 {
		return e, false
	}
	bit := uint32(1) << e.writes
	w := Sibling{Dot: Dot{uint64(e.writes) + 1, e.actor[at]}}
	if s.kind == "plain" && r.plainActors {
		w.Dot.Actor = 100 + uint64(at)
	}
	e.dot[e.writes] = w.Dot
	e.writes++

	var sent Set
	knows := bit
	switch s.kind {
	case "plain":
		sent = Plain(w)
		e.beaten |= bit - 1 // all of smaller stamp
	case "beside":
		sent = e.set[at].Write(History{}, w)
		knows |= e.knows[at]
	case "replace":
		sent = e.set[at].Write(e.set[at].History, w)
		knows |= e.knows[at]
		e.beaten |= e.knows[at]
	}
	for to := range owners {
		if s.to>>to&1 == 1 {
			e.deliver(to, sent, knows)
		}
	}
	return e, true
}

// lost reports whether a write that somebody holds is gone from the join of
// both owners, and no other write superseded it.
func (e *execution) lost() bool {
	j := Join(e.set[0], e.set[1])
	for i := range e.writes {
		if e.holds[i] != 0 && e.beaten>>i&1 == 0 && !j.has(e.dot[i]) {
			return true
		}
	}
	return false
}

// search runs all executions up to a depth. It returns how many there are, how
// many lose a write, and one of the shortest of those.
func search(r rules, depth int) (total, losses int, shortest []step) {
	all := steps()
	var path []step
	var visit func(e execution)
	visit = func(e execution) {
		total++
		if e.lost() {
			losses++
			if shortest == nil || len(path) < len(shortest) {
				shortest = append([]step(nil), path...)
			}
			return
		}
		if len(path) == depth {
			return
		}
		for _, s := range all {
			if next, ok := e.do(s, r); ok {
				path = append(path, s)
				visit(next)
				path = path[:len(path)-1]
			}
		}
	}
	visit(execution{actor: [owners]uint64{1, 2}, actors: 3})
	return total, losses, shortest
}

// TestChain enumerates executions of two owners of one key: with all three
// rules no write is ever lost; without any one of them, some are.
func TestChain(t *testing.T) {
	depth := 4
	if torture {
		depth = 5
	}
	all := rules{applyFirst: true, plainActors: true, freshActor: true}
	total, losses, path := search(all, depth)
	require.Zero(t, losses, "%v", path)
	t.Logf("%d executions, none loses a write", total)

	for name, r := range map[string]rules{
		"sent before it is applied":     {plainActors: true, freshActor: true},
		"plain and causal actors mixed": {applyFirst: true, freshActor: true},
		"actor kept after a loss":       {applyFirst: true, plainActors: true},
	} {
		total, losses, path := search(r, 3)
		require.NotZero(t, losses, name)
		t.Logf("%s: %d of %d executions lose a write, such as %v", name, losses, total, path)
	}
}
