package transport

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Kinds of messages. The numbers are part of the protocol: append only.
const (
	kindOneWay = 1
	kindCall   = 2
	kindReply  = 3
	kindFail   = 4
	kindLeave  = 5
)

// Sizes of what goes in front of the payload of each kind.
const (
	oneWayHeader = 2
	callHeader   = 14
	replyHeader  = 9
	failHeader   = 10
)

// maxFailText bounds the text of a failure; what is longer is cut.
const maxFailText = 1 << 10

// maxRemaining is the longest deadline that a call carries.
const maxRemaining = time.Hour

// message is a decoded message. Body aliases what was decoded.
//
//	one-way  kind 1 | op 1 | body
//	call     kind 1 | op 1 | remaining 4 (microseconds) | id 8 | body
//	reply    kind 1 | id 8 | body
//	fail     kind 1 | id 8 | code 1 | text
//	leave    kind 1 | 0 1
type message struct {
	kind      uint8
	op        uint8 // code, in a failure
	remaining time.Duration
	id        uint64
	body      []byte
}

func appendLeave(dst []byte) []byte { return append(dst, kindLeave, 0) }

func appendOneWay(dst []byte, op uint8) []byte { return append(dst, kindOneWay, op) }

func appendCall(dst []byte, op uint8, remaining time.Duration, id uint64) []byte {
	dst = append(dst, kindCall, op)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(min(remaining, maxRemaining)/time.Microsecond))
	return binary.LittleEndian.AppendUint64(dst, id)
}

func appendReply(dst []byte, id uint64) []byte {
	return binary.LittleEndian.AppendUint64(append(dst, kindReply), id)
}

func appendFail(dst []byte, id uint64, code uint8, text string) []byte {
	dst = binary.LittleEndian.AppendUint64(append(dst, kindFail), id)
	return append(append(dst, code), text[:min(len(text), maxFailText)]...)
}

func decodeMessage(b []byte) (message, error) {
	if len(b) < oneWayHeader {
		return message{}, fmt.Errorf("%w: message of %d bytes", ErrCorrupt, len(b))
	}
	switch kind := b[0]; {
	case kind == kindOneWay:
		return message{kind: kind, op: b[1], body: b[oneWayHeader:]}, nil
	case kind == kindCall && len(b) >= callHeader:
		return message{kind: kind, op: b[1],
			remaining: time.Duration(binary.LittleEndian.Uint32(b[2:])) * time.Microsecond,
			id:        binary.LittleEndian.Uint64(b[6:]), body: b[callHeader:]}, nil
	case kind == kindReply && len(b) >= replyHeader:
		return message{kind: kind, id: binary.LittleEndian.Uint64(b[1:]), body: b[replyHeader:]}, nil
	case kind == kindLeave && len(b) == oneWayHeader && b[1] == 0:
		return message{kind: kind}, nil
	case kind == kindFail && len(b) >= failHeader:
		return message{kind: kind, id: binary.LittleEndian.Uint64(b[1:]), op: b[9], body: b[failHeader:]}, nil
	}
	return message{}, fmt.Errorf("%w: message of kind %d and %d bytes", ErrCorrupt, b[0], len(b))
}
