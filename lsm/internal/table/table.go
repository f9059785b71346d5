// Package table reads and writes the engine's sorted files: records in (token,
// key) order, in compressed blocks of about 4 KiB.
//
//	header | block block ... | filter | index | properties | footer
//
// Tokens are hashes, so they are spread evenly, and both searches start from
// that: the index computes about which block holds a token and bisects from
// there; a block has 16 bits of each token in a column of slots, and keys are
// compared only among equal slots. Both are bisections in the end, so that gaps,
// runs and chosen keys cost a few more steps and no more.
//
// A Get of a key that is there reads one block, one that is not there asks the
// filter. Every byte of a file is under a checksum that also covers the file's
// number and the place, so that what is given out is what was written, or the
// error says which file is damaged and where (invariant I8). FORMAT.md describes
// the bytes.
package table
