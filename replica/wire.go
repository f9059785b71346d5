package replica

import (
	"encoding/binary"
	"errors"

	"example.com/kvstore/vclock"
)

// Op says what a message asks for. Numbers are append-only.
type Op = uint8

const (
	OpGossip   Op = 1 // one way; package gossip's encoding
	OpTopology Op = 2 // one way; package topology's encoding
	OpWrite    Op = 3 // WriteRequest, answered by a Reply
	OpRead     Op = 4 // ReadRequest, answered by a Reply that carries a record
	OpClock    Op = 5 // empty, answered by the wall clock: 8 bytes, Unix nanoseconds

	OpHint  Op = 40 // HintRequest, answered by a Reply when the hints are durable
	OpBatch Op = 41 // Batch, answered by a BatchReply when its records are durable
	OpNeeds Op = 42 // Needs, answered by a Reply when they are noted durably

	OpExchange Op = 43 // see OpenExchange
	OpRound    Op = 44 // RoundStep, answered by a RoundReply when it is done
)

// Status is the first byte of a reply. Numbers are append-only.
type Status uint8

const (
	// OK: the write is durable here, or the record follows.
	OK Status = iota
	// Superseded: a newer write of the key is, or may be, here; Reply.Dot is a
	// dot at or above it. The record was joined all the same.
	Superseded
	// Stale: the request's epoch is older than the partition's last change;
	// Reply.Epoch is the replica's.
	Stale
	// NotOwner: this node owns no copy of the key's partition.
	NotOwner
	// NotReady: the node cannot serve now: starting, closing, or agreeing an
	// epoch.
	NotReady
	// Overloaded: a queue is full; nothing was done.
	Overloaded
	// NoSpace: the volume is full; nothing was stored.
	NoSpace
	// ReadOnly: a sync failed once, so the store takes no writes.
	ReadOnly
	// Damaged: the replica's copy of the key cannot be read.
	Damaged
	// ClockSkew: a stamp in the request is too far ahead of this node's clock.
	ClockSkew
	// Invalid: the request could not be parsed or breaks a limit.
	Invalid
	// Uncertain: the write may or may not have reached the log.
	Uncertain
)

// Behind: the record's dot is not above what the replica promised to the other
// owners: it came too late, and is not stored.
const Behind Status = 40

// String names the status as it appears in errors.
func (s Status) String() string {
	names := [...]string{"ok", "superseded", "stale epoch", "not an owner", "not ready", "overloaded", "no space",
		"read-only after a failed sync", "copy damaged", "clock skew", "invalid request", "outcome unknown"}
	switch {
	case int(s) < len(names):
		return names[s]
	case s == Behind:
		return "behind the promised horizon"
	}
	return "unknown status"
}

var (
	// ErrMalformed says that a message is not of the form its op requires.
	ErrMalformed = errors.New("replica: malformed message")
	// ErrTooLarge says that a message would not fit its form.
	ErrTooLarge = errors.New("replica: message too large")
)

const (
	requestHead = 8 + 8 + 8 + 1 + 2 // to, epoch, stamp, flags, key length
	recordHead  = 1 + 8 + 8 + 8     // flags, stamp, actor, deadline
	replyHead   = 1 + 8 + 8 + 8 + 8 // status, stamp, epoch, dot
	flagRepair  = 1 << 0            // request: a write-back or repair
	flagSum     = 1 << 1            // request: a digest will do
	flagTomb    = 1 << 0            // record
	flagCausal  = 1 << 1            // record
	flagDigest  = 1 << 2            // record of a reply
)

// A Request is what both kinds have in common.
//
//	to 8 | epoch 8 | stamp 8 | flags 1 | key length 2 | key | for writes: record
//	record = flags 1 | stamp 8 | actor 8 | deadline 8 | value (the rest)
//
// All integers are little-endian.
type Request struct {
	// To is the UID of the member that is asked: addresses change hands, and no
	// node answers in the place of another.
	To uint64
	// Epoch is the coordinator's when it chose the owners.
	Epoch uint64
	// Stamp is the sender's hybrid clock.
	Stamp uint64
	// Repair marks a write-back: the record is older than the request, so a
	// replica that holds a newer one has nothing to object to.
	Repair bool
	// Digest asks for the digest of a record with a large value.
	Digest bool
	Key    []byte
	// Record is the write's; unused in reads.
	Record Record
}

// AppendRead encodes a read request.
func (q *Request) AppendRead(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, q.To)
	dst = binary.LittleEndian.AppendUint64(dst, q.Epoch)
	dst = binary.LittleEndian.AppendUint64(dst, q.Stamp)
	flags := byte(0)
	if q.Repair {
		flags |= flagRepair
	}
	if q.Digest {
		flags |= flagSum
	}
	dst = append(dst, flags)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(q.Key)))
	return append(dst, q.Key...)
}

// AppendWriteHead encodes a write request up to the value, which the caller
// sends after it.
func (q *Request) AppendWriteHead(dst []byte) []byte {
	return appendRecordHead(q.AppendRead(dst), q.Record)
}

// DecodeRead decodes a read request. Key aliases b.
func DecodeRead(b []byte) (Request, error) {
	q, rest, err := decodeRequest(b)
	if err == nil && len(rest) != 0 {
		err = ErrMalformed
	}
	return q, err
}

// DecodeWrite decodes a write request. Key and value alias b.
func DecodeWrite(b []byte) (Request, error) {
	q, rest, err := decodeRequest(b)
	if err != nil {
		return Request{}, err
	}
	q.Record, err = decodeRecord(rest)
	if err == nil && (!q.Record.Found() || q.Digest) {
		err = ErrMalformed
	}
	return q, err
}

func decodeRequest(b []byte) (Request, []byte, error) {
	if len(b) < requestHead {
		return Request{}, nil, ErrMalformed
	}
	n := int(binary.LittleEndian.Uint16(b[25:]))
	if n == 0 || len(b) < requestHead+n || b[24]&^(flagRepair|flagSum) != 0 {
		return Request{}, nil, ErrMalformed
	}
	return Request{
		To:     binary.LittleEndian.Uint64(b),
		Epoch:  binary.LittleEndian.Uint64(b[8:]),
		Stamp:  binary.LittleEndian.Uint64(b[16:]),
		Repair: b[24]&flagRepair != 0,
		Digest: b[24]&flagSum != 0,
		Key:    b[requestHead : requestHead+n : requestHead+n],
	}, b[requestHead+n:], nil
}

func appendRecordHead(dst []byte, r Record) []byte {
	flags := byte(0)
	if r.Tombstone {
		flags |= flagTomb
	}
	if r.Causal {
		flags |= flagCausal
	}
	if r.Digest {
		flags |= flagDigest
	}
	dst = append(dst, flags)
	dst = binary.LittleEndian.AppendUint64(dst, r.Dot.Stamp)
	dst = binary.LittleEndian.AppendUint64(dst, r.Dot.Actor)
	return binary.LittleEndian.AppendUint64(dst, uint64(r.Deadline))
}

func decodeRecord(b []byte) (Record, error) {
	r, err := decodeAnswer(b)
	if err == nil && r.Digest {
		return Record{}, ErrMalformed
	}
	return r, err
}

// decodeAnswer decodes a record that may be a digest.
func decodeAnswer(b []byte) (Record, error) {
	if len(b) < recordHead || b[0]&^(flagTomb|flagCausal|flagDigest) != 0 {
		return Record{}, ErrMalformed
	}
	return Record{
		Tombstone: b[0]&flagTomb != 0,
		Causal:    b[0]&flagCausal != 0,
		Digest:    b[0]&flagDigest != 0,
		Dot:       vclock.Dot{Stamp: binary.LittleEndian.Uint64(b[1:]), Actor: binary.LittleEndian.Uint64(b[9:])},
		Deadline:  int64(binary.LittleEndian.Uint64(b[17:])),
		Value:     b[recordHead:],
	}, nil
}

// A Reply answers a read or a write.
//
//	status 1 | stamp 8 | epoch 8 | dot 8+8 | to an OK read: record
//
// A record whose dot is zero says that the key was never written here.
type Reply struct {
	Status Status
	// Stamp is the replica's hybrid clock.
	Stamp uint64
	// Epoch is the replica's.
	Epoch uint64
	// Dot is set for Superseded, for an OK read without a record, where it is the
	// replica's horizon, and for an OK RoundFloor.
	Dot vclock.Dot
	// Record is set for an OK read.
	Record Record
}

// AppendHead encodes a reply to a write.
func (p *Reply) AppendHead(dst []byte) []byte {
	dst = append(dst, byte(p.Status))
	dst = binary.LittleEndian.AppendUint64(dst, p.Stamp)
	dst = binary.LittleEndian.AppendUint64(dst, p.Epoch)
	dst = binary.LittleEndian.AppendUint64(dst, p.Dot.Stamp)
	return binary.LittleEndian.AppendUint64(dst, p.Dot.Actor)
}

// AppendReadHead encodes a reply to a read up to the value, which the caller
// sends after it.
func (p *Reply) AppendReadHead(dst []byte) []byte {
	return appendRecordHead(p.AppendHead(dst), p.Record)
}

// Redirect writes another To into the encoding of a request.
func Redirect(request []byte, to uint64) { binary.LittleEndian.PutUint64(request, to) }

// DecodeReadReply decodes the reply to a read: if it is OK it has a record.
func DecodeReadReply(b []byte) (Reply, error) {
	p, err := DecodeReply(b)
	if err == nil && p.Status == OK && len(b) == replyHead {
		err = ErrMalformed
	}
	return p, err
}

// DecodeReply decodes a reply. The record's value aliases b.
func DecodeReply(b []byte) (Reply, error) {
	if len(b) < replyHead {
		return Reply{}, ErrMalformed
	}
	p := Reply{
		Status: Status(b[0]),
		Stamp:  binary.LittleEndian.Uint64(b[1:]),
		Epoch:  binary.LittleEndian.Uint64(b[9:]),
		Dot:    vclock.Dot{Stamp: binary.LittleEndian.Uint64(b[17:]), Actor: binary.LittleEndian.Uint64(b[25:])},
	}
	if len(b) == replyHead {
		return p, nil
	}
	var err error
	p.Record, err = decodeAnswer(b[replyHead:])
	return p, err
}
