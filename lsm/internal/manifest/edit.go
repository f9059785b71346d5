package manifest

import (
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"slices"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/table"
	"example.com/kvstore/vclock"
)

// Tags of the fields of an edit. Append-only.
const (
	tagParams   = 1
	tagNextFile = 2
	tagLogFrom  = 3
	tagRemove   = 4
	tagAdd      = 5
	tagDamage   = 6
	tagHeal     = 7
	tagDrop     = 8
	tagLogEnd   = 9
)

const (
	placeHot  = 0
	placeCold = 1
)

var errEdit = errors.New("a malformed edit")

// appendEdit appends the fields of e, after the parameters unless p is nil.
func appendEdit(dst []byte, p *Params, e Edit) []byte {
	if p != nil {
		dst = binary.AppendUvarint(dst, tagParams)
		dst = append(dst, p.Directory[:]...)
		dst = binary.AppendUvarint(dst, uint64(p.Slices))
	}
	if e.NextFile != 0 {
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, tagNextFile), e.NextFile)
	}
	if e.LogFrom != 0 {
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, tagLogFrom), e.LogFrom)
	}
	if e.LogEnd.Segment != 0 {
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, tagLogEnd), e.LogEnd.Segment)
		dst = binary.AppendUvarint(dst, e.LogEnd.Sequence)
	}
	for _, id := range e.Remove {
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, tagRemove), id)
	}
	for _, d := range e.Heal {
		dst = appendPart(dst, tagHeal, d)
	}
	for _, d := range e.Damage {
		dst = base.AppendDot(appendPart(dst, tagDamage, d.Part), d.MaxDot)
	}
	for _, d := range e.Drop {
		dst = appendPart(dst, tagDrop, d)
	}
	for _, t := range e.Add {
		dst = binary.AppendUvarint(dst, tagAdd)
		dst = binary.AppendUvarint(dst, uint64(t.Slice))
		dst = append(dst, t.Level)
		dst = binary.AppendUvarint(dst, t.Run)
		place := byte(placeHot)
		if t.Cold {
			place = placeCold
		}
		dst = table.AppendMeta(append(dst, place), t.Meta)
	}
	return dst
}

func appendPart(dst []byte, tag uint64, p Part) []byte {
	dst = binary.AppendUvarint(binary.AppendUvarint(dst, tag), p.File)
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(dst, p.Lo), p.Hi)
}

// append appends the edit that makes s out of nothing.
func (s *State) append(dst []byte) []byte {
	e := Edit{Add: s.Tables, Damage: s.Damaged, NextFile: s.NextFile, LogFrom: s.LogFrom, LogEnd: s.LogEnd}
	for _, id := range slices.Sorted(maps.Keys(s.Dropped)) {
		for _, span := range s.Dropped[id] {
			e.Drop = append(e.Drop, Part{File: id, Span: span})
		}
	}
	return appendEdit(dst, &s.Params, e)
}

// decodeEdit reads what appendEdit wrote; p is nil when b holds no parameters.
func decodeEdit(b []byte) (p *Params, e Edit, err error) {
	d := decoder{b: b}
	for first := true; len(d.b) > 0 && !d.bad; first = false {
		switch tag := d.uvarint(math.MaxUint64); tag {
		case tagParams:
			p = &Params{}
			copy(p.Directory[:], d.bytes(len(p.Directory)))
			p.Slices = uint32(d.uvarint(MaxSlices))
			d.bad = d.bad || !first || p.Slices == 0
		case tagNextFile:
			e.NextFile = d.uvarint(math.MaxUint64)
		case tagLogFrom:
			e.LogFrom = d.uvarint(math.MaxUint64)
		case tagLogEnd:
			e.LogEnd = base.LogEnd{Segment: d.uvarint(math.MaxUint64), Sequence: d.uvarint(math.MaxUint64)}
		case tagRemove:
			e.Remove = append(e.Remove, d.uvarint(math.MaxUint64))
		case tagAdd:
			e.Add = append(e.Add, d.table())
		case tagDamage:
			e.Damage = append(e.Damage, Damage{Part: d.part(), MaxDot: d.dot()})
		case tagHeal:
			e.Heal = append(e.Heal, d.part())
		case tagDrop:
			e.Drop = append(e.Drop, d.part())
		default:
			d.bad = true
		}
	}
	if d.bad {
		return nil, Edit{}, errEdit
	}
	return p, e, nil
}

// decoder takes fields off the front of b. Once bad it gives zeros.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if d.bad = d.bad || n <= 0 || v > limit; d.bad {
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes(n int) []byte {
	if d.bad = d.bad || len(d.b) < n; d.bad {
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) byte(limit byte) byte {
	b := d.bytes(1)
	if d.bad = d.bad || b[0] > limit; d.bad {
		return 0
	}
	return b[0]
}

func (d *decoder) part() Part {
	p := Part{File: d.uvarint(math.MaxUint64)}
	if b := d.bytes(16); !d.bad {
		p.Span = base.Span{Lo: binary.LittleEndian.Uint64(b), Hi: binary.LittleEndian.Uint64(b[8:])}
	}
	return p
}

func (d *decoder) dot() vclock.Dot {
	if b := d.bytes(16); !d.bad {
		return base.Dot(b)
	}
	return vclock.Dot{}
}

func (d *decoder) table() Table {
	t := Table{Slice: uint32(d.uvarint(MaxSlices - 1)), Level: d.byte(MaxLevel), Run: d.uvarint(math.MaxUint64)}
	t.Cold = d.byte(placeCold) == placeCold
	if d.bad {
		return Table{}
	}
	m, rest, err := table.DecodeMeta(d.b)
	if err != nil {
		d.bad = true
		return Table{}
	}
	t.Meta, d.b = m, rest
	return t
}
