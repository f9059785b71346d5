package vfs

import (
	"encoding/binary"
	"math/bits"
)

// mix folds v into h: a multiplication and the finalizer of splitmix64 (Steele,
// Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
func mix(h, v uint64) uint64 {
	h = (bits.RotateLeft64(h, 25) ^ v) + 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

func mixBytes(h uint64, p []byte) uint64 {
	h = mix(h, uint64(len(p)))
	for ; len(p) >= 8; p = p[8:] {
		h = mix(h, binary.LittleEndian.Uint64(p))
	}
	for _, b := range p {
		h = mix(h, uint64(b))
	}
	return h
}

func mixString(h uint64, s string) uint64 {
	h = mix(h, uint64(len(s)))
	for i := range len(s) {
		h = mix(h, uint64(s[i]))
	}
	return h
}

// A stream is a sequence of draws that a hash determines.
type stream uint64

func (s *stream) next() uint64 {
	*s = stream(mix(uint64(*s), 1))
	return uint64(*s)
}

// below draws from [0, n); n must be positive.
func (s *stream) below(n int64) int64 { return int64(s.next() % uint64(n)) }

func (s *stream) fill(p []byte) {
	for i := range p {
		p[i] = byte(s.next())
	}
}
