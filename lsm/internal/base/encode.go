package base

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"example.com/kvstore/vclock"
)

// Flags of an encoded record, in the log and in tables. The low two bits hold
// the kind.
const (
	FlagKind     = 0x03
	FlagDeadline = 0x04 // a deadline is stored; else it is 0
	FlagRange    = 0x08 // the lowest dot is stored; else it equals the highest
)

var errRecord = errors.New("lsm: malformed record")

// Flags gives the kind and which optional fields of r are stored.
func (r *Record) Flags() uint8 {
	f := uint8(r.Kind) & FlagKind
	if r.Deadline != 0 {
		f |= FlagDeadline
	}
	if r.Min != r.Max {
		f |= FlagRange
	}
	return f
}

// EncodedLen is the number of bytes that AppendRecord appends.
func EncodedLen(r *Record) int {
	n := 1 + 8 + 16 + uvarintLen(uint64(len(r.Key))) + uvarintLen(uint64(len(r.Value))) + len(r.Key) + len(r.Value)
	if r.Deadline != 0 {
		n += 8
	}
	if r.Min != r.Max {
		n += 16
	}
	return n
}

func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// AppendRecord appends the self-contained form of a record, as the commit log
// and streams between nodes carry it:
//
//	flags u8 | token u64 | max dot 16 | [min dot 16] | [deadline i64] | key length uvarint | value length uvarint | key | value
//
// Fixed numbers are little-endian; a dot is stamp u64, actor u64. Newer is not
// stored. The record keeps within MaxKeyBytes and MaxValueBytes.
func AppendRecord(dst []byte, r *Record) []byte {
	flags := r.Flags()
	dst = append(dst, flags)
	dst = binary.LittleEndian.AppendUint64(dst, r.Token)
	dst = AppendDot(dst, r.Max)
	if flags&FlagRange != 0 {
		dst = AppendDot(dst, r.Min)
	}
	if flags&FlagDeadline != 0 {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(r.Deadline))
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.Key)))
	dst = binary.AppendUvarint(dst, uint64(len(r.Value)))
	dst = append(dst, r.Key...)
	return append(dst, r.Value...)
}

// DecodeRecord reads the record at the start of b and says how many bytes it
// took. Key and Value alias b. It never panics and allocates nothing; its
// error matches ErrCorrupt only once the caller has named file and offset.
func DecodeRecord(b []byte) (r Record, n int, err error) {
	in := b
	if len(b) < 25 {
		return Record{}, 0, errRecord
	}
	flags := b[0]
	r.Kind = Kind(flags & FlagKind)
	if r.Kind == 0 || flags&^(FlagKind|FlagDeadline|FlagRange) != 0 {
		return Record{}, 0, errRecord
	}
	r.Token = binary.LittleEndian.Uint64(b[1:])
	r.Max = Dot(b[9:])
	r.Min = r.Max
	b = b[25:]
	if flags&FlagRange != 0 {
		if len(b) < 16 {
			return Record{}, 0, errRecord
		}
		r.Min, b = Dot(b), b[16:]
	}
	if flags&FlagDeadline != 0 {
		if len(b) < 8 {
			return Record{}, 0, errRecord
		}
		r.Deadline, b = int64(binary.LittleEndian.Uint64(b)), b[8:]
	}
	klen, k := binary.Uvarint(b)
	if k <= 0 || klen > MaxKeyBytes {
		return Record{}, 0, errRecord
	}
	b = b[k:]
	vlen, k := binary.Uvarint(b)
	if k <= 0 || vlen > MaxValueBytes || klen+vlen > uint64(len(b)-k) {
		return Record{}, 0, errRecord
	}
	b = b[k:]
	r.Key, r.Value = b[:klen:klen], b[klen:klen+vlen:klen+vlen]
	return r, len(in) - len(b) + int(klen+vlen), nil
}

// AppendDot appends the 16 bytes of a dot: stamp, actor, little-endian.
func AppendDot(dst []byte, d vclock.Dot) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, d.Stamp)
	return binary.LittleEndian.AppendUint64(dst, d.Actor)
}

// Dot reads the dot in the first 16 bytes of b, which holds at least as many.
func Dot(b []byte) vclock.Dot {
	return vclock.Dot{Stamp: binary.LittleEndian.Uint64(b), Actor: binary.LittleEndian.Uint64(b[8:])}
}
