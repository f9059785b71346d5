package vfs

// A wound is what a power cut did to a write.
type wound uint8

const (
	whole          wound = iota // all of it is there
	missing                     // nothing of it is there
	cutByte                     // it ends at some byte
	cutSector                   // it ends at a sector
	zeroTail                    // the rest is zeroes: the size grew before the data came
	garbageTail                 // the rest is what the blocks held before
	staleTail                   // the rest is what another place of the file holds
	headless                    // it begins at some sector
	sectors                     // some of its sectors are there
	garbageSectors              // some are there, the others are garbage
	zeroes                      // all zeroes
	garbage                     // all garbage
	wounds
)

// likely is how many times as likely a write is there whole, or missing, as it
// is to be torn in one given way: so that long sequences survive too.
const likely = 4

func drawWound(fate *stream) wound {
	w := fate.below(int64(wounds) + 2*(likely-1))
	switch {
	case w < likely:
		return whole
	case w < 2*likely:
		return missing
	}
	return wound(w - 2*(likely-1))
}

// tear writes what the cut left of a write. It changes no byte outside of it.
func tear(e *edit, wound wound, fate stream, disk *content) {
	cut := int(fate.below(int64(len(e.data))))
	if wound != cutByte {
		cut = sectorBelow(e.off, cut)
	}
	switch wound {
	case whole:
		disk.writeAt(e.data, e.off)
	case missing:
	case cutByte, cutSector:
		disk.writeAt(e.data[:cut], e.off)
	case zeroTail, zeroes, garbageTail, garbage, staleTail:
		disk.writeAt(substitute(wound, e.data, cut, &fate, disk), e.off)
	case headless:
		disk.writeAt(e.data[cut:], e.off+int64(cut))
	case sectors, garbageSectors:
		eachSector(e.off, len(e.data), func(lo, hi int) {
			part := e.data[lo:hi]
			if fate.below(2) == 0 {
				if wound == sectors {
					return
				}
				part = make([]byte, hi-lo)
				fate.fill(part)
			}
			disk.writeAt(part, e.off+int64(lo))
		})
	}
}

// substitute gives a write whose rest, from cut, or whose whole is something else.
func substitute(w wound, data []byte, cut int, fate *stream, disk *content) []byte {
	if w == zeroes || w == garbage {
		cut = 0
	}
	p := make([]byte, len(data))
	copy(p, data[:cut])
	switch w {
	case garbageTail, garbage:
		fate.fill(p[cut:])
	case staleTail:
		disk.readAt(p[cut:], fate.below(disk.size/sectorBytes+1)*sectorBytes)
	}
	return p
}

// sectorBelow moves cut, an index into a write at off, down to a sector of the
// file, or to the start of the write.
func sectorBelow(off int64, cut int) int {
	return max(0, cut-int((off+int64(cut))%sectorBytes))
}

// eachSector calls do for each part of a write at off that is in one sector.
func eachSector(off int64, n int, do func(lo, hi int)) {
	for lo := 0; lo < n; {
		hi := min(n, lo+sectorBytes-int((off+int64(lo))%sectorBytes))
		do(lo, hi)
		lo = hi
	}
}
