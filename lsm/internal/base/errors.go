package base

import (
	"errors"
	"fmt"
)

var (
	// ErrCorrupt is matched by every *CorruptError.
	ErrCorrupt = errors.New("lsm: damaged file; restore it from a replica or a checkpoint")
	// ErrUnreadable says that a file could not be read, twice in a row. The bytes may
	// be there or not.
	ErrUnreadable = errors.New("lsm: file cannot be read; look for errors of its device")
	// ErrIncompatible says that a file needs a newer version of this library,
	// or a key that it was not given.
	ErrIncompatible = errors.New("lsm: the file needs a newer version of this library")
)

// A CorruptError says which bytes are damaged and why they cannot be right.
// Offset is where the damaged unit (block, group, section) starts.
type CorruptError struct {
	File            string
	Offset          int64
	Expected, Found string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("lsm: %s is damaged at offset %d: expected %s, found %s; restore it from a replica or a checkpoint",
		e.File, e.Offset, e.Expected, e.Found)
}

// Is makes every CorruptError match ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Corrupt builds a *CorruptError. Expected and found are printed with %v, a
// uint32 as the hexadecimal checksum it is.
func Corrupt(file string, off int64, expected, found any) error {
	return &CorruptError{File: file, Offset: off, Expected: describe(expected), Found: describe(found)}
}

func describe(v any) string {
	if sum, ok := v.(uint32); ok {
		return fmt.Sprintf("checksum %08x", sum)
	}
	return fmt.Sprint(v)
}

// incompatible wraps ErrIncompatible with the file and what it needs.
func incompatible(file, format string, args ...any) error {
	return fmt.Errorf("%w: %s has %s", ErrIncompatible, file, fmt.Sprintf(format, args...))
}
