package table

import (
	"encoding/binary"
	"errors"
	"math"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/vclock"
)

// Meta describes a finished table. The manifest keeps it, the file repeats it,
// and Open compares the two.
type Meta struct {
	ID         uint64 // file number, part of every checksum in the file
	Bytes      uint64 // size of the file
	Count      uint64 // records
	Tombstones uint64
	Expiring   uint64 // records with a deadline
	RawBytes   uint64 // keys and values before compression

	// MinToken and MaxToken are those of the first and last record, both 0 in
	// an empty table.
	MinToken, MaxToken uint64
	// MinDot is the lowest Min and MaxDot the highest Max of any record, so
	// they cover all siblings.
	MinDot, MaxDot vclock.Dot
	// MaxDeadline is the latest deadline, Unix milliseconds; 0 when Expiring is 0.
	MaxDeadline int64
	// Hash is the xxHash64 of all bytes of the file before its footer.
	Hash uint64
}

// metaBytes is the size of an encoded Meta.
const metaBytes = 14 * 8

var errMeta = errors.New("table: malformed properties")

// add counts one record in.
func (m *Meta) add(r *base.Record) {
	if m.Count == 0 {
		m.MinToken, m.MinDot = r.Token, r.Min
	}
	m.Count++
	m.MaxToken = r.Token
	m.RawBytes += uint64(len(r.Key) + len(r.Value))
	if r.Kind == base.Tombstone {
		m.Tombstones++
	}
	if r.Min.Less(m.MinDot) {
		m.MinDot = r.Min
	}
	if m.MaxDot.Less(r.Max) {
		m.MaxDot = r.Max
	}
	if r.Deadline != 0 {
		if m.Expiring == 0 || r.Deadline > m.MaxDeadline {
			m.MaxDeadline = r.Deadline
		}
		m.Expiring++
	}
}

// AppendMeta appends the fixed-size form of m: its fields in order, 8 bytes
// each, little-endian, a dot as stamp, actor.
func AppendMeta(dst []byte, m Meta) []byte {
	for _, v := range [...]uint64{m.ID, m.Bytes, m.Count, m.Tombstones, m.Expiring, m.RawBytes, m.MinToken, m.MaxToken} {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	dst = base.AppendDot(dst, m.MinDot)
	dst = base.AppendDot(dst, m.MaxDot)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.MaxDeadline))
	return binary.LittleEndian.AppendUint64(dst, m.Hash)
}

// DecodeMeta reads what AppendMeta wrote and gives the rest of b.
func DecodeMeta(b []byte) (m Meta, rest []byte, err error) {
	if len(b) < metaBytes {
		return Meta{}, nil, errMeta
	}
	for i, p := range [...]*uint64{&m.ID, &m.Bytes, &m.Count, &m.Tombstones, &m.Expiring, &m.RawBytes, &m.MinToken, &m.MaxToken} {
		*p = binary.LittleEndian.Uint64(b[8*i:])
	}
	tail := b[64:metaBytes]
	m.MinDot, m.MaxDot = base.Dot(tail), base.Dot(tail[16:])
	m.MaxDeadline = int64(binary.LittleEndian.Uint64(tail[32:]))
	m.Hash = binary.LittleEndian.Uint64(tail[40:])
	if m.Bytes > math.MaxInt64 || m.Tombstones > m.Count || m.Expiring > m.Count || m.MinToken > m.MaxToken {
		return Meta{}, nil, errMeta
	}
	return m, b[metaBytes:], nil
}

// appendProperties appends the properties section: the Meta, whose size and
// hash only the footer knows and which are 0 here, and the actors.
func appendProperties(dst []byte, m Meta, actors []uint64) []byte {
	m.Bytes, m.Hash = 0, 0
	dst = AppendMeta(dst, m)
	dst = binary.AppendUvarint(dst, uint64(len(actors)))
	for _, a := range actors {
		dst = binary.LittleEndian.AppendUint64(dst, a)
	}
	return dst
}

func decodeProperties(b []byte) (m Meta, actors []uint64, ok bool) {
	m, b, err := DecodeMeta(b)
	if err != nil || m.Bytes != 0 || m.Hash != 0 {
		return Meta{}, nil, false
	}
	n, k := binary.Uvarint(b)
	if k <= 0 || n > maxActors || uint64(len(b)-k) != 8*n {
		return Meta{}, nil, false
	}
	actors = make([]uint64, n)
	for i := range actors {
		actors[i] = binary.LittleEndian.Uint64(b[k+8*i:])
	}
	return m, actors, true
}
