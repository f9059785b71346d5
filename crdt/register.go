package crdt

import (
	"bytes"

	"example.com/kvstore/vclock"
)

// A register is what was assigned and not seen by a later assignment: one value,
// unless there were concurrent ones.
type register []assigned

type assigned struct {
	dot   vclock.Dot
	value []byte
}

func (a assigned) at() vclock.Dot         { return a.dot }
func (a assigned) compare(b assigned) int { return bytes.Compare(a.value, b.value) }

// Values are those of a register that were assigned concurrently, the one with the
// highest stamp first; none for one that was never assigned. They must not be modified.
func (s State) Values() [][]byte {
	out := make([][]byte, 0, len(s.store.register))
	for i := len(s.store.register) - 1; i >= 0; i-- {
		out = append(out, s.store.register[i].value)
	}
	return out
}
