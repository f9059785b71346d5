package replica

import (
	"encoding/binary"

	"example.com/kvstore/vclock"
)

// Ops of causal writes. Numbers are append-only.
const (
	// OpForward asks an owner to coordinate a causal write: a CausalRequest,
	// answered by a CausalReply.
	OpForward Op = 20
	// OpCausal is OpWrite for a causal write that its coordinator has synced: a
	// WriteRequest, answered like a read, with what this owner then holds, or with
	// an empty record where that is the record that was sent.
	OpCausal Op = 21
)

// Fault is why a coordinator failed. Numbers are append-only.
type Fault uint8

const (
	NoFault Fault = iota
	FaultConflict
	FaultTooManySiblings
	FaultUnavailable
	FaultTimeout
	FaultPartial
	FaultOverloaded
	FaultNotReady
	FaultClockSkew
	FaultNoSpace
	FaultReadOnly
	FaultInvalid
	FaultDamaged
	FaultNotOwner
	FaultStale
	FaultBehind // nothing so old may follow any more
	FaultWrongType
	FaultOverflow
	FaultValueTooLarge
)

const (
	causalHead      = 1 + 1 + 8 + 2 // level, flags, deadline, length of the version
	causalReplyHead = 1 + 1 + 1 + 1 + 1 + 2
	flagSole        = 1 << 1 // of a causal request, beside flagTomb
	flagMutation    = 1 << 2 // likewise
	flagSloppy      = 1 << 3 // likewise
	mutationHead    = 4      // its length

	// MaxVersionBytes bounds the text of the version that a causal write names:
	// that of some 3,000 writers of one key.
	MaxVersionBytes = 1<<16 - 1
)

// A CausalRequest asks an owner of the key to coordinate a causal write.
//
//	request head and key | level 1 | flags 1 | deadline 8 | length 2 | version | value (the rest)
//
// The version is in its text form. Of a mutation the rest is
//
//	length 4 | mutation | record
type CausalRequest struct {
	// Request has no record and is no repair.
	Request
	Level     uint8
	Tombstone bool
	// Sole: refuse the write if it would leave another value beside it.
	Sole bool
	// Sloppy: hints may stand in for owners that are down.
	Sloppy bool
	// Deadline is when the value expires, as in a Record.
	Deadline int64
	// Seen is what the write supersedes.
	Seen  vclock.Version
	Value []byte
	// Mutation is what the coordinator does to what it holds, instead of a value; nil
	// if there is a value. It supersedes all that the coordinator holds joined with
	// Base, which is what its author has read.
	Mutation []byte
	Base     Record
}

// Body is what follows the head.
func (q *CausalRequest) Body() []byte {
	if q.Mutation != nil {
		return q.Base.Value
	}
	return q.Value
}

// AppendHead encodes the request up to its Body. It fails with ErrTooLarge when
// the version is longer than MaxVersionBytes.
func (q *CausalRequest) AppendHead(dst []byte) ([]byte, error) {
	seen, err := q.Seen.MarshalText()
	if err != nil {
		return nil, err
	}
	if len(seen) > MaxVersionBytes {
		return nil, ErrTooLarge
	}
	dst = q.AppendRead(dst)
	var flags byte
	if q.Tombstone {
		flags |= flagTomb
	}
	if q.Sole {
		flags |= flagSole
	}
	if q.Sloppy {
		flags |= flagSloppy
	}
	if q.Mutation != nil {
		flags |= flagMutation
	}
	dst = append(dst, q.Level, flags)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(q.Deadline))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(seen)))
	dst = append(dst, seen...)
	if q.Mutation != nil {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(q.Mutation)))
		dst = appendRecordHead(append(dst, q.Mutation...), q.Base)
	}
	return dst, nil
}

// DecodeCausal decodes a causal request. Its slices alias b.
func DecodeCausal(b []byte) (CausalRequest, error) {
	head, rest, err := decodeRequest(b)
	if err != nil {
		return CausalRequest{}, err
	}
	if len(rest) < causalHead || rest[1]&^(flagTomb|flagSole|flagMutation|flagSloppy) != 0 || head.Repair {
		return CausalRequest{}, ErrMalformed
	}
	flags := rest[1]
	q := CausalRequest{Request: head, Level: rest[0], Tombstone: flags&flagTomb != 0, Sole: flags&flagSole != 0, Sloppy: flags&flagSloppy != 0,
		Deadline: int64(binary.LittleEndian.Uint64(rest[2:]))}
	n := int(binary.LittleEndian.Uint16(rest[10:]))
	if rest = rest[causalHead:]; len(rest) < n || q.Seen.UnmarshalText(rest[:n]) != nil {
		return CausalRequest{}, ErrMalformed
	}
	rest = rest[n:]
	switch {
	case flags&flagMutation != 0:
		err = q.decodeMutation(rest)
	case q.Tombstone && len(rest) > 0:
		err = ErrMalformed
	default:
		q.Value = rest
	}
	if err != nil {
		return CausalRequest{}, err
	}
	return q, nil
}

// decodeMutation reads a mutation and what its author has read.
func (q *CausalRequest) decodeMutation(b []byte) (err error) {
	if len(b) < mutationHead || q.Tombstone || q.Sole {
		return ErrMalformed
	}
	n := binary.LittleEndian.Uint32(b)
	if b = b[mutationHead:]; n == 0 || uint64(n) > uint64(len(b)) {
		return ErrMalformed
	}
	q.Mutation = b[:n:n]
	q.Base, err = decodeRecord(b[n:])
	return err
}

// A CausalReply is how a forwarded causal write ended.
//
//	reply head | when that is OK:
//	fault 1 | unknown 1 | required 1 | received 1 | alive 1 | length 2 | version | record or text
//
// Another status than OK refuses the request before anything was done. A record
// follows NoFault and FaultConflict: what the owners that answered hold together.
// What follows another fault says it in words.
type CausalReply struct {
	// Reply has no record.
	Reply
	Fault Fault
	// Unknown: the write may have been applied, though it failed.
	Unknown bool
	// Required answers were needed, Received came, of Alive live owners.
	Required, Received, Alive uint8
	// Version is what the writer has seen when there was no fault.
	Version vclock.Version
	// Held is the record.
	Held Record
	Text string
}

// AppendHead encodes the reply up to the record's value.
func (p *CausalReply) AppendHead(dst []byte) ([]byte, error) {
	dst = p.Reply.AppendHead(dst)
	if p.Status != OK {
		return dst, nil
	}
	seen, err := p.Version.MarshalText()
	if err != nil {
		return nil, err
	}
	if len(seen) > MaxVersionBytes {
		return nil, ErrTooLarge
	}
	var unknown byte
	if p.Unknown {
		unknown = 1
	}
	dst = append(dst, byte(p.Fault), unknown, p.Required, p.Received, p.Alive)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(seen)))
	dst = append(dst, seen...)
	if p.hasRecord() {
		return appendRecordHead(dst, p.Held), nil
	}
	return append(dst, p.Text...), nil
}

func (p *CausalReply) hasRecord() bool { return p.Fault == NoFault || p.Fault == FaultConflict }

// DecodeCausalReply decodes a reply. The record's value aliases b.
func DecodeCausalReply(b []byte) (CausalReply, error) {
	if len(b) < replyHead {
		return CausalReply{}, ErrMalformed
	}
	head, err := DecodeReply(b[:replyHead])
	if b = b[replyHead:]; err != nil || (head.Status == OK) != (len(b) > 0) {
		return CausalReply{}, ErrMalformed
	}
	p := CausalReply{Reply: head}
	if p.Status != OK {
		return p, nil
	}
	if len(b) < causalReplyHead || b[1] > 1 {
		return CausalReply{}, ErrMalformed
	}
	p.Fault, p.Unknown, p.Required, p.Received, p.Alive = Fault(b[0]), b[1] == 1, b[2], b[3], b[4]
	n := int(binary.LittleEndian.Uint16(b[5:]))
	if b = b[causalReplyHead:]; len(b) < n || p.Version.UnmarshalText(b[:n]) != nil {
		return CausalReply{}, ErrMalformed
	}
	if b = b[n:]; !p.hasRecord() {
		p.Text = string(b)
		return p, nil
	}
	if p.Held, err = decodeRecord(b); err != nil {
		return CausalReply{}, err
	}
	return p, nil
}
