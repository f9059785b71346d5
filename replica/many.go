package replica

import (
	"encoding/binary"

	"example.com/kvstore/vclock"
)

// Ops of many keys at a time. Numbers are append-only.
const (
	// OpReadMany is a ManyRequest without records, answered by a ManyReply with one
	// for each key.
	OpReadMany Op = 22
	// OpWriteMany is a ManyRequest with records, answered by a ManyReply when they
	// are durable.
	OpWriteMany Op = 23
	// OpScan is a ScanRequest, answered by a ScanReply.
	OpScan Op = 24
)

// Limits of one message of many keys.
const (
	ManyKeys  = 4096
	ManyBytes = 8 << 20 // of keys and values; one record alone may be larger
)

const manyHead = 8 + 8 + 8 + 2 // to, epoch, stamp, count

// A ManyRequest reads or writes several keys of one owner.
//
//	to 8 | epoch 8 | stamp 8 | count 2 | (key length 2 | key)*          to read
//	to 8 | epoch 8 | stamp 8 | count 2 | record* as in a Batch          to write
type ManyRequest struct {
	To, Epoch, Stamp uint64
	// Records have nothing but their keys in a read.
	Records []KeyRecord
}

func (q *ManyRequest) appendHead(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, q.To)
	dst = binary.LittleEndian.AppendUint64(dst, q.Epoch)
	dst = binary.LittleEndian.AppendUint64(dst, q.Stamp)
	return binary.LittleEndian.AppendUint16(dst, uint16(len(q.Records)))
}

// AppendRead encodes a request to read.
func (q *ManyRequest) AppendRead(dst []byte) []byte {
	dst = q.appendHead(dst)
	for i := range q.Records {
		dst = binary.LittleEndian.AppendUint16(dst, uint16(len(q.Records[i].Key)))
		dst = append(dst, q.Records[i].Key...)
	}
	return dst
}

// AppendWrite encodes a request to write.
func (q *ManyRequest) AppendWrite(dst []byte) []byte {
	dst = q.appendHead(dst)
	for i := range q.Records {
		dst = appendKeyRecord(dst, &q.Records[i])
	}
	return dst
}

func decodeManyHead(b []byte) (q ManyRequest, n int, rest []byte, err error) {
	if len(b) < manyHead {
		return q, 0, nil, ErrMalformed
	}
	q = ManyRequest{To: binary.LittleEndian.Uint64(b), Epoch: binary.LittleEndian.Uint64(b[8:]), Stamp: binary.LittleEndian.Uint64(b[16:])}
	n = int(binary.LittleEndian.Uint16(b[24:]))
	if n == 0 || n > ManyKeys {
		return q, 0, nil, ErrMalformed
	}
	return q, n, b[manyHead:], nil
}

// DecodeReadMany decodes a request to read. Keys alias b.
func DecodeReadMany(b []byte) (ManyRequest, error) {
	q, n, b, err := decodeManyHead(b)
	if err != nil || n > len(b)/3 {
		return ManyRequest{}, ErrMalformed
	}
	q.Records = make([]KeyRecord, n)
	for i := range q.Records {
		if q.Records[i].Key, b, err = decodeKey(b); err != nil || len(q.Records[i].Key) == 0 {
			return ManyRequest{}, ErrMalformed
		}
	}
	if len(b) != 0 {
		return ManyRequest{}, ErrMalformed
	}
	return q, nil
}

// DecodeWriteMany decodes a request to write. Keys and values alias b.
func DecodeWriteMany(b []byte) (ManyRequest, error) {
	q, n, b, err := decodeManyHead(b)
	if err != nil {
		return ManyRequest{}, err
	}
	if q.Records, b, err = decodeKeyRecords(b, n); err != nil || len(b) != 0 {
		return ManyRequest{}, ErrMalformed
	}
	return q, nil
}

func decodeKey(b []byte) (key, rest []byte, err error) {
	if len(b) < 2 {
		return nil, nil, ErrMalformed
	}
	n := int(binary.LittleEndian.Uint16(b))
	if len(b) < 2+n {
		return nil, nil, ErrMalformed
	}
	return b[2 : 2+n : 2+n], b[2+n:], nil
}

// A ManyReply answers a ManyRequest. Unless its status is OK, nothing was done.
//
//	reply head | when that is OK: for each key: status 1 | dot 8+8 | record length 4, 0 for none | record
type ManyReply struct {
	// Reply has no record and no dot.
	Reply
	Answers []ManyAnswer
}

// A ManyAnswer is a reply for one key: Dot is set for Superseded, Record for an OK
// read of a key that is there.
type ManyAnswer struct {
	Status Status
	Dot    vclock.Dot
	Record Record
}

const manyAnswerHead = 1 + 8 + 8 + 4

// Append encodes the reply.
func (p *ManyReply) Append(dst []byte) []byte {
	dst = p.AppendHead(dst)
	for i := range p.Answers {
		a := &p.Answers[i]
		dst = append(dst, byte(a.Status))
		dst = binary.LittleEndian.AppendUint64(dst, a.Dot.Stamp)
		dst = binary.LittleEndian.AppendUint64(dst, a.Dot.Actor)
		if !a.Record.Found() {
			dst = binary.LittleEndian.AppendUint32(dst, 0)
			continue
		}
		dst = binary.LittleEndian.AppendUint32(dst, uint32(recordHead+len(a.Record.Value)))
		dst = append(appendRecordHead(dst, a.Record), a.Record.Value...)
	}
	return dst
}

// DecodeManyReply decodes the reply to a request of n keys. Values alias b.
func DecodeManyReply(b []byte, n int) (ManyReply, error) {
	if len(b) < replyHead {
		return ManyReply{}, ErrMalformed
	}
	head, err := DecodeReply(b[:replyHead])
	p := ManyReply{Reply: head}
	if b = b[replyHead:]; err != nil || p.Status != OK {
		return p, err
	}
	if n > len(b)/manyAnswerHead {
		return ManyReply{}, ErrMalformed
	}
	p.Answers = make([]ManyAnswer, n)
	for i := range p.Answers {
		if len(b) < manyAnswerHead {
			return ManyReply{}, ErrMalformed
		}
		a := &p.Answers[i]
		a.Status, a.Dot = Status(b[0]), vclock.Dot{Stamp: binary.LittleEndian.Uint64(b[1:]), Actor: binary.LittleEndian.Uint64(b[9:])}
		size := int64(binary.LittleEndian.Uint32(b[17:]))
		if b = b[manyAnswerHead:]; size > int64(len(b)) {
			return ManyReply{}, ErrMalformed
		}
		if size > 0 {
			if a.Record, err = decodeRecord(b[:size:size]); err != nil || !a.Record.Found() {
				return ManyReply{}, ErrMalformed
			}
		}
		b = b[size:]
	}
	if len(b) != 0 {
		return ManyReply{}, ErrMalformed
	}
	return p, nil
}

// A ScanRequest asks an owner for a page of its records in the order of (token,
// key): those with tokens Lo to Hi, behind the key After, with the prefix.
//
//	to 8 | epoch 8 | stamp 8 | lo 8 | hi 8 | after length 2 | after | prefix (the rest)
type ScanRequest struct {
	To, Epoch, Stamp uint64
	Lo, Hi           uint64
	After, Prefix    []byte
}

// Append encodes the request.
func (q *ScanRequest) Append(dst []byte) []byte {
	for _, n := range [...]uint64{q.To, q.Epoch, q.Stamp, q.Lo, q.Hi} {
		dst = binary.LittleEndian.AppendUint64(dst, n)
	}
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(q.After)))
	return append(append(dst, q.After...), q.Prefix...)
}

// DecodeScan decodes a request. Its slices alias b.
func DecodeScan(b []byte) (ScanRequest, error) {
	if len(b) < 42 {
		return ScanRequest{}, ErrMalformed
	}
	n := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	q := ScanRequest{To: n(0), Epoch: n(1), Stamp: n(2), Lo: n(3), Hi: n(4)}
	var err error
	if q.After, q.Prefix, err = decodeKey(b[40:]); err != nil || q.Lo > q.Hi {
		return ScanRequest{}, ErrMalformed
	}
	return q, nil
}

// A ScanReply is a page. More says that there may be more records behind Last, the
// last key that was looked at.
//
//	reply head | when that is OK: more 1 | last length 2 | last | count 2 | record* as in a Batch
type ScanReply struct {
	Reply
	More    bool
	Last    []byte
	Records []KeyRecord
}

// Append encodes the page.
func (p *ScanReply) Append(dst []byte) []byte {
	dst = p.AppendHead(dst)
	more := byte(0)
	if p.More {
		more = 1
	}
	dst = append(dst, more)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(p.Last)))
	dst = append(dst, p.Last...)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(p.Records)))
	for i := range p.Records {
		dst = appendKeyRecord(dst, &p.Records[i])
	}
	return dst
}

// DecodeScanReply decodes a page. Its slices alias b.
func DecodeScanReply(b []byte) (ScanReply, error) {
	if len(b) < replyHead {
		return ScanReply{}, ErrMalformed
	}
	head, err := DecodeReply(b[:replyHead])
	p := ScanReply{Reply: head}
	if b = b[replyHead:]; err != nil || p.Status != OK {
		return p, err
	}
	if len(b) < 1 || b[0] > 1 {
		return ScanReply{}, ErrMalformed
	}
	p.More = b[0] == 1
	if p.Last, b, err = decodeKey(b[1:]); err != nil || len(b) < 2 || p.More && len(p.Last) == 0 {
		return ScanReply{}, ErrMalformed
	}
	n := int(binary.LittleEndian.Uint16(b))
	if p.Records, b, err = decodeKeyRecords(b[2:], n); err != nil || len(b) != 0 {
		return ScanReply{}, ErrMalformed
	}
	return p, nil
}
