package merkle

import "errors"

var (
	// ErrMalformed says that bytes are not what this package made for their
	// purpose: give up the comparison, or build the tree anew.
	ErrMalformed = errors.New("merkle: malformed bytes")

	// ErrShape says that a request is about a tree of another shape: agree on the
	// shape, and build both trees anew.
	ErrShape = errors.New("merkle: the two trees differ in shape")
)
