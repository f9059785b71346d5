package gossip

import (
	"encoding/binary"
	"errors"
)

// Limits of the encoding. Whatever exceeds them is refused unread.
const (
	MaxIDBytes      = 128
	MaxAddrBytes    = 255
	MaxMetaBytes    = 512
	MaxMessageBytes = 64 << 10 // no longer message is accepted

	digestBytes = 1000     // a round's message: fits one packet
	shortBytes  = 400      // its second message: news, and the whole table of a small cluster
	replyBytes  = 32 << 10 // a reply that carries bodies

	formatVersion = 1
)

// A kind is the first word of a message. Numbers are append-only.
//
//	A                     B        A          H          M
//	| -- ping: digest --> |        | -- ask about M --> |          |
//	| <- ack: newer,      |        | <- ack ----------- | - ping > |
//	|         wanted ---- |        |                    | < ack -- |
//	| -- delta: bodies -> |        | <- vouch for M --- |          |
type kind uint8

const (
	kindPing  kind = 1 + iota // a probe with a digest; answered by an ack with the same nonce
	kindAck                   // what the digest lacked, what it had more of, and fresh news
	kindDelta                 // bodies the other side asked for
	kindAsk                   // please probe the member named in about
	kindVouch                 // the member named in about has answered me
)

// A header opens every message: who speaks, and its own version.
//
//	format 1 | kind 1 | nonce 8 | id | addr | incarnation 8 | heartbeat | bodyAt | members | about | extension | entries
//
// Numbers after a name are sizes in bytes, integers of such a size big-endian;
// id, addr and about are one length byte and that many bytes; extension is a
// length (uvarint) and bytes that this version skips; the other fields are
// uvarints; entries fill the rest. A header is news about its sender like any entry.
type header struct {
	kind    kind
	nonce   uint64
	from    entry  // id, addr, version and bodyAt of the sender
	members uint64 // how many members the sender knows, itself included
	about   []byte
}

// An entry is news about one member:
//
//	length 2 | flags 1 | id | incarnation 8 | heartbeat | bodyAt | addr | metaLength 2, meta
//
// flags holds the state (low two bits) and whether addr and meta follow (bit 2).
// Bytes left over within length are skipped: later versions may add fields. An
// entry older than what the receiver knows asks for what is newer; incarnation
// 0, which no member has, asks for everything. Slices alias the message.
type entry struct {
	version
	id     []byte
	bodyAt uint64
	full   bool // addr and meta are present
	addr   []byte
	meta   []byte
}

const flagBody = 1 << 2

var (
	errMalformed = errors.New("gossip: malformed message")
	errMeta      = errors.New("gossip: meta exceeds 512 bytes; store less in it")
)

func appendString[T string | []byte](b []byte, s T) []byte {
	return append(append(b, byte(len(s))), s...)
}

func appendHeader(b []byte, h *header) []byte {
	b = append(b, formatVersion, byte(h.kind))
	b = binary.BigEndian.AppendUint64(b, h.nonce)
	b = appendString(b, h.from.id)
	b = appendString(b, h.from.addr)
	b = binary.BigEndian.AppendUint64(b, h.from.incarnation)
	b = binary.AppendUvarint(b, h.from.heartbeat)
	b = binary.AppendUvarint(b, h.from.bodyAt)
	b = binary.AppendUvarint(b, h.members)
	b = appendString(b, h.about)
	return append(b, 0) // no extension
}

// appendEntry appends m's version and, if full, its body.
func appendEntry(b []byte, m *member, full bool) []byte {
	start := len(b)
	flags := byte(m.state)
	if full {
		flags |= flagBody
	}
	b = append(b, 0, 0, flags)
	b = appendString(b, m.id)
	b = binary.BigEndian.AppendUint64(b, m.incarnation)
	b = binary.AppendUvarint(b, m.heartbeat)
	b = binary.AppendUvarint(b, m.bodyAt)
	if full {
		b = appendString(b, m.addr)
		b = binary.BigEndian.AppendUint16(b, uint16(len(m.meta)))
		b = append(b, m.meta...)
	}
	binary.BigEndian.PutUint16(b[start:], uint16(len(b)-start-2))
	return b
}

// appendWant appends an entry that asks for everything about id.
func appendWant(b []byte, id []byte) []byte {
	b = append(b, 0, byte(1+1+len(id)+8+2), byte(Alive))
	b = appendString(b, id)
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
}

// A reader takes a message apart. It allocates nothing; after a mistake it
// stays bad and yields zeroes.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	s := r.b[:n:n]
	r.b = r.b[n:]
	return s
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uint16() uint64 {
	if s := r.bytes(2); s != nil {
		return uint64(binary.BigEndian.Uint16(s))
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if s := r.bytes(8); s != nil {
		return binary.BigEndian.Uint64(s)
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 {
		v := r.b[0]
		r.b = r.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// string reads a short string of at least low and at most high bytes.
func (r *reader) string(low, high int) []byte {
	s := r.bytes(uint64(r.byte()))
	if len(s) < low || len(s) > high {
		r.bad = true
	}
	return s
}

func (r *reader) header(h *header) {
	if r.byte() != formatVersion {
		r.bad = true
	}
	h.kind = kind(r.byte())
	if h.kind < kindPing || h.kind > kindVouch {
		r.bad = true
	}
	h.nonce = r.uint64()
	h.from.id = r.string(1, MaxIDBytes)
	h.from.addr = r.string(1, MaxAddrBytes)
	h.from.state = Alive
	h.from.incarnation = r.uint64()
	h.from.heartbeat = r.uvarint()
	h.from.bodyAt = r.uvarint()
	h.members = r.uvarint()
	h.about = r.string(0, MaxIDBytes)
	r.bytes(r.uvarint()) // an extension
	if h.from.incarnation == 0 || h.from.incarnation > maxIncarnation || h.from.heartbeat > maxHeartbeat {
		r.bad = true
	}
}

// entry reads the next entry, if there is one.
func (r *reader) entry(e *entry) bool {
	if r.bad || len(r.b) == 0 {
		return false
	}
	f := reader{b: r.bytes(r.uint16())}
	flags := f.byte()
	e.state = State(flags & 3)
	e.full = flags&flagBody != 0
	e.id = f.string(1, MaxIDBytes)
	e.incarnation = f.uint64()
	e.heartbeat = f.uvarint()
	e.bodyAt = f.uvarint()
	e.addr, e.meta = nil, nil
	if e.full {
		e.addr = f.string(1, MaxAddrBytes)
		n := f.uint16()
		if n > MaxMetaBytes {
			f.bad = true
		}
		e.meta = f.bytes(n)
	}
	if f.bad || e.state == 0 || e.bodyAt > e.heartbeat || e.full && e.bodyAt == 0 {
		r.bad = true
	}
	return !r.bad
}

// decode checks the whole of msg and returns its header and a reader that stands
// at the first entry; reading them cannot fail any more.
func decode(msg []byte) (h header, entries reader, err error) {
	if len(msg) > MaxMessageBytes {
		return h, entries, errMalformed
	}
	r := reader{b: msg}
	r.header(&h)
	entries = r
	var e entry
	for r.entry(&e) {
	}
	if r.bad {
		return header{}, reader{}, errMalformed
	}
	return h, entries, nil
}
