package replica

import "encoding/binary"

// OpExplain is a read request, answered by an ExplainReply: what a member knows about a
// key, for people.
const OpExplain Op = 45

// An ExplainReply tells what one member knows about a key, besides its copy.
//
//	reply head | owner 1 | promised 8 | recorded 8 | (UID 8 | flags 1)*
type ExplainReply struct {
	Reply
	// Owner says that the member owns the key; Horizon is its.
	Owner bool
	Horizon
	// Missed are owners of the key, at most MaxOwners, that it keeps something for.
	Missed []Missed
}

// A Missed is what a member keeps for an owner that missed writes of a key, or of its
// partition.
type Missed struct {
	Owner uint64 // its UID
	// Hint: a write of the key. Mark: the owner is to exchange the partition, because
	// there was no room for hints, or is the member itself and has not done so yet.
	Hint, Mark bool
}

const (
	missedHint = 1 << 0
	missedMark = 1 << 1

	explainHead = replyHead + 1 + 8 + 8
)

// Append encodes the reply.
func (p *ExplainReply) Append(dst []byte) []byte {
	dst = p.AppendHead(dst)
	owner := byte(0)
	if p.Owner {
		owner = 1
	}
	dst = binary.LittleEndian.AppendUint64(append(dst, owner), p.Promised)
	dst = binary.LittleEndian.AppendUint64(dst, p.Recorded)
	for _, m := range p.Missed {
		flags := byte(0)
		if m.Hint {
			flags |= missedHint
		}
		if m.Mark {
			flags |= missedMark
		}
		dst = append(binary.LittleEndian.AppendUint64(dst, m.Owner), flags)
	}
	return dst
}

// DecodeExplainReply decodes what Append made, or a reply that is not OK.
func DecodeExplainReply(b []byte) (ExplainReply, error) {
	head, rest, err := CutReply(b)
	p := ExplainReply{Reply: head}
	if err != nil || p.Status != OK {
		return p, err
	}
	if len(b) < explainHead || rest[0] > 1 || (len(b)-explainHead)%9 != 0 || (len(b)-explainHead)/9 > MaxOwners {
		return ExplainReply{}, ErrMalformed
	}
	p.Owner = rest[0] == 1
	p.Promised, p.Recorded = binary.LittleEndian.Uint64(rest[1:]), binary.LittleEndian.Uint64(rest[9:])
	for rest = rest[17:]; len(rest) > 0; rest = rest[9:] {
		if rest[8]&^(missedHint|missedMark) != 0 {
			return ExplainReply{}, ErrMalformed
		}
		p.Missed = append(p.Missed, Missed{Owner: binary.LittleEndian.Uint64(rest), Hint: rest[8]&missedHint != 0, Mark: rest[8]&missedMark != 0})
	}
	return p, nil
}
