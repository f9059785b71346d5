package table

import (
	"errors"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/vfs"
)

// Compression says how blocks are stored.
type Compression uint8

const (
	S2   Compression = iota // the default
	None                    // about a quarter less CPU per read
)

// WriterOptions are settings; the zero value is the default.
type WriterOptions struct {
	Compression Compression
	BlockBytes  int     // target size of a block before compression, 256 B to 32 KiB; 0: 4 KiB
	BitsPerKey  float64 // of the filter; 0: 10 (about 1 % false positives); negative: no filter
}

// Writer builds a table.
type Writer struct{}

// NewWriter starts a table in f, which is empty. id is the file number.
func NewWriter(f vfs.File, id uint64, o WriterOptions) *Writer { return &Writer{} }

var errTodo = errors.New("table: not built yet")

// Add appends a record, which must be strictly above the last one.
func (w *Writer) Add(r *base.Record) error { return errTodo }

// EstimatedSize is the size the file would have if finished now.
func (w *Writer) EstimatedSize() uint64 { return 0 }

// Finish writes the rest and syncs the file.
func (w *Writer) Finish() (Meta, error) { return Meta{}, errTodo }
