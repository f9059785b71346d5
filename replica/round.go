package replica

import "encoding/binary"

// Steps of a round, by which the owners of some partitions come to have a new
// horizon. One of them drives it:
//
//	RoundPromise to all   each promises the horizon
//	RoundMerge to each    each merges a snapshot of every other, taken after that one's promise
//	RoundRecord to all    each records it
//
// A step is taken when the one before was answered with OK by all.
//
// RoundHeal belongs to no round: an owner that lost data asks the others to promise, up
// to what it may have acknowledged, before it exchanges with them. Each does; the answer
// is Damaged if it lacks data of these partitions itself.
//
// Where hints may count, every member, owner or not, is asked with RoundFloor before a
// round: it takes no counted hint any more at or below the floor that it answers with in
// Dot, which is the horizon that it was asked for or lies below all counted hints that it
// still has. The round's horizon is the lowest floor.
const (
	RoundPromise = 1
	RoundMerge   = 2
	RoundRecord  = 3
	RoundHeal    = 4
	RoundFloor   = 5
)

// A RoundStep asks one owner to do one step.
//
//	step 1 | to 8 | epoch 8 | stamp 8 | round 8 | horizon 8 | owners 1 | UID 8 … | partitions, a bit each
type RoundStep struct {
	Step             byte
	To, Epoch, Stamp uint64 // as in a Request
	Round            uint64 // drawn by who drives it
	Horizon          uint64
	Owners           []uint64 // UIDs, ascending
	Partitions       []byte
}

// Append encodes the message.
func (r *RoundStep) Append(dst []byte) []byte {
	dst = append(dst, r.Step)
	for _, x := range []uint64{r.To, r.Epoch, r.Stamp, r.Round, r.Horizon} {
		dst = binary.LittleEndian.AppendUint64(dst, x)
	}
	dst = append(dst, byte(len(r.Owners)))
	for _, uid := range r.Owners {
		dst = binary.LittleEndian.AppendUint64(dst, uid)
	}
	return append(dst, r.Partitions...)
}

// DecodeRoundStep decodes what Append made. Partitions alias b.
func DecodeRoundStep(b []byte) (RoundStep, error) {
	if len(b) < 42 || b[0] < RoundPromise || b[0] > RoundFloor {
		return RoundStep{}, ErrMalformed
	}
	u := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	r := RoundStep{Step: b[0], To: u(1), Epoch: u(9), Stamp: u(17), Round: u(25), Horizon: u(33)}
	n := int(b[41])
	if n == 0 || n > MaxOwners || len(b) < 42+8*n {
		return RoundStep{}, ErrMalformed
	}
	for i := range n {
		r.Owners = append(r.Owners, u(42+8*i))
	}
	r.Partitions = b[42+8*n:]
	return r, nil
}

// A RoundReply answers a RoundStep.
//
//	reply head | lost, a bit each
//
// Lost are those of the partitions, with Damaged to a RoundPromise, of which the owner
// may lack data: a round of the others may begin. With Damaged to a RoundHeal they are
// those of which it may lack more than what it had not synced when it ended. It is empty
// otherwise.
type RoundReply struct {
	Reply
	Lost []byte
}

// Append encodes the message.
func (r *RoundReply) Append(dst []byte) []byte { return append(r.AppendHead(dst), r.Lost...) }

// DecodeRoundReply decodes what Append made. Lost aliases b.
func DecodeRoundReply(b []byte) (RoundReply, error) {
	if len(b) < replyHead {
		return RoundReply{}, ErrMalformed
	}
	p, err := DecodeReply(b[:replyHead])
	return RoundReply{Reply: p, Lost: b[replyHead:]}, err
}
