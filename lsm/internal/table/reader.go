package table

import (
	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/vfs"
)

// Reader reads a table.
type Reader struct{}

// Scratch is the memory of one Get.
type Scratch struct{}

// Open opens the table that m describes.
func Open(f vfs.File, m Meta) (*Reader, error) { return nil, errTodo }

// ReadMeta reads the properties of a table from the file alone.
func ReadMeta(f vfs.File, id uint64) (Meta, error) { return Meta{}, errTodo }

// Meta describes the table.
func (r *Reader) Meta() Meta { return Meta{} }

// MemoryBytes is what the index and filter hold in memory.
func (r *Reader) MemoryBytes() int { return 0 }

// MayContain reports whether the filter admits the token.
func (r *Reader) MayContain(token uint64) bool { return true }

// Get looks a record up.
func (r *Reader) Get(token uint64, key []byte, s *Scratch) (base.Record, bool, error) {
	return base.Record{}, false, errTodo
}

// Verify reads the whole file and checks everything in it.
func (r *Reader) Verify(pace func(bytes int) error) error { return errTodo }

// Close closes the file.
func (r *Reader) Close() error { return nil }

// Iter iterates over the tokens lo to hi, both included.
func (r *Reader) Iter(lo, hi uint64) *Iter { return &Iter{} }

// Iter is an iterator.
type Iter struct{}

// Next moves to the next record.
func (it *Iter) Next() bool { return false }

// Record is the current record.
func (it *Iter) Record() *base.Record { return nil }

// Err is the error that ended the iteration.
func (it *Iter) Err() error { return errTodo }

// Close releases the iterator.
func (it *Iter) Close() error { return nil }
