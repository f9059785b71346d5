package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
)

// tagBytes is room for the line that makes the versions of a file differ.
const tagBytes = 32

type sum = [sha256.Size]byte

// An entry is what the parent knows of one key. It is used by one caller at a
// time: so there is always one value that must be read.
type entry struct {
	key  string // path below the source directory
	path string // the file
	// puts counts the versions handed out.
	puts int
	// acked is the last acknowledged version, if stored; older are those before.
	stored bool
	acked  sum
	older  []sum
	// maybe are versions put after acked whose outcome is unknown.
	maybe []sum
	// lost: an acknowledged version was not read when it had to be.
	lost bool
}

// next makes the key's next version: the file, and from the second version on a
// line before it with the version's number.
func (e *entry) next() ([]byte, error) {
	content, err := os.ReadFile(e.path)
	if err != nil {
		return nil, err
	}
	e.puts++
	if e.puts == 1 {
		return content, nil
	}
	return append(fmt.Appendf(make([]byte, 0, tagBytes+len(content)), "version %d\n", e.puts), content...), nil
}

// acknowledged notes that a version is stored.
func (e *entry) acknowledged(s sum) {
	if e.stored {
		e.older = append(e.older, e.acked)
	}
	e.older = append(e.older, e.maybe...)
	e.stored, e.acked, e.maybe = true, s, nil
}

// A verdict judges what a read returned.
type verdict int

const (
	right verdict = iota
	// stale: an older version, or none though one was acknowledged.
	stale
	// wrong: bytes that nobody wrote under this key.
	wrong
)

// judge tells whether value is what a read must return now: the last acknowledged
// version, or a later one of which nobody knows whether it was stored.
func (e *entry) judge(value []byte, found bool) verdict {
	if !found {
		if e.stored {
			return stale
		}
		return right
	}
	s := sha256.Sum256(value)
	switch {
	case e.stored && s == e.acked, slices.Contains(e.maybe, s):
		return right
	case slices.Contains(e.older, s):
		return stale
	}
	return wrong
}
