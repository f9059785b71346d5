package table

import (
	"encoding/binary"
	"math"
	"unsafe"

	"github.com/bits-and-blooms/bloom/v3"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/offheap"
)

const (
	filterNone  = 0 // no filter: everything may be contained
	filterBloom = 1 // Bloom filter with the locations below

	filterHeadBytes = 16
	maxLocations    = 16
)

// filter is a Bloom filter over tokens. It keeps its bits in a
// bits-and-blooms filter but computes the locations itself, by double hashing
// (Kirsch and Mitzenmacher, "Less Hashing, Same Performance", 2006): tokens are
// hashes already. Such a filter would answer wrongly to that package's own Test
// of a key, so only tokens go in and out here. The zero filter admits every
// token.
type filter struct {
	bloom  *bloom.BloomFilter
	k      int
	memory []byte // off the Go heap, where the bits are; nil while the filter is built
}

// free gives the memory of the bits back.
func (f *filter) free() {
	offheap.Free(f.memory)
	*f = filter{}
}

// locations fills l with where the token's bits are, before the reduction
// modulo the size of the filter. The files depend on it: see FORMAT.md, scheme 1.
func locations(token uint64, l []uint64) {
	step := base.Mix(token) | 1
	for i := range l {
		l[i] = token + uint64(i)*step
	}
}

// newFilter builds the filter of the tokens, which come in several lists. With b bits a
// token the rate of false positives is about 0.62^b.
func newFilter(lists [][]uint64, bitsPerKey float64) filter {
	n := 0
	for _, tokens := range lists {
		n += len(tokens)
	}
	m := max(uint64(math.Ceil(float64(n)*bitsPerKey)), 64)
	f := filter{k: min(max(int(math.Round(bitsPerKey*math.Ln2)), 1), maxLocations)}
	f.bloom = bloom.New(uint(m), uint(f.k))
	bits := f.bloom.BitSet()
	var memory [maxLocations]uint64
	l := memory[:f.k]
	for _, tokens := range lists {
		for _, t := range tokens {
			locations(t, l)
			for _, v := range l {
				bits.Set(uint(v % m))
			}
		}
	}
	return f
}

// mayContain is false only for a token that was not put in. It does not
// allocate.
func (f *filter) mayContain(token uint64) bool {
	if f.bloom == nil {
		return true
	}
	var memory [maxLocations]uint64
	l := memory[:f.k]
	locations(token, l)
	return f.bloom.TestLocations(l)
}

func (f *filter) memoryBytes() int {
	if f.bloom == nil {
		return 0
	}
	return cap(f.memory)
}

// appendFilter appends
//
//	scheme u8 | k u8 | 0 u16 | 0 u32 | m u64 | words u64[]
func appendFilter(dst []byte, f filter) []byte {
	if f.bloom == nil {
		return append(dst, make([]byte, filterHeadBytes)...)
	}
	dst = append(dst, filterBloom, uint8(f.k), 0, 0, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(f.bloom.Cap()))
	for _, w := range f.bloom.BitSet().Words() {
		dst = binary.LittleEndian.AppendUint64(dst, w)
	}
	return dst
}

// decodeFilter reads what appendFilter wrote. known is false for a scheme of a
// newer version, ok is false for bytes that are no filter. The filter is the
// caller's, to be freed.
func decodeFilter(b []byte) (f filter, known, ok bool) {
	if len(b) < filterHeadBytes {
		return filter{}, true, false
	}
	scheme, k, m := b[0], int(b[1]), binary.LittleEndian.Uint64(b[8:])
	b = b[filterHeadBytes:]
	switch scheme {
	case filterNone:
		return filter{}, true, k == 0 && m == 0 && len(b) == 0
	case filterBloom:
	default:
		return filter{}, false, false
	}
	words := uint64(len(b) / 8)
	if len(b)%8 != 0 || k < 1 || k > maxLocations || words == 0 || m > 64*words || m <= 64*(words-1) {
		return filter{}, true, false
	}
	memory := offheap.Alloc(8 * int(words))
	bits := unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(memory))), words)
	for i := range bits {
		bits[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return filter{bloom: bloom.FromWithM(bits, uint(m), uint(k)), k: k, memory: memory}, true, true
}
