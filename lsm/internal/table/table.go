// Package table reads and writes the engine's sorted files: records in (token,
// key) order, in compressed blocks, with a filter and an index. FORMAT.md
// describes the bytes.
package table
