// Package manifest keeps the list of live tables and what recovery needs to
// know, as an append-only log of atomic edits. FORMAT.md describes the bytes.
package manifest

import (
	"errors"

	"example.com/kvstore/lsm/vfs"
)

// Manifest is the open manifest of a directory.
type Manifest struct{}

var errTodo = errors.New("manifest: not built yet")

// Create makes the manifest of a new directory, durably.
func Create(fs vfs.FS, dir string, p Params) (*Manifest, error) { return nil, errTodo }

// Open opens the manifest of dir and cuts a torn tail. A directory without one
// gives an error that satisfies errors.Is(err, fs.ErrNotExist).
func Open(fs vfs.FS, dir string) (*Manifest, error) { return nil, errTodo }

// Read gives the state of the manifest of dir and writes nothing.
func Read(fs vfs.FS, dir string) (*State, error) { return nil, errTodo }

// State is the current state: a snapshot that is never changed.
func (m *Manifest) State() *State { return nil }

// Apply makes an edit durable, then current. Not for concurrent use.
func (m *Manifest) Apply(e Edit) error { return errTodo }

// Close closes the file.
func (m *Manifest) Close() error { return nil }
