package manifest

import (
	"encoding/binary"
	"fmt"

	"example.com/kvstore/lsm/internal/base"
)

// A frame is
//
//	length u32 | previous u32 | checksum u32 | payload
//
// where the checksum covers the rest at the frame's offset, and previous is the
// checksum of the frame before (of the header, for the first). Every frame can
// be verified on its own, wherever it starts: so a torn write, with no good
// frame behind it, is told from damage.
//
// Behind each frame is room for its seal, an empty frame whose previous is that
// frame's checksum. It is written once the frame is synced and proves that the
// frame was whole then, so that damage to the last edit is not taken for a torn
// write. It may be missing or torn itself, and says nothing then.
const (
	frameHeadBytes = 12
	sealBytes      = frameHeadBytes
	maxEditBytes   = 64 << 20
)

// position is where a manifest goes on.
type position struct {
	generation uint64
	end        int64  // after the last good frame and its seal
	last       uint32 // the frame's checksum
}

// behind is the position after a frame at p with the given payload and sum.
func (p position) behind(payload []byte, sum uint32) position {
	return position{p.generation, p.end + int64(frameHeadBytes+len(payload)+sealBytes), sum}
}

// seal gives the seal of the last frame and where it goes.
func (p position) seal() (seal []byte, off int64) {
	p.end -= sealBytes
	return appendFrame(nil, p, nil), p.end
}

// frameSum is the checksum that a frame carries.
func frameSum(frame []byte) uint32 { return binary.LittleEndian.Uint32(frame[8:]) }

// appendFrame appends the frame that goes to the position.
func appendFrame(dst []byte, at position, payload []byte) []byte {
	start := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	dst = binary.LittleEndian.AppendUint32(dst, at.last)
	sum := base.Extend(base.Checksum(at.generation, at.end, dst[start:]), payload)
	dst = binary.LittleEndian.AppendUint32(dst, sum)
	return append(dst, payload...)
}

// frameAt gives the payload of the frame at b[off:], if there is a good one.
func frameAt(b []byte, generation uint64, off int) (payload []byte, previous, sum uint32, ok bool) {
	head := b[off:]
	if len(head) < frameHeadBytes {
		return nil, 0, 0, false
	}
	n := binary.LittleEndian.Uint32(head)
	if n > maxEditBytes || int(n) > len(head)-frameHeadBytes {
		return nil, 0, 0, false
	}
	payload = head[frameHeadBytes : frameHeadBytes+int(n)]
	previous, sum = binary.LittleEndian.Uint32(head[4:]), frameSum(head)
	return payload, previous, sum, base.Extend(base.Checksum(generation, int64(off), head[:8]), payload) == sum
}

// decode reads a whole manifest. What follows the position, if anything, is torn.
func decode(b []byte) (*draft, position, error) {
	return decodeAs(b, base.ManifestMagic, base.ManifestName)
}

func decodeAs(b []byte, magic base.Magic, name string) (*draft, position, error) {
	h, err := base.DecodeHeader(b, magic, formatVersion, name)
	if err != nil {
		return nil, position{}, err
	}
	var d *draft
	at := position{h.Number, base.HeaderBytes, binary.LittleEndian.Uint32(b[base.HeaderBytes-4:])}
	corrupt := func(expected, found any) (*draft, position, error) {
		return nil, position{}, base.Corrupt(name, at.end, expected, found)
	}
	for d == nil || int(at.end) < len(b) {
		payload, previous, sum, ok := frameAt(b, at.generation, int(at.end))
		if !ok {
			if d == nil {
				return corrupt("the first frame", "none that verifies")
			}
			switch next, found, done := nextFrame(b, at.generation, int(at.end)+1); {
			case found:
				return corrupt(fmt.Sprintf("a frame before the good one at %d", next), "none that verifies")
			case !done:
				return corrupt("a frame, or what a torn write leaves", "bytes that were made to look like frames")
			}
			return d, at, nil
		}
		if previous != at.last {
			return corrupt(fmt.Sprintf("a frame after %08x", at.last), fmt.Sprintf("one after %08x", previous))
		}
		if d, err = replay(d, payload); err != nil {
			return corrupt("an edit of the state before", err)
		}
		at = at.behind(payload, sum)
	}
	return d, at, nil
}

// replay applies the payload of the next frame to d, which is nil before the
// first.
func replay(d *draft, payload []byte) (*draft, error) {
	p, e, err := decodeEdit(payload)
	switch {
	case err != nil || len(payload) == 0:
		return nil, errEdit
	case (p != nil) != (d == nil):
		return nil, errEdit // parameters are in the first frame and only there
	case p != nil:
		d = newDraft(*p)
	}
	if err := d.check(e); err != nil {
		return nil, err
	}
	d.apply(e)
	return d, nil
}

// searchBytes bounds the work of nextFrame: candidates are verified for as many
// bytes in all. Only bytes made to look like frames reach it.
const searchBytes = 1 << 30

// nextFrame looks for a good frame at off or behind. Not done means that it has
// given up.
func nextFrame(b []byte, generation uint64, off int) (at int, found, done bool) {
	for budget := searchBytes; off+frameHeadBytes <= len(b); off++ {
		payload, _, _, ok := frameAt(b, generation, off)
		if ok {
			return off, true, true
		}
		if budget -= len(payload); budget < 0 {
			return off, false, false
		}
	}
	return 0, false, true
}
