package replica

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// A Hint is a write that one owner missed, kept by another node until the owner
// has it.
type Hint struct {
	// Target is the UID of the owner.
	Target uint64
	// Epoch is the one in which the write was acknowledged.
	Epoch uint64
	// Counted: it was counted towards the write's level, in the place of the owner.
	Counted bool
	KeyRecord
}

// Keys of hints and marks in a node's system key space.
const (
	HintPrefix = "hint/"
	MarkPrefix = "mark/"

	hintKeyHead = len(HintPrefix) + 16 + 1
	hintHead    = 8 + 1
)

// StoreKey is the hint's key in the system key space: one for each target and key,
// so that the writes of one key become one hint.
//
//	"hint/" | target, 16 hexadecimal digits | "/" | key
func (h *Hint) StoreKey() []byte {
	return append(fmt.Appendf(nil, "%s%016x/", HintPrefix, h.Target), h.Key...)
}

// StoreValue is the hint's value there.
//
//	epoch 8 | counted 1 | flags 1 | stamp 8 | actor 8 | deadline 8 | value (the rest)
func (h *Hint) StoreValue() []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, hintHead+recordHead+len(h.Value)), h.Epoch)
	counted := byte(0)
	if h.Counted {
		counted = 1
	}
	return append(appendRecordHead(append(b, counted), h.Record), h.Value...)
}

// DecodeHint is the reverse of StoreKey and StoreValue. The hint aliases both.
func DecodeHint(key, value []byte) (Hint, error) {
	target, rest, ok := cutTarget(key, HintPrefix)
	if !ok || len(rest) == 0 || len(value) < hintHead || value[8] > 1 {
		return Hint{}, ErrMalformed
	}
	h := Hint{Target: target, Epoch: binary.LittleEndian.Uint64(value), Counted: value[8] == 1}
	h.Key = rest
	var err error
	if h.Record, err = decodeRecord(value[hintHead:]); err == nil && !h.Found() {
		err = ErrMalformed
	}
	return h, err
}

// A Mark says that there was no room for hints of a partition: the target has to
// exchange it with the other owners.
type Mark struct {
	Target    uint64
	Partition uint32
}

// StoreKey is the mark's key in the system key space; its value is empty.
//
//	"mark/" | target, 16 hexadecimal digits | "/" | partition, 5 decimal digits
func (m Mark) StoreKey() []byte {
	return fmt.Appendf(nil, "%s%016x/%05d", MarkPrefix, m.Target, m.Partition)
}

// DecodeMark is the reverse of StoreKey.
func DecodeMark(key []byte) (Mark, error) {
	target, rest, ok := cutTarget(key, MarkPrefix)
	p, err := strconv.ParseUint(string(rest), 10, 32)
	if !ok || err != nil {
		return Mark{}, ErrMalformed
	}
	return Mark{target, uint32(p)}, nil
}

// cutTarget takes prefix and target off a key.
func cutTarget(key []byte, prefix string) (target uint64, rest []byte, ok bool) {
	if len(key) < hintKeyHead || !strings.HasPrefix(string(key[:len(prefix)]), prefix) || key[hintKeyHead-1] != '/' {
		return 0, nil, false
	}
	target, err := strconv.ParseUint(string(key[len(prefix):hintKeyHead-1]), 16, 64)
	return target, key[hintKeyHead:], err == nil
}

// A HintRequest asks a fallback to keep hints of one write.
//
//	count 1, and 128 if they are counted | target 8 … | write request
type HintRequest struct {
	Targets []uint64
	// Counted: the write's level counts them, each in the place of its target.
	Counted bool
	Request
}

const flagCountedHint = 128

// AppendHead encodes the request up to the value, which the caller sends after it.
func (q *HintRequest) AppendHead(dst []byte) []byte {
	head := byte(len(q.Targets))
	if q.Counted {
		head |= flagCountedHint
	}
	dst = append(dst, head)
	for _, t := range q.Targets {
		dst = binary.LittleEndian.AppendUint64(dst, t)
	}
	return q.AppendWriteHead(dst)
}

// DecodeHintRequest decodes a HintRequest. Key and value alias b.
func DecodeHintRequest(b []byte) (HintRequest, error) {
	if len(b) == 0 {
		return HintRequest{}, ErrMalformed
	}
	q := HintRequest{Counted: b[0]&flagCountedHint != 0}
	n := int(b[0] &^ flagCountedHint)
	if n == 0 || n > MaxOwners || len(b) < 1+8*n {
		return HintRequest{}, ErrMalformed
	}
	for b = b[1:]; len(q.Targets) < n; b = b[8:] {
		q.Targets = append(q.Targets, binary.LittleEndian.Uint64(b))
	}
	var err error
	q.Request, err = DecodeWrite(b)
	return q, err
}

// A Needs tells an owner of partitions for which there was no room for hints.
//
//	to 8 | epoch 8 | stamp 8 | partition 4 …
type Needs struct {
	To, Epoch, Stamp uint64 // as in a Request
	Partitions       []uint32
}

// Append encodes the message.
func (n *Needs) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, n.To)
	dst = binary.LittleEndian.AppendUint64(dst, n.Epoch)
	dst = binary.LittleEndian.AppendUint64(dst, n.Stamp)
	for _, p := range n.Partitions {
		dst = binary.LittleEndian.AppendUint32(dst, p)
	}
	return dst
}

// DecodeNeeds decodes what Append made.
func DecodeNeeds(b []byte) (Needs, error) {
	if len(b) < 28 || len(b)%4 != 0 {
		return Needs{}, ErrMalformed
	}
	n := Needs{To: binary.LittleEndian.Uint64(b), Epoch: binary.LittleEndian.Uint64(b[8:]), Stamp: binary.LittleEndian.Uint64(b[16:])}
	for b = b[24:]; len(b) > 0; b = b[4:] {
		n.Partitions = append(n.Partitions, binary.LittleEndian.Uint32(b))
	}
	return n, nil
}
