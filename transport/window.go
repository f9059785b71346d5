package transport

// windowIDs is how many ids behind the highest one a window remembers. It exceeds
// the largest ring of calls but for hanging ones, whose repetition is refused as
// too old.
const windowIDs = 1 << 16

// A window knows which ids of calls have arrived on a connection, so that a
// message that a transport delivers twice is carried out once: a second run of a
// call that was refused the first time would belie that answer.
type window struct {
	seen [windowIDs / 64]uint64 // bit id mod windowIDs, for ids in (top-windowIDs, top]
	top  uint64                 // the highest id so far
}

// first reports whether id arrives for the first time, and remembers it.
func (w *window) first(id uint64) bool {
	if id > w.top {
		if id-w.top >= windowIDs {
			clear(w.seen[:])
		}
		for gone := w.top + 1; gone < id && id-w.top < windowIDs; gone++ {
			w.seen[gone%windowIDs/64] &^= 1 << (gone % 64)
		}
		w.top = id
		w.seen[id%windowIDs/64] |= 1 << (id % 64)
		return true
	}
	if w.top-id >= windowIDs || w.seen[id%windowIDs/64]>>(id%64)&1 == 1 {
		return false
	}
	w.seen[id%windowIDs/64] |= 1 << (id % 64)
	return true
}
