package merkle

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// A Reader hands the records of a range of tokens, both ends included, to each, in
// the order of (token, key), and with the digests that the tree was built of: it
// reads the same snapshot. It is never asked for tokens outside the tree's shape.
type Reader func(lo, hi uint64, each func(token uint64, d Digest)) error

// Slices is the number of parts that the records of an oversized leaf are put into.
const Slices = 4096

// A selection is the records of a leaf whose shorts lie in span and, if indexes are
// given, in one of these slices of span. Shorts are random to whoever wrote the
// records, so slices cut evenly what tokens do not.
type selection struct {
	leaf    Range
	salt    Salt
	span    Range
	indexes []uint32 // ascending; empty: all of span
}

// wholeLeaf selects all records of a leaf.
func wholeLeaf(leaf Range, salt Salt) selection {
	return selection{leaf: leaf, salt: salt, span: Range{0, math.MaxUint64}}
}

func (s *selection) holds(short uint64) bool {
	if !s.span.holds(short) {
		return false
	}
	if len(s.indexes) == 0 {
		return true
	}
	_, ok := slices.BinarySearch(s.indexes, uint32(s.span.index(Slices, short)))
	return ok
}

// slicesOf is the number of slices of span that hold shorts: fewer than Slices where
// the span is that small.
func slicesOf(span Range) uint64 { return span.index(Slices, span.Hi) + 1 }

// An entry is a record as it is listed.
type entry struct{ token, short uint64 }

// scan hands each selected record to each. Whether one is selected is judged when it
// is read, so each may narrow the selection.
func (s *selection) scan(read Reader, each func(e entry, d Digest)) error {
	var outside error
	err := read(s.leaf.Lo, s.leaf.Hi, func(token uint64, d Digest) {
		if !s.leaf.holds(token) {
			outside = fmt.Errorf("merkle: asked for tokens %x to %x, the Reader gave %x", s.leaf.Lo, s.leaf.Hi, token)
			return
		}
		if short := s.salt.Short(d); s.holds(short) {
			each(entry{token, short}, d)
		}
	})
	if err != nil {
		return err
	}
	return outside
}

// narrow drops the later half of the indexes.
func (s *selection) narrow() { s.indexes = s.indexes[:len(s.indexes)/2] }

// only is the span of a selection that has one index or none.
func (s *selection) only() Range {
	if len(s.indexes) == 0 {
		return s.span
	}
	return s.span.part(Slices, uint64(s.indexes[0]))
}

var maxEntries = MaxEntries // less in tests

// list reads at most MaxEntries records. If there are more it narrows the selection,
// and if that does not help it gives their slices instead.
func (s *selection) list(read Reader) (entries []entry, parts *parts, err error) {
	var digests []Digest // of entries
	err = s.scan(read, func(e entry, d Digest) {
		if parts != nil {
			parts.add(e, d)
			return
		}
		entries, digests = append(entries, e), append(digests, d)
		for len(entries) > maxEntries && len(s.indexes) > 1 {
			s.narrow()
			kept := 0
			for i, e := range entries {
				if s.holds(e.short) {
					entries[kept], digests[kept] = e, digests[i]
					kept++
				}
			}
			entries, digests = entries[:kept], digests[:kept]
		}
		if len(entries) > maxEntries {
			parts = newParts(s.only())
			for i, e := range entries {
				parts.add(e, digests[i])
			}
			entries, digests = nil, nil
		}
	})
	if err != nil {
		return nil, nil, err
	}
	if parts != nil && parts.span.Lo == parts.span.Hi {
		return nil, nil, fmt.Errorf("merkle: more than %d records between tokens %x and %x have one digest: digests must cover the key", maxEntries, s.leaf.Lo, s.leaf.Hi)
	}
	return entries, parts, nil
}

// parts are digests of the slices of a span: each a chain over its records in order.
type parts struct {
	span   Range
	chains []Digest
}

func newParts(span Range) *parts { return &parts{span, make([]Digest, Slices)} }

func (p *parts) add(e entry, d Digest) {
	chain := &p.chains[p.span.index(Slices, e.short)]
	var b [DigestBytes + entryBytes]byte
	copy(b[:], chain[:])
	binary.BigEndian.PutUint64(b[DigestBytes:], e.token)
	copy(b[DigestBytes+8:], d[:])
	sum := sha256.Sum256(b[:])
	*chain = Digest(sum[:DigestBytes])
}
