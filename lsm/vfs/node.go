package vfs

import "slices"

// A node is a file or a directory, whatever its names are.
type node struct {
	// birth is the name under which it was created. With the ordinal of a
	// change it names the change, and so decides its fate.
	birth   string
	ordinal uint64 // changes so far
	links   int    // entries that name it
	open    int    // handles
	// A file:
	now     content // what readers see
	disk    content // what is durable
	pending []edit  // what the next sync makes durable, oldest first
	failed  []edit  // what a failed sync lost; some of it may be on disk
	// A directory:
	entries map[string]*node // what readers see; nil for a file
	undo    []*dirOp         // the way back to what is durable, oldest first
	synced  uint64           // operations that are durable: ordinal - len(undo)
	keep    uint64           // operations that survive the crash being computed
	broken  error            // what every SyncDir answers since one failed
}

func (n *node) dir() bool { return n.entries != nil }

// An edit is a change of a file that is not durable yet.
type edit struct {
	kind    editKind
	off     int64  // the new size, of a resize
	size    int64  // of an allocation
	data    []byte // of a write
	ordinal uint64
	sum     uint64 // hash of the edit, once needed
}

type editKind uint8

const (
	editWrite editKind = iota
	editResize
	editAllocate
)

// A dirOp is one change of a directory, atomic on disk. A rename between
// directories is a pair of them, which survives as a pair.
type dirOp struct {
	dir     *node
	seq     uint64 // its number in dir
	changes []change
	twin    *dirOp
}

// A change of an entry, and how to undo it.
type change struct {
	name          string
	before, after *node // nil: no entry
}

func (n *node) apply(changes ...change) *dirOp {
	op := &dirOp{dir: n, seq: n.ordinal, changes: changes}
	n.ordinal++
	for _, c := range changes {
		put(n.entries, c.name, c.after)
	}
	n.undo = append(n.undo, op)
	return op
}

// commit makes the operations below seq durable. A directory operation takes
// all earlier ones of its directory along, as a journal does.
func (n *node) commit(seq uint64) {
	if !n.dir() || seq <= n.synced {
		return
	}
	done := seq - n.synced
	ops := n.undo[:done]
	n.undo, n.synced = slices.Clone(n.undo[done:]), seq
	for _, op := range ops {
		if op.twin != nil {
			op.twin.dir.commit(op.twin.seq + 1)
		}
	}
}

// survivors are the entries after the crash that keeps the operations below
// n.keep.
func (n *node) survivors() map[string]*node {
	if len(n.undo) == 0 {
		return n.entries
	}
	entries := make(map[string]*node, len(n.entries))
	for name, child := range n.entries {
		entries[name] = child
	}
	for _, op := range slices.Backward(n.undo[n.keep-n.synced:]) {
		for _, c := range slices.Backward(op.changes) {
			put(entries, c.name, c.before)
		}
	}
	return entries
}

func put(entries map[string]*node, name string, n *node) {
	if n == nil {
		delete(entries, name)
		return
	}
	entries[name] = n
}
