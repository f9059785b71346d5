package merkle

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// A Difference is a record that only one side has. A record of which the two sides
// have different versions makes two.
type Difference struct {
	Token uint64
	Short uint64 // its digest under the salt, which tells it from others of its token
	Here  bool   // the asker has it, the other side lacks it; else the reverse
}

// A Diff is one comparison of two trees of one shape, on the asker's side: it asks
// for ever smaller parts of the other tree.
//
//	NewDiff ──> children of differing nodes, level by level ──> records of the leaves ──> done
//	   │ roots equal                                               │   ^
//	   └──────────────────────────> done            oversized leaf └───┘ slices
//
// Send what Request gives to the other side, hand the bytes of its [Tree.Answer] to
// Step, and go on until Done. Same replies, same requests. Not for concurrent use.
type Diff struct {
	tree *Tree
	salt Salt
	read Reader

	level int      // of todo
	todo  []uint32 // differing nodes not yet looked into, ascending
	next  []uint32 // those found in the level below
	cuts  []cut    // oversized leaves being compared, the innermost part last

	asked        question // the open one; no indexes: none
	ranges       []Range
	contradicted []Range
}

// A cut is slices of a leaf that differ.
type cut struct {
	leaf    uint32
	span    Range
	indexes []uint32
}

// NewDiff compares t with a tree of the same shape whose root is root. The records of
// differing leaves are read with read; a nil read ends the comparison with the
// [Diff.Ranges] of these leaves.
func NewDiff(t *Tree, root Digest, salt Salt, read Reader) *Diff {
	d := &Diff{tree: t, salt: salt, read: read}
	if t.Root() != root {
		d.todo = []uint32{0}
		d.enter(0)
	}
	return d
}

// enter starts with a level.
func (d *Diff) enter(level int) {
	d.level = level
	if level < int(d.tree.shape.Depth) {
		return
	}
	for _, i := range d.todo {
		leaf := d.tree.shape.leaf(i)
		if n := len(d.ranges); n > 0 && d.ranges[n-1].Hi+1 == leaf.Lo {
			d.ranges[n-1].Hi = leaf.Hi
			continue
		}
		d.ranges = append(d.ranges, leaf)
	}
	if d.read == nil {
		d.todo = nil
	}
}

// Done says whether all differences were found.
func (d *Diff) Done() bool { return len(d.todo) == 0 && len(d.cuts) == 0 }

// Ranges are the leaves that differ, in token order, adjacent ones joined. They are
// complete as soon as the first request for records is made. Do not modify.
func (d *Diff) Ranges() []Range { return d.ranges }

// Contradicted are ranges in which the digests differ and what they are made of does
// not: one of the trees is damaged, or a Reader does not read what the tree was built
// of. All true differences are found nevertheless. Build both trees anew, and compare
// again. Do not modify.
func (d *Diff) Contradicted() []Range { return d.contradicted }

// Request appends the next request, at most [MaxRequestBytes], to dst, and nothing if
// the comparison is done. Until Step it is the same again.
func (d *Diff) Request(dst []byte) []byte {
	if d.Done() {
		return dst
	}
	d.asked = question{shape: d.tree.shape, salt: d.salt, level: d.level, indexes: d.todo}
	if n := len(d.cuts); n > 0 {
		c := &d.cuts[n-1]
		d.asked.level, d.asked.leaf, d.asked.span, d.asked.indexes = sliced, c.leaf, c.span, c.indexes
	}
	d.asked.indexes = d.asked.indexes[:min(len(d.asked.indexes), MaxItems)]
	return d.asked.append(dst)
}

// Step takes the reply to the last request and calls found for each difference that
// it shows, in no particular order, but always the same. found may be nil if the Diff
// has no Reader. The reply is not kept. After an error (that of the Reader, or
// [ErrMalformed]) the comparison cannot go on; what was found is true.
func (d *Diff) Step(reply []byte, found func(Difference)) error {
	asked := d.asked
	d.asked = question{}
	switch {
	case len(asked.indexes) == 0:
		return errors.New("merkle: a reply that was not asked for: call Request before Step")
	case asked.level == sliced:
		return d.stepSlices(&asked, reply, found)
	case asked.level == int(asked.shape.Depth):
		return d.stepLeaves(&asked, reply, found)
	}
	return d.stepNodes(&asked, reply)
}

func (d *Diff) stepNodes(asked *question, reply []byte) error {
	if want := len(asked.indexes) * Fanout * shortBytes; len(reply) != want {
		return fmt.Errorf("%w: reply of %d bytes where %d nodes have %d", ErrMalformed, len(reply), len(asked.indexes), want)
	}
	for _, i := range asked.indexes {
		known := len(d.next)
		for k, child := range d.tree.children(d.level, i) {
			if binary.BigEndian.Uint64(reply[k*shortBytes:]) != d.salt.Short(child) {
				d.next = append(d.next, i*Fanout+uint32(k))
			}
		}
		if len(d.next) == known {
			d.contradicted = append(d.contradicted, d.tree.shape.node(d.level, i))
		}
		reply = reply[Fanout*shortBytes:]
	}
	d.todo = d.todo[len(asked.indexes):]
	if len(d.todo) == 0 {
		d.todo, d.next = d.next, nil
		d.enter(d.level + 1)
	}
	return nil
}

func (d *Diff) stepLeaves(asked *question, reply []byte, found func(Difference)) error {
	for k, i := range asked.indexes {
		if len(reply) == 0 && k > 0 {
			return nil // the rest is asked for again
		}
		s := wholeLeaf(d.tree.shape.leaf(i), d.salt)
		entries, parts, rest, err := decodeListing(reply, &s)
		if err != nil {
			return err
		}
		if err := d.compare(i, &s, entries, parts, found); err != nil {
			return err
		}
		d.todo, reply = d.todo[1:], rest
	}
	return trailing(reply)
}

func (d *Diff) stepSlices(asked *question, reply []byte, found func(Difference)) error {
	answered, n := binary.Uvarint(reply)
	if n <= 0 || answered == 0 || answered > uint64(len(asked.indexes)) {
		return fmt.Errorf("%w: %d slices answered of %d", ErrMalformed, answered, len(asked.indexes))
	}
	s := selection{leaf: d.tree.shape.leaf(asked.leaf), salt: d.salt, span: asked.span, indexes: asked.indexes[:answered]}
	entries, parts, rest, err := decodeListing(reply[n:], &s)
	if err != nil {
		return err
	}
	if err := trailing(rest); err != nil {
		return err
	}
	if parts != nil && (answered > 1 || s.only().Lo == s.only().Hi) {
		return fmt.Errorf("%w: slices of slices %v of %x to %x", ErrMalformed, s.indexes, s.span.Lo, s.span.Hi)
	}
	top := &d.cuts[len(d.cuts)-1]
	top.indexes = top.indexes[answered:]
	if len(top.indexes) == 0 {
		d.cuts = d.cuts[:len(d.cuts)-1]
	}
	return d.compare(asked.leaf, &s, entries, parts, found)
}

func trailing(reply []byte) error {
	if len(reply) > 0 {
		return fmt.Errorf("%w: %d bytes after the reply", ErrMalformed, len(reply))
	}
	return nil
}

// compare compares the selected records with their listing by the other side.
func (d *Diff) compare(leaf uint32, s *selection, theirs []entry, theirParts []uint64, found func(Difference)) error {
	var differ bool
	var err error
	if theirParts != nil {
		differ, err = d.compareParts(leaf, s, theirParts)
	} else {
		differ, err = d.compareEntries(s, theirs, found)
	}
	if err == nil && !differ {
		d.contradicted = append(d.contradicted, s.leaf)
	}
	return err
}

func (d *Diff) compareParts(leaf uint32, s *selection, theirs []uint64) (differ bool, err error) {
	mine := newParts(s.only())
	if err := s.scan(d.read, mine.add); err != nil {
		return false, err
	}
	c := cut{leaf: leaf, span: mine.span}
	for i, chain := range mine.chains {
		if theirs[i] != 0 && uint64(i) >= slicesOf(mine.span) {
			return false, fmt.Errorf("%w: slice %d of shorts %x to %x", ErrMalformed, i, mine.span.Lo, mine.span.Hi)
		}
		if d.salt.Short(chain) != theirs[i] {
			c.indexes = append(c.indexes, uint32(i))
		}
	}
	if len(c.indexes) == 0 {
		return false, nil
	}
	d.cuts = append(d.cuts, c)
	return true, nil
}

// compareEntries sorts theirs. It needs memory for theirs only, which are few.
func (d *Diff) compareEntries(s *selection, theirs []entry, found func(Difference)) (differ bool, err error) {
	slices.SortFunc(theirs, entry.compare)
	matched := make([]bool, len(theirs))
	err = s.scan(d.read, func(e entry, _ Digest) {
		if i, ok := slices.BinarySearchFunc(theirs, e, entry.compare); ok {
			matched[i] = true
			return
		}
		differ = true
		found(Difference{e.token, e.short, true})
	})
	if err != nil {
		return false, err
	}
	for i, e := range theirs {
		if !matched[i] {
			differ = true
			found(Difference{e.token, e.short, false})
		}
	}
	return differ, nil
}

func (e entry) compare(f entry) int {
	return cmp.Or(cmp.Compare(e.token, f.token), cmp.Compare(e.short, f.short))
}
