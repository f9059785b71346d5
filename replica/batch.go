package replica

import (
	"encoding/binary"
	"time"
)

// Limits of one batch: a sender closes it before the record that would take it
// above BatchBytes, so only a record that is larger by itself makes a larger one.
const (
	BatchBytes   = 256 << 10
	BatchRecords = 4096
)

// A KeyRecord is a record with its key.
type KeyRecord struct {
	Key []byte
	Record
}

const keyRecordHead = 2 + 4 + recordHead // key length, value length, record

// Size is what the record takes in a batch.
func (r *KeyRecord) Size() int { return keyRecordHead + len(r.Key) + len(r.Value) }

// A Batch is records on their way to one owner, for it to join with its own: hints
// that are replayed, or what an exchange found missing.
//
//	to 8 | epoch 8 | stamp 8 | session 8 | flags 1 | count 2 | record*
//	record = key length 2 | value length 4 | flags 1 | stamp 8 | actor 8 | deadline 8 | key | value
type Batch struct {
	To, Epoch, Stamp uint64 // as in a Request
	// Exchanged records were asked for in the receiver's Session, by an owner that
	// holds them; others are hints.
	Exchanged bool
	// Counted hints were counted towards their writes' levels.
	Counted bool
	Session uint64
	Records []KeyRecord
}

const (
	batchHead     = 8 + 8 + 8 + 8 + 1 + 2
	flagExchanged = 1 << 0
	flagCounted   = 1 << 1
)

// Append encodes the batch.
func (b *Batch) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, b.To)
	dst = binary.LittleEndian.AppendUint64(dst, b.Epoch)
	dst = binary.LittleEndian.AppendUint64(dst, b.Stamp)
	dst = binary.LittleEndian.AppendUint64(dst, b.Session)
	flags := byte(0)
	if b.Exchanged {
		flags |= flagExchanged
	}
	if b.Counted {
		flags |= flagCounted
	}
	dst = append(dst, flags)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(b.Records)))
	for i := range b.Records {
		dst = appendKeyRecord(dst, &b.Records[i])
	}
	return dst
}

func appendKeyRecord(dst []byte, r *KeyRecord) []byte {
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(r.Key)))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(r.Value)))
	dst = appendRecordHead(dst, r.Record)
	return append(append(dst, r.Key...), r.Value...)
}

// DecodeBatch decodes a batch. Keys and values alias b.
func DecodeBatch(b []byte) (Batch, error) {
	if len(b) < batchHead || b[32]&^(flagExchanged|flagCounted) != 0 {
		return Batch{}, ErrMalformed
	}
	d := Batch{
		To:        binary.LittleEndian.Uint64(b),
		Epoch:     binary.LittleEndian.Uint64(b[8:]),
		Stamp:     binary.LittleEndian.Uint64(b[16:]),
		Session:   binary.LittleEndian.Uint64(b[24:]),
		Exchanged: b[32]&flagExchanged != 0,
		Counted:   b[32]&flagCounted != 0,
	}
	n := int(binary.LittleEndian.Uint16(b[33:]))
	if n == 0 || n > BatchRecords {
		return Batch{}, ErrMalformed
	}
	var err error
	if d.Records, b, err = decodeKeyRecords(b[batchHead:], n); err == nil && len(b) != 0 {
		err = ErrMalformed
	}
	return d, err
}

// decodeKeyRecords decodes n records and returns what follows them.
func decodeKeyRecords(b []byte, n int) ([]KeyRecord, []byte, error) {
	if n > len(b)/(keyRecordHead+1) {
		return nil, nil, ErrMalformed
	}
	records := make([]KeyRecord, n)
	for i := range records {
		if len(b) < keyRecordHead {
			return nil, nil, ErrMalformed
		}
		key, value := int(binary.LittleEndian.Uint16(b)), int64(binary.LittleEndian.Uint32(b[2:]))
		if key == 0 || int64(len(b)-keyRecordHead-key) < value {
			return nil, nil, ErrMalformed
		}
		r, err := decodeRecord(b[6:keyRecordHead])
		if err != nil || !r.Found() {
			return nil, nil, ErrMalformed
		}
		b = b[keyRecordHead:]
		end := key + int(value)
		r.Value = b[key:end:end]
		records[i] = KeyRecord{Key: b[:key:key], Record: r}
		b = b[end:]
	}
	return records, b, nil
}

// A Credit is how much more a node takes of the sender: Bytes, and those not before
// After has passed.
type Credit struct {
	Bytes uint32
	After time.Duration // to the millisecond
}

// A BatchReply answers a batch. Unless its Status is OK, nothing of the batch was
// stored.
//
//	status 1 | stamp 8 | epoch 8 | dot 8+8 | credit bytes 4 | credit after 4, milliseconds | status 1 for each record
type BatchReply struct {
	Reply
	Credit   Credit
	Statuses []Status
}

// Append encodes the reply.
func (p *BatchReply) Append(dst []byte) []byte {
	dst = p.AppendHead(dst)
	dst = binary.LittleEndian.AppendUint32(dst, p.Credit.Bytes)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(p.Credit.After.Milliseconds()))
	for _, s := range p.Statuses {
		dst = append(dst, byte(s))
	}
	return dst
}

// DecodeBatchReply decodes the reply to a batch of n records. A refusal of the
// whole may be a plain Reply.
func DecodeBatchReply(b []byte, n int) (BatchReply, error) {
	if len(b) < replyHead {
		return BatchReply{}, ErrMalformed
	}
	head, err := DecodeReply(b[:replyHead])
	p := BatchReply{Reply: head}
	if err != nil || head.Status != OK {
		return p, err
	}
	b = b[replyHead:]
	if len(b) != 8+n {
		return BatchReply{}, ErrMalformed
	}
	p.Credit = Credit{binary.LittleEndian.Uint32(b), time.Duration(binary.LittleEndian.Uint32(b[4:])) * time.Millisecond}
	p.Statuses = make([]Status, n)
	for i := range p.Statuses {
		p.Statuses[i] = Status(b[8+i])
	}
	return p, nil
}
