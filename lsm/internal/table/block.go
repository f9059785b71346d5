package table

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/vclock"
)

// A block, before compression, is
//
//	body[n] | slot u16[n] | size u16[n] | key length u16[n] | flags u8[n] | millis u64 | shift u8 | n u16
//
// and a body
//
//	key | [token u64] | [actor] | millis varint | counter uvarint | [min dot] | [deadline varint] | value
//
// A slot holds the 16 bits of a token that tell records of one block apart:
// (token - first) >> shift. Columns of equal sizes, key lengths and flags
// compress to almost nothing, which bodies that carry them would not.
const (
	columnBytes = 7  // of one record
	tailBytes   = 11 // of one block

	flagToken   = 0x10 // the token is stored; else it is that of the key
	actorShift  = 5    // bits of the flags with the actor's code
	actorIndex  = 6    // code: an index into the dictionary follows
	actorRaw    = 7    // code: the actor itself follows
	maxBodyFrom = 1 << 16

	// maxBlockBytes is the content of the largest block: one record with the
	// largest key and value.
	maxBlockBytes = base.MaxKeyBytes + base.MaxValueBytes + 128
)

// blockWriter gathers the records of one block.
type blockWriter struct {
	body   []byte
	tokens []uint64
	sizes  []uint16
	keys   []uint16
	flags  []uint8
	millis uint64
}

func (b *blockWriter) len() int { return len(b.tokens) }

// size is the size of the content if the block ended now.
func (b *blockWriter) size() int { return len(b.body) + columnBytes*len(b.tokens) + tailBytes }

func (b *blockWriter) reset() {
	b.body, b.tokens, b.sizes, b.keys, b.flags = b.body[:0], b.tokens[:0], b.sizes[:0], b.keys[:0], b.flags[:0]
}

func (b *blockWriter) add(r *base.Record, actors *dictionary) {
	start, millis := len(b.body), r.Max.Stamp>>16
	if len(b.tokens) == 0 {
		b.millis = millis
	}
	flags := r.Flags()
	b.body = append(b.body, r.Key...)
	if r.Token != base.Token(r.Key) {
		flags |= flagToken
		b.body = binary.LittleEndian.AppendUint64(b.body, r.Token)
	}
	switch i, ok := actors.index(r.Max.Actor); {
	case !ok:
		flags |= actorRaw << actorShift
		b.body = binary.LittleEndian.AppendUint64(b.body, r.Max.Actor)
	case i >= actorIndex:
		flags |= actorIndex << actorShift
		b.body = binary.AppendUvarint(b.body, i)
	default:
		flags |= uint8(i) << actorShift
	}
	b.body = binary.AppendVarint(b.body, int64(millis)-int64(b.millis))
	b.body = binary.AppendUvarint(b.body, r.Max.Stamp&0xffff)
	if flags&base.FlagRange != 0 {
		b.body = base.AppendDot(b.body, r.Min)
	}
	if flags&base.FlagDeadline != 0 {
		b.body = binary.AppendVarint(b.body, r.Deadline-int64(millis))
	}
	b.body = append(b.body, r.Value...)
	b.tokens = append(b.tokens, r.Token)
	b.sizes = append(b.sizes, uint16(len(b.body)-start))
	b.keys = append(b.keys, uint16(len(r.Key)))
	b.flags = append(b.flags, flags)
}

// finish gives the content. It is valid until reset, which must follow.
func (b *blockWriter) finish() []byte {
	n := len(b.tokens)
	first, last := b.tokens[0], b.tokens[n-1]
	shift := max(bits.Len64(last-first)-16, 0)
	b.sizes[n-1] = 0
	out := b.body
	for _, t := range b.tokens {
		out = binary.LittleEndian.AppendUint16(out, uint16((t-first)>>shift))
	}
	for _, s := range b.sizes {
		out = binary.LittleEndian.AppendUint16(out, s)
	}
	for _, k := range b.keys {
		out = binary.LittleEndian.AppendUint16(out, k)
	}
	out = append(out, b.flags...)
	out = binary.LittleEndian.AppendUint64(out, b.millis)
	out = append(out, uint8(shift))
	out = binary.LittleEndian.AppendUint16(out, uint16(n))
	b.body = out
	return out
}

// block reads a block. Its slices alias the content.
//
// Only what is asked for is looked at, and verified then: a search bisects the
// slots, and sums up the sizes before the record that it finds.
type block struct {
	bodies                    []byte
	slots, sizes, keys, flags []byte // columns
	n                         int
	first                     uint64 // token of the first record
	millis                    uint64
	shift                     uint8
}

// parseBlock finds the parts of a block whose first token is given. A false result
// means that content is no block.
func parseBlock(content []byte, first uint64) (b block, ok bool) {
	end := len(content) - tailBytes
	if end < 0 {
		return block{}, false
	}
	tail := content[end:]
	b.first, b.millis, b.shift = first, binary.LittleEndian.Uint64(tail), tail[8]
	b.n = int(binary.LittleEndian.Uint16(tail[9:]))
	bodies := end - columnBytes*b.n
	if b.n == 0 || bodies < 0 || b.shift > 48 || b.millis >= 1<<48 {
		return block{}, false
	}
	b.bodies, content = content[:bodies:bodies], content[bodies:end]
	b.slots, content = content[:2*b.n], content[2*b.n:]
	b.sizes, content = content[:2*b.n], content[2*b.n:]
	b.keys, b.flags = content[:2*b.n], content[2*b.n:]
	return b, true
}

func (b *block) slot(i int) uint64 { return uint64(binary.LittleEndian.Uint16(b.slots[2*i:])) }

// start gives where body i begins: the sum of the sizes before it, four at a time.
func (b *block) start(i int) int {
	const even = 0x0000ffff0000ffff
	sizes, sums, sum := b.sizes[:2*i], uint64(0), 0
	for ; len(sizes) >= 8; sizes = sizes[8:] {
		v := binary.LittleEndian.Uint64(sizes)
		sums += v&even + v>>16&even // two sums, below 2^32 with n below 2^16
	}
	for ; len(sizes) > 0; sizes = sizes[2:] {
		sum += int(binary.LittleEndian.Uint16(sizes))
	}
	return sum + int(sums>>32) + int(uint32(sums))
}

// A place is where a record is: its number and where its body begins.
type place struct{ i, from int }

func (b *block) place(i int) place { return place{i, b.start(i)} }

// next gives the place after p.
func (b *block) next(p place) place {
	return place{p.i + 1, p.from + int(binary.LittleEndian.Uint16(b.sizes[2*p.i:]))}
}

// identity gives the token and the key of a record, and what follows them. False
// means that the record does not lie within the bodies, is too short, or is not
// one of its slot.
func (b *block) identity(p place) (token uint64, key, rest []byte, ok bool) {
	size, k := int(binary.LittleEndian.Uint16(b.sizes[2*p.i:])), int(binary.LittleEndian.Uint16(b.keys[2*p.i:]))
	if p.i == b.n-1 {
		if size != 0 {
			return 0, nil, nil, false
		}
		size = len(b.bodies) - p.from
	}
	need := k
	if b.flags[p.i]&flagToken != 0 {
		need += 8
	}
	if p.from >= maxBodyFrom || need > size || size > len(b.bodies)-p.from {
		return 0, nil, nil, false
	}
	body := b.bodies[p.from : p.from+size : p.from+size]
	key, rest = body[:k:k], body[k:]
	if b.flags[p.i]&flagToken != 0 {
		token, rest = binary.LittleEndian.Uint64(rest), rest[8:]
	} else {
		token = base.Token(key)
	}
	return token, key, rest, token >= b.first && (token-b.first)>>b.shift == b.slot(p.i)
}

// compare orders the record at p against (token, key).
func (b *block) compare(p place, token uint64, key []byte) (c int, ok bool) {
	t, k, _, ok := b.identity(p)
	if t != token {
		return cmp.Compare(t, token), ok
	}
	return bytes.Compare(k, key), ok
}

// search gives the place of the first record at or above (token, key), with i = n
// if there is none, and whether it is that one. False for ok means that a record
// which was compared is malformed.
func (b *block) search(token uint64, key []byte) (p place, found, ok bool) {
	if token < b.first {
		return place{}, false, true
	}
	want := (token - b.first) >> b.shift
	lo, hi := 0, b.n
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		c := cmp.Compare(b.slot(mid), want)
		if c == 0 {
			p = b.place(mid)
			if c, ok = b.compare(p, token, key); !ok {
				return place{}, false, false
			}
		}
		switch {
		case c == 0:
			return p, true, true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return b.place(lo), false, true
}

// record decodes the record at p. Key and Value alias the block. False means that
// the bytes are no record, or not one of its slot.
func (b *block) record(p place, actors []uint64, r *base.Record) bool {
	token, key, rest, ok := b.identity(p)
	flags := b.flags[p.i]
	kind := base.Kind(flags & base.FlagKind)
	if !ok || kind == 0 {
		return false
	}
	var actor uint64
	switch code := flags >> actorShift; code {
	case actorRaw:
		if len(rest) < 8 {
			return false
		}
		actor, rest = binary.LittleEndian.Uint64(rest), rest[8:]
	default:
		index := uint64(code)
		if code == actorIndex {
			v, n := binary.Uvarint(rest)
			if n <= 0 {
				return false
			}
			index, rest = v, rest[n:]
		}
		if index >= uint64(len(actors)) {
			return false
		}
		actor = actors[index]
	}
	delta, n := binary.Varint(rest)
	if n <= 0 {
		return false
	}
	rest = rest[n:]
	counter, n := binary.Uvarint(rest)
	millis := b.millis + uint64(delta)
	if n <= 0 || counter > 0xffff || millis >= 1<<48 {
		return false
	}
	rest = rest[n:]
	dot := vclock.Dot{Stamp: millis<<16 | counter, Actor: actor}
	lowest := dot
	if flags&base.FlagRange != 0 {
		if len(rest) < 16 {
			return false
		}
		lowest, rest = base.Dot(rest), rest[16:]
	}
	var deadline int64
	if flags&base.FlagDeadline != 0 {
		d, n := binary.Varint(rest)
		if n <= 0 {
			return false
		}
		deadline, rest = d+int64(millis), rest[n:]
	}
	if len(rest) > base.MaxValueBytes {
		return false
	}
	*r = base.Record{Token: token, Key: key, Min: lowest, Max: dot, Kind: kind, Deadline: deadline, Value: rest}
	return true
}
