package topology

import (
	"encoding/binary"
	"errors"
	"math"
)

// MaxMessageBytes bounds a message. The epoch of the largest ring fits.
const MaxMessageBytes = 8 << 20

// chainBytes is how much of the chain one message carries, but at least one epoch.
const chainBytes = 512 << 10

const (
	messageVersion = 1
	minEpochBytes  = 64
)

// Kinds of messages. Append only; unknown ones are ignored.
const (
	kindJoin     = iota + 1 // to a member: let me in
	kindRefused             // to a joiner: no, and why
	kindFetch               // send me the chain after epoch slot
	kindChain               // epochs in order
	kindProbe               // would you promise for a join?
	kindProbed              // whether this member has data
	kindPrepare             // phase 1
	kindPromise             //
	kindReject              // of either phase: a higher ballot, or data
	kindAccept              // phase 2
	kindAccepted            //
)

// A message is what agents send each other.
//
//	version 1 | kind 1 | cluster 16 | epoch 8 | id string | address string | UID 8 | slot 8 | ballot 16 | by kind:
//	join: cluster name, zone, data centre: strings; weight 8    refused: code 1, text string
//	chain: blobs         probed: data 1     prepare: join 1
//	promise: accepted ballot 16, value blob      reject: promised ballot 16, data 1      accept: value blob
//
// Bytes beyond these are left to later versions.
type message struct {
	kind    byte
	cluster [16]byte // zero from a joiner
	epoch   uint64   // newest epoch that the sender knows
	from    Member   // Node beyond ID in a join only
	slot    uint64   // epoch to be decided; for a fetch the last one known
	ballot  ballot

	name   string   // join
	code   byte     // refused
	text   string   // refused
	epochs [][]byte // chain
	flag   bool     // probed and reject: has data; prepare: for a join
	other  ballot   // promise: accepted; reject: promised
	value  []byte   // promise, accept
}

func (m *message) encode() []byte {
	b := append([]byte{messageVersion, m.kind}, m.cluster[:]...)
	b = binary.LittleEndian.AppendUint64(b, m.epoch)
	b = appendString(b, m.from.ID)
	b = appendString(b, m.from.Addr)
	b = binary.LittleEndian.AppendUint64(b, m.from.UID)
	b = binary.LittleEndian.AppendUint64(b, m.slot)
	b = appendBallot(b, m.ballot)
	switch m.kind {
	case kindJoin:
		b = appendString(b, m.name)
		b = appendString(b, m.from.Zone)
		b = appendString(b, m.from.DataCenter)
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(m.from.Weight))
	case kindRefused:
		b = appendString(append(b, m.code), m.text[:min(len(m.text), 255)])
	case kindChain:
		for _, e := range m.epochs {
			b = appendBlob(b, e)
		}
	case kindProbed, kindPrepare:
		b = appendFlag(b, m.flag)
	case kindPromise:
		b = appendBlob(appendBallot(b, m.other), m.value)
	case kindReject:
		b = appendFlag(appendBallot(b, m.other), m.flag)
	case kindAccept:
		b = appendBlob(b, m.value)
	}
	return b
}

var errMessage = errors.New("topology: not a message of this version")

// decodeMessage decodes b; epochs and value alias it.
func decodeMessage(b []byte) (*message, error) {
	r := &reader{rest: b}
	if len(b) > MaxMessageBytes || r.byte() != messageVersion {
		return nil, errMessage
	}
	m := &message{kind: r.byte()}
	copy(m.cluster[:], r.bytes(16))
	m.epoch = r.uint64()
	m.from.ID = r.string()
	m.from.Addr = r.string()
	m.from.UID = r.uint64()
	m.slot = r.uint64()
	m.ballot = r.ballot()
	switch m.kind {
	case kindJoin:
		m.name = r.string()
		m.from.Zone = r.string()
		m.from.DataCenter = r.string()
		m.from.Weight = math.Float64frombits(r.uint64())
	case kindRefused:
		m.code, m.text = r.byte(), r.string()
	case kindChain:
		for len(r.rest) > 0 {
			e := r.blob()
			if len(e) < minEpochBytes { // keeps memory in proportion to the message
				return nil, errMessage
			}
			m.epochs = append(m.epochs, e)
		}
	case kindProbed, kindPrepare:
		m.flag = r.byte() == 1
	case kindPromise:
		m.other, m.value = r.ballot(), r.blob()
	case kindReject:
		m.other, m.flag = r.ballot(), r.byte() == 1
	case kindAccept:
		m.value = r.blob()
	}
	if r.bad || m.from.ID == "" || m.from.UID == 0 {
		return nil, errMessage
	}
	return m, nil
}
