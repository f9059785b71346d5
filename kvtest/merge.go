package kvtest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// mergeCases is how many triples of values CheckMerge tries.
const mergeCases = 20_000

// CheckMerge looks for values with which a merge function, as kvstore.MergeFunc
// takes it, is not commutative, associative and idempotent, or modifies its
// arguments, and fails the test with the shortest counter-example found. draw gives
// random values of the application, small ones often: laws are broken by values
// that have something in common.
//
// Replicas merge what they have in any order and any number of times, so a
// function that breaks a law gives different values on different nodes.
func CheckMerge(t testing.TB, merge func(a, b []byte) []byte, draw func(r *rand.Rand) []byte) {
	t.Helper()
	if found := mergeCounterExample(merge, draw); found != "" {
		t.Errorf("kvtest: the merge function is not fit for kvstore.MergeFunc:\n%s", found)
	}
}

// mergeCounterExample describes the shortest broken law, or nothing.
func mergeCounterExample(merge func(a, b []byte) []byte, draw func(r *rand.Rand) []byte) string {
	m := merging{merge: merge}
	r := rand.New(rand.NewPCG(1, 2))
	pool := [][]byte{}
	for range mergeCases {
		// Old values come again, and so does what came of merging: both are what
		// replicas meet.
		var v [3][]byte
		for i := range v {
			if len(pool) > 0 && r.IntN(2) == 0 {
				v[i] = pool[r.IntN(len(pool))]
			} else {
				v[i] = bytes.Clone(draw(r))
			}
		}
		m.try(v[0], v[1], v[2])
		for _, x := range [][]byte{v[0], merge(bytes.Clone(v[0]), bytes.Clone(v[1]))} {
			if len(pool) < 64 {
				pool = append(pool, bytes.Clone(x))
			} else {
				pool[r.IntN(len(pool))] = bytes.Clone(x)
			}
		}
	}
	return m.shortest
}

// A merging tries a merge function and keeps the shortest counter-example.
type merging struct {
	merge    func(a, b []byte) []byte
	shortest string
	size     int
}

func (m *merging) try(a, b, c []byte) {
	ab, ba := m.call(a, b), m.call(b, a)
	m.equal("not commutative", "merge(a, b)", ab, "merge(b, a)", ba, a, b, nil)
	m.equal("not idempotent", "merge(a, a)", m.call(a, a), "a", a, a, nil, nil)
	m.equal("not idempotent", "merge(merge(a, b), b)", m.call(ab, b), "merge(a, b)", ab, a, b, nil)
	m.equal("not associative", "merge(merge(a, b), c)", m.call(ab, c), "merge(a, merge(b, c))", m.call(a, m.call(b, c)), a, b, c)
}

// call merges copies, and gives a copy.
func (m *merging) call(a, b []byte) []byte {
	x, y := bytes.Clone(a), bytes.Clone(b)
	out := bytes.Clone(m.merge(x, y))
	if !bytes.Equal(a, x) || !bytes.Equal(b, y) {
		m.note(len(a)+len(b), fmt.Sprintf("it modifies its arguments\n  a = %q\n  b = %q", a, b))
	}
	return out
}

func (m *merging) equal(law, left string, x []byte, right string, y []byte, values ...[]byte) {
	if bytes.Equal(x, y) {
		return
	}
	text, size := "it is "+law, 0
	for i, v := range values {
		if v != nil {
			text += fmt.Sprintf("\n  %c = %q", 'a'+i, v)
		}
		size += len(v)
	}
	m.note(size, fmt.Sprintf("%s\n  %s = %q\n  %s = %q", text, left, x, right, y))
}

func (m *merging) note(size int, text string) {
	if m.shortest == "" || size < m.size {
		m.shortest, m.size = text, size
	}
}
