package vfs

// Crash gives the disk as a power cut at this instant may leave it: a file
// system of its own, everything on it durable, nothing open or locked. What
// goes on in m afterwards, also through open handles, does not change it.
//
// Content that was synced is there. Each change since may be there, missing or
// torn (see tear), whatever became of the others. Of the operations in each
// directory since its SyncDir a prefix is there; a rename between directories
// happened in both or in neither.
//
// The fate of a change is a hash of both seeds, the name its file was created
// with, its content and its number in that file: it does not depend on what
// happens to other files, nor on the order in which goroutines came.
//
// It costs a few words for each file and directory; contents are shared.
func (m *Mem) Crash(seed uint64) *Mem {
	return m.crash(mix(m.seed, seed), torn, whole)
}

// Tears is how many ways there are to tear a write.
const Tears = int(wounds - cutByte)

// CrashTorn is Crash, but that every write which is not durable is torn, in one of
// Tears ways.
func (m *Mem) CrashTorn(seed uint64, way int) *Mem {
	return m.crash(mix(m.seed, seed), torn, cutByte+wound(way))
}

// CrashSynced gives the kindest outcome of a power cut: everything is there,
// as if all had been synced, but for what a failed sync lost.
func (m *Mem) CrashSynced() *Mem { return m.crash(m.seed, kept, whole) }

// Strict gives the harshest outcome of a power cut: nothing that was not
// synced is there.
func (m *Mem) Strict() *Mem { return m.crash(m.seed, lost, whole) }

type outcome uint8

const (
	torn outcome = iota
	kept
	lost
)

// A crash computes the disk after a power cut. It runs under the lock of the
// old file system; the new one is not public yet.
type crash struct {
	seed    uint64
	outcome outcome
	wound   wound // of each write that is torn; whole: drawn
	from    *Mem
	to      *Mem
	nodes   map[*node]*node // old to new
}

func (m *Mem) crash(seed uint64, o outcome, w wound) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &crash{seed: seed, outcome: o, wound: w, from: m, to: NewMem(seed), nodes: make(map[*node]*node)}
	c.to.mu.capacity = m.mu.capacity
	var dirs []*node
	c.collect(m.mu.root, &dirs)
	for _, d := range dirs {
		d.keep = c.keep(d)
	}
	for _, d := range dirs {
		c.settle(d)
	}
	c.to.mu.root = c.survivor(m.mu.root)
	return c.to
}

// collect finds the directories that have operations pending. One that was
// removed, and may come back, has none.
func (c *crash) collect(d *node, dirs *[]*node) {
	if len(d.undo) > 0 {
		*dirs = append(*dirs, d)
	}
	for _, child := range d.entries {
		c.collect(child, dirs)
	}
}

// keep chooses how many operations of a directory survive.
func (c *crash) keep(d *node) uint64 {
	switch {
	case c.outcome == kept:
		return d.ordinal
	case c.outcome == lost:
		return d.synced
	}
	h := mix(mixString(c.seed, d.birth), d.synced)
	for _, op := range d.undo {
		for _, ch := range op.changes {
			h = mixString(h, ch.name)
		}
	}
	return d.synced + h%uint64(len(d.undo)+1)
}

// settle drops, with each half of a rename that is lost, its other half.
func (c *crash) settle(d *node) {
	for _, op := range d.undo {
		twin := op.twin
		if twin == nil {
			continue
		}
		here, there := op.seq < d.keep, twin.seq < twin.dir.keep
		if here && !there {
			d.keep = op.seq
			c.settle(d)
			return
		}
		if there && !here {
			twin.dir.keep = twin.seq
			c.settle(twin.dir)
		}
	}
}

// survivor gives the node of the new file system for one of the old.
func (c *crash) survivor(old *node) *node {
	n := c.nodes[old]
	if n == nil {
		n = &node{birth: old.birth, ordinal: old.ordinal, synced: old.ordinal}
		c.nodes[old] = n
		if old.dir() {
			entries := old.survivors()
			n.entries = make(map[string]*node, len(entries))
			for name, child := range entries {
				n.entries[name] = c.survivor(child)
			}
		} else {
			n.disk = c.image(old)
			n.now = n.disk.snapshot()
			c.to.mu.used += n.now.blocks
		}
	}
	n.links++
	return n
}

// image is the content of a file on the disk.
func (c *crash) image(n *node) content {
	disk := n.disk.snapshot()
	if c.outcome == torn {
		for i := range n.failed {
			c.land(&n.failed[i], n, &disk)
		}
	}
	for i := range n.pending {
		switch c.outcome {
		case torn:
			c.land(&n.pending[i], n, &disk)
		case kept:
			n.pending[i].apply(&disk)
		}
	}
	return disk
}

// land lets an edit reach the disk, or not, or in part.
func (c *crash) land(e *edit, n *node, disk *content) {
	if e.sum == 0 {
		e.sum = mixBytes(mix(mix(uint64(e.kind), uint64(e.off)), uint64(e.size)), e.data)
	}
	fate := stream(mix(mix(mixString(c.seed, n.birth), e.sum), e.ordinal))
	if e.kind == editWrite {
		wound := c.wound
		if wound == whole {
			wound = drawWound(&fate)
		}
		tear(e, wound, fate, disk)
	} else if fate.below(2) == 0 {
		e.apply(disk)
	}
}
