package cache

import "sync/atomic"

// A word of the index: tag 30 | uses 2 | ref 32. A free one is 0.
//
// The tag is a part of the hash that also says where a search for it begins, so
// that words move without a look at their records.
const (
	tagBits   = 30
	tagShift  = 34
	usesShift = 32
	maxUses   = 3
)

// tag gives bits of the hash that neither choose the shard nor the generation.
func tag(hash uint64) uint64 { return hash >> 16 & (1<<tagBits - 1) }

func word(tag, uses uint64, r ref) uint64 { return tag<<tagShift | uses<<usesShift | uint64(r) }

func usesOf(w uint64) uint64 { return w >> usesShift & maxUses }

// index is a hash table of words with linear probing. Whoever changes it has the
// shard's lock for itself, but for use.
type index struct {
	words []uint64
	used  int
}

// full reports whether no word may be added: searches would take too long.
func (x *index) full() bool { return x.used >= len(x.words)-len(x.words)/8 }

// home is where a search for a tag begins.
func (x *index) home(tag uint64) int { return int(tag * uint64(len(x.words)) >> tagBits) }

func (x *index) after(i int) int {
	if i++; i == len(x.words) {
		return 0
	}
	return i
}

// add adds a word. There is room.
func (x *index) add(w uint64) {
	i := x.home(w >> tagShift)
	for x.words[i] != 0 {
		i = x.after(i)
	}
	x.words[i] = w
	x.used++
}

// at finds the word of a record in place.
func (x *index) at(tag uint64, r ref) (i int, ok bool) {
	for i = x.home(tag); x.words[i] != 0; i = x.after(i) {
		if w := x.words[i]; w>>tagShift == tag && ref(w) == r {
			return i, true
		}
	}
	return 0, false
}

// remove frees a word and moves those behind it up, so that no search ends early.
func (x *index) remove(i int) {
	n := len(x.words)
	for j := x.after(i); x.words[j] != 0; j = x.after(j) {
		// The word at j may move to i if its search passes i on the way to j.
		if home := x.home(x.words[j] >> tagShift); (j-home+n)%n >= (j-i+n)%n {
			x.words[i] = x.words[j]
			i = j
		}
	}
	x.words[i] = 0
	x.used--
}

// use notes a use of the word at i, which was w. Other readers may do so too.
func (x *index) use(i int, w uint64) {
	if usesOf(w) < maxUses {
		atomic.CompareAndSwapUint64(&x.words[i], w, w+1<<usesShift)
	}
}
