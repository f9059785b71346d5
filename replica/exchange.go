package replica

import (
	"bytes"
	"encoding/binary"
	"slices"

	"example.com/kvstore/merkle"
	"example.com/kvstore/vclock"
)

// An exchange compares what two owners hold of the partitions that both own, and
// brings each what it lacks. The asker drives it, the other side answers:
//
//	asker                                 answerer
//	ExchangeOpen: range, cut, floors  ─>  builds its tree of the same range
//	          <─ ExchangeOpened: shape, root; or lower floors, with which to open again
//	merkle requests, while they differ ─>
//	          <─ merkle replies
//	ExchangeVersions: what the asker holds at the tokens that differ ─>
//	          <─ ExchangeMissing: records that the asker lacks, keys that the answerer lacks
//	Batch: the records wanted ─>
//
// Either side may lower the end of the range to what it can compare in one go; the rest
// is another exchange.
//
// Records stamped after the cut are left out on both sides, and so are deletes at or
// below the floor of their partition, which one side may have purged; a routine
// exchange leaves out everything there. Each record is read anew when it is sent.

// What an exchange message is for: its first byte.
const (
	ExchangeOpen     = 1
	ExchangeAsk      = 2 // session 8 | merkle request
	ExchangeVersions = 3
	ExchangeEnd      = 4 // session 8
)

// MaxFloors bounds the runs of floors in one message.
const MaxFloors = 1 << 16

// A FloorRun is a number of adjacent partitions with one horizon.
type FloorRun struct {
	Count uint32
	Floor vclock.Dot
}

// An OpenExchange begins an exchange.
//
//	kind 1 | to 8 | epoch 8 | stamp 8 | from 8 | flags 1 | lo 8 | hi 8 | cut 8 | count 8 | runs 4 | (count 4 | floor 8+8)* | partitions, a bit each
type OpenExchange struct {
	To, Epoch, Stamp uint64 // as in a Request
	From             uint64 // UID of the asker
	// Routine leaves out all that is at or below the floors.
	Routine bool
	// Rest asks for what is left of partitions that the answerer lost data of, too.
	Rest bool
	// Patient says that nobody waits for it: both sides work on it with what clients
	// leave.
	Patient bool
	merkle.Range
	Cut uint64
	// Count is the number of records that the asker has.
	Count uint64
	// Floors are the asker's horizons, for all partitions from 0 on.
	Floors []FloorRun
	// Partitions has a bit for each partition to compare; empty: all that both own.
	Partitions []byte
}

const openHead = 1 + 8*4 + 1 + 8*4 + 4

// Append encodes the message.
func (o *OpenExchange) Append(dst []byte) []byte {
	dst = append(dst, ExchangeOpen)
	for _, x := range []uint64{o.To, o.Epoch, o.Stamp, o.From} {
		dst = binary.LittleEndian.AppendUint64(dst, x)
	}
	flags := byte(0)
	if o.Routine {
		flags |= 1
	}
	if o.Rest {
		flags |= 2
	}
	if o.Patient {
		flags |= 4
	}
	dst = append(dst, flags)
	for _, x := range []uint64{o.Lo, o.Hi, o.Cut, o.Count} {
		dst = binary.LittleEndian.AppendUint64(dst, x)
	}
	return append(appendFloors(dst, o.Floors), o.Partitions...)
}

// DecodeOpenExchange decodes what Append made.
func DecodeOpenExchange(b []byte) (OpenExchange, error) {
	if len(b) < openHead || b[0] != ExchangeOpen || b[33] > 7 {
		return OpenExchange{}, ErrMalformed
	}
	u := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	o := OpenExchange{To: u(1), Epoch: u(9), Stamp: u(17), From: u(25), Routine: b[33]&1 == 1, Rest: b[33]&2 == 2, Patient: b[33]&4 == 4,
		Range: merkle.Range{Lo: u(34), Hi: u(42)}, Cut: u(50), Count: u(58)}
	var err error
	o.Floors, o.Partitions, err = decodeFloors(b[66:])
	if o.Lo > o.Hi {
		err = ErrMalformed
	}
	return o, err
}

func appendFloors(dst []byte, floors []FloorRun) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(floors)))
	for _, f := range floors {
		dst = binary.LittleEndian.AppendUint32(dst, f.Count)
		dst = binary.LittleEndian.AppendUint64(dst, f.Floor.Stamp)
		dst = binary.LittleEndian.AppendUint64(dst, f.Floor.Actor)
	}
	return dst
}

func decodeFloors(b []byte) ([]FloorRun, []byte, error) {
	if len(b) < 4 {
		return nil, nil, ErrMalformed
	}
	n := int(binary.LittleEndian.Uint32(b))
	if n > MaxFloors || n > (len(b)-4)/20 {
		return nil, nil, ErrMalformed
	}
	b = b[4:]
	var floors []FloorRun
	for range n {
		floors = append(floors, FloorRun{binary.LittleEndian.Uint32(b), vclock.Dot{Stamp: binary.LittleEndian.Uint64(b[4:]), Actor: binary.LittleEndian.Uint64(b[12:])}})
		b = b[20:]
	}
	return floors, b, nil
}

// FloorRuns gives the runs of a list of floors, one for each partition.
func FloorRuns(floors []vclock.Dot) []FloorRun {
	var runs []FloorRun
	for _, f := range floors {
		if n := len(runs); n > 0 && runs[n-1].Floor == f {
			runs[n-1].Count++
		} else {
			runs = append(runs, FloorRun{1, f})
		}
	}
	return runs
}

// Floors gives the floors of so many partitions; those that the runs do not reach have
// none.
func Floors(runs []FloorRun, partitions int) []vclock.Dot {
	floors := make([]vclock.Dot, 0, partitions)
	for _, r := range runs {
		for range min(int(r.Count), partitions-len(floors)) {
			floors = append(floors, r.Floor)
		}
	}
	return floors[:partitions]
}

// LowerFloors lowers each floor to that of the other side; what the runs do not
// reach is lowered to nothing.
func LowerFloors(floors []vclock.Dot, runs []FloorRun) {
	p := 0
	for _, r := range runs {
		for range min(int(r.Count), len(floors)-p) {
			if r.Floor.Less(floors[p]) {
				floors[p] = r.Floor
			}
			p++
		}
	}
	clear(floors[p:])
}

// An ExchangeOpened answers an OpenExchange.
//
//	reply head | session 8 | root 16 | shape 17 | runs 4 | (count 4 | floor 8+8)* | partitions, a bit each, or nothing
type ExchangeOpened struct {
	Reply
	Session uint64 // 0: the floors are lower than the asker's, who opens again
	Root    merkle.Digest
	Shape   merkle.Shape // ends where the answerer's records do, at Hi or below
	// Floors are the answerer's horizons, as in an OpenExchange.
	Floors []FloorRun
	// Lost, a bit for each partition, are those that the answerer leaves out, since it
	// lost data of them. Empty: none.
	Lost []byte
}

// Append encodes the message.
func (o *ExchangeOpened) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(o.AppendHead(dst), o.Session)
	dst = append(dst, o.Root[:]...)
	return append(appendFloors(o.Shape.Append(dst), o.Floors), o.Lost...)
}

// DecodeExchangeOpened decodes it; a refusal has no more than a Reply.
func DecodeExchangeOpened(b []byte) (ExchangeOpened, error) {
	var o ExchangeOpened
	var err error
	if o.Reply, b, err = CutReply(b); err != nil || o.Status != OK {
		return o, err
	}
	if len(b) < 8+merkle.DigestBytes {
		return o, ErrMalformed
	}
	o.Session, o.Root = binary.LittleEndian.Uint64(b), merkle.Digest(b[8:])
	if o.Shape, b, err = merkle.DecodeShape(b[8+merkle.DigestBytes:]); err == nil {
		o.Floors, o.Lost, err = decodeFloors(b)
	}
	return o, err
}

// CutReply takes the head of a reply off and gives what follows it.
func CutReply(b []byte) (Reply, []byte, error) {
	if len(b) < replyHead {
		return Reply{}, nil, ErrMalformed
	}
	p, err := DecodeReply(b[:replyHead])
	return p, b[replyHead:], err
}

// AppendAsk encodes the head of an ExchangeAsk or ExchangeEnd.
func AppendAsk(dst []byte, kind byte, session uint64) []byte {
	return binary.LittleEndian.AppendUint64(append(dst, kind), session)
}

// DecodeAsk decodes it and gives what follows.
func DecodeAsk(b []byte) (kind byte, session uint64, rest []byte, err error) {
	if len(b) < 9 {
		return 0, 0, nil, ErrMalformed
	}
	return b[0], binary.LittleEndian.Uint64(b[1:]), b[9:], nil
}

// A Version tells two replicas of one key apart: the dot of a plain record; for a
// causal one also the digest, since sets of one highest dot may differ.
type Version struct {
	Dot    vclock.Dot
	Causal merkle.Digest // zero for a plain record
}

// Version gives the record's.
func (r *KeyRecord) Version() Version {
	v := Version{Dot: r.Dot}
	if r.Causal {
		v.Causal = r.Digest()
	}
	return v
}

// Digest is that of the record's logical content: equal on all replicas that hold it,
// whatever their files look like. A dot names one write, so the value of a plain
// record is not read.
//
//	key length 2 | key | flags 1 | stamp 8 | actor 8 | deadline 8 | causal: the set's encoding
func (r *KeyRecord) Digest() merkle.Digest {
	var room [256]byte
	b := binary.LittleEndian.AppendUint16(room[:0], uint16(len(r.Key)))
	b = appendRecordHead(append(b, r.Key...), r.Record)
	if r.Causal {
		b = append(b, r.Value...)
	}
	return merkle.Sum(b)
}

// A TokenVersions is what one side holds at one token now: usually one key, none
// where it lacks the record.
type TokenVersions struct {
	Token    uint64
	Keys     [][]byte
	Versions []Version
}

// AppendTokenVersions encodes one item of an ExchangeVersions, which is session 8 and
// items.
//
//	token 8 | keys 2 | (key length 2 | key | stamp 8 | actor 8 | causal 1 | [digest 16])*
func AppendTokenVersions(dst []byte, t *TokenVersions) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, t.Token)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(t.Keys)))
	for i, key := range t.Keys {
		dst = binary.LittleEndian.AppendUint16(dst, uint16(len(key)))
		dst = append(dst, key...)
		v := &t.Versions[i]
		dst = binary.LittleEndian.AppendUint64(dst, v.Dot.Stamp)
		dst = binary.LittleEndian.AppendUint64(dst, v.Dot.Actor)
		if v.Causal == (merkle.Digest{}) {
			dst = append(dst, 0)
		} else {
			dst = append(append(dst, 1), v.Causal[:]...)
		}
	}
	return dst
}

// DecodeTokenVersions decodes all items of an ExchangeVersions. Keys alias b.
func DecodeTokenVersions(b []byte) ([]TokenVersions, error) {
	var items []TokenVersions
	for len(b) > 0 {
		if len(b) < 10 {
			return nil, ErrMalformed
		}
		t := TokenVersions{Token: binary.LittleEndian.Uint64(b)}
		n := int(binary.LittleEndian.Uint16(b[8:]))
		b = b[10:]
		for range n {
			if len(b) < 2 {
				return nil, ErrMalformed
			}
			key := int(binary.LittleEndian.Uint16(b))
			if key == 0 || len(b) < 2+key+17 {
				return nil, ErrMalformed
			}
			t.Keys = append(t.Keys, b[2:2+key:2+key])
			b = b[2+key:]
			v := Version{Dot: vclock.Dot{Stamp: binary.LittleEndian.Uint64(b), Actor: binary.LittleEndian.Uint64(b[8:])}}
			causal := b[16]
			b = b[17:]
			if causal > 1 || causal == 1 && len(b) < merkle.DigestBytes {
				return nil, ErrMalformed
			}
			if causal == 1 {
				v.Causal, b = merkle.Digest(b), b[merkle.DigestBytes:]
			}
			t.Versions = append(t.Versions, v)
		}
		items = append(items, t)
	}
	return items, nil
}

// Compare finds what has to move so that both sides hold the join at one token: the
// indexes of own records that the other lacks, and the keys of those that this side
// lacks. Of two causal records each may lack something of the other.
func (t *TokenVersions) Compare(own []KeyRecord) (send []int, want [][]byte) {
	for i := range own {
		at := slices.IndexFunc(t.Keys, func(k []byte) bool { return bytes.Equal(k, own[i].Key) })
		if at < 0 {
			send = append(send, i)
			continue
		}
		theirs, ours := t.Versions[at], own[i].Version()
		causal := theirs.Causal != ours.Causal
		if theirs.Dot.Less(ours.Dot) || causal {
			send = append(send, i)
		}
		if ours.Dot.Less(theirs.Dot) || causal {
			want = append(want, t.Keys[at])
		}
	}
	for _, key := range t.Keys {
		if !slices.ContainsFunc(own, func(r KeyRecord) bool { return bytes.Equal(r.Key, key) }) {
			want = append(want, key)
		}
	}
	return send, want
}

// An ExchangeMissing answers an ExchangeVersions.
//
//	reply head | answered 4 | records 4 | record* | wanted 4 | (key length 2 | key)*
type ExchangeMissing struct {
	Reply
	// Answered is how many of the items were dealt with; the others have to be sent
	// again.
	Answered uint32
	Records  []KeyRecord // that the asker lacks
	Wanted   [][]byte    // keys of what the answerer lacks
}

// Append encodes the message.
func (m *ExchangeMissing) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(m.AppendHead(dst), m.Answered)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(m.Records)))
	for i := range m.Records {
		dst = appendKeyRecord(dst, &m.Records[i])
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(m.Wanted)))
	for _, key := range m.Wanted {
		dst = append(binary.LittleEndian.AppendUint16(dst, uint16(len(key))), key...)
	}
	return dst
}

// DecodeExchangeMissing decodes it; a refusal has no more than a Reply.
func DecodeExchangeMissing(b []byte) (ExchangeMissing, error) {
	var m ExchangeMissing
	var err error
	if m.Reply, b, err = CutReply(b); err != nil || m.Status != OK {
		return m, err
	}
	if len(b) < 12 {
		return m, ErrMalformed
	}
	m.Answered = binary.LittleEndian.Uint32(b)
	if m.Records, b, err = decodeKeyRecords(b[8:], int(binary.LittleEndian.Uint32(b[4:]))); err != nil {
		return m, err
	}
	if len(b) < 4 {
		return m, ErrMalformed
	}
	n := binary.LittleEndian.Uint32(b)
	b = b[4:]
	for ; n > 0; n-- {
		if len(b) < 2 {
			return m, ErrMalformed
		}
		key := int(binary.LittleEndian.Uint16(b))
		if key == 0 || len(b) < 2+key {
			return m, ErrMalformed
		}
		m.Wanted = append(m.Wanted, b[2:2+key:2+key])
		b = b[2+key:]
	}
	if len(b) > 0 {
		return m, ErrMalformed
	}
	return m, nil
}
