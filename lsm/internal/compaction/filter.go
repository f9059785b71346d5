package compaction

import "math"

const (
	// bottomBits is the part of the mean bits a key that the filter of a bottom
	// gets, and bitsPerHalving what a filter gets more for each time that its run
	// is half as large: 1/ln 2, so that its false positives halve as well.
	bottomBits     = 0.87
	bitsPerHalving = 1 / math.Ln2
	// mostBits bounds a filter, as a multiple of the mean.
	mostBits = 1.8
)

// FilterBits gives the bits a key for the filter of a run, for a mean of bits
// over all runs (Dayan, Athanassoulis, Idreos: Monkey, SIGMOD 2017, section 4).
//
// A read of an absent key asks every run. The sum of their false positives is
// lowest, for given memory, when the rate of each is proportional to its size:
// what the bottom loses by a bit less for each of its many keys, the few keys above
// it gain many times over. Bytes are those of the run, bottom those of the slice's
// bottom, 0 if there is none.
func FilterBits(bits float64, level uint8, bytes, bottom uint64) float64 {
	switch {
	case bits <= 0 || bottom == 0 && level != Bottom:
		return bits
	case level == Bottom:
		return bottomBits * bits
	}
	more := bitsPerHalving * math.Log2(float64(bottom)/float64(max(bytes, 1)))
	return min(bottomBits*bits+max(more, 0), mostBits*bits)
}
