package replica

import (
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// Pace of exchanges.
const (
	// exchangeEvery is the time between two exchanges of one node, whatever the
	// number of its peers.
	exchangeEvery = 5 * time.Second
	// verifyEvery is how often everything is compared with each peer, also what
	// lies behind the horizon. A start does not know when that was last done, so its
	// first time is drawn from all of that: then it comes as often, on average, however
	// short the starts are.
	verifyEvery = 24 * time.Hour
	// recordsPerSecond bounds what exchanges read, on average.
	recordsPerSecond = 50_000
	// retryExchange is the wait after a failure with one peer.
	retryExchange = 10 * time.Second
	// retryNeed is the wait before partitions in need are tried again with one peer:
	// in between is time for what is routine, which a need that cannot be met for now
	// must not hold up.
	retryNeed = 20 * time.Second
	// maxPutOff is how often in a row a routine exchange with one peer is put off.
	maxPutOff = 12
)

// An ExchangeWork is the next piece for one peer: from token From on, as far as one
// comparison reaches.
type ExchangeWork struct {
	Peer uint64
	// Routine compares what is above the horizon; else all of Partitions is.
	Routine    bool
	From       uint64
	Partitions []uint32 // ascending
}

// A Rota says with whom this node exchanges next, and what: partitions in need first,
// then whatever is above the horizon, each time with whoever it was longest ago. It reads
// no clock and holds no data.
type Rota struct {
	draw  *rand.Rand
	turn  time.Time // the next exchange is not before
	peers map[uint64]*rotaPeer
	// needs are the partitions to be compared whole, and with whom still.
	needs map[uint32]map[uint64]bool
}

type rotaPeer struct {
	last   time.Time // the last routine exchange
	verify time.Time // when everything is due
	after  time.Time // not before, after a failure
	tried  time.Time // the last exchange of any kind
	from   uint64    // where a routine exchange that was cut goes on
	needed uint64    // where a comparison of the partitions in need that was cut goes on
	balked time.Time // those are not compared before
	putOff int       // turns in a row that a routine exchange was put off
}

// NewRota returns the rota of a node that starts now. draw is another one at each start.
func NewRota(now time.Time, draw *rand.Rand) *Rota {
	return &Rota{draw: draw, turn: now.Add(exchangeEvery), peers: map[uint64]*rotaPeer{}, needs: map[uint32]map[uint64]bool{}}
}

// Need has a partition compared whole with each of these peers, its other owners.
func (r *Rota) Need(partition uint32, peers []uint64) {
	for _, uid := range peers {
		r.need(partition, uid)
	}
}

// need notes a need of one peer. What is under way with it starts over, since the
// partition may lie below where that is.
func (r *Rota) need(partition uint32, uid uint64) {
	if r.needs[partition] == nil {
		r.needs[partition] = map[uint64]bool{}
	}
	r.needs[partition][uid] = true
	if p := r.peers[uid]; p != nil {
		p.needed = 0
	}
}

// Turn is when the next exchange may begin.
func (r *Rota) Turn() time.Time { return r.turn }

// Next gives the next piece of work with one of the peers that are alive and share
// partitions with this node. When everything is due to be verified with a peer,
// shared gives the partitions.
func (r *Rota) Next(now time.Time, alive []uint64, shared func(peer uint64) []uint32) (w ExchangeWork, ok bool) {
	if now.Before(r.turn) {
		return w, false
	}
	r.turn = now.Add(exchangeEvery)
	alive = slices.Sorted(slices.Values(alive))
	var best, inNeed *rotaPeer
	var whole ExchangeWork
	for _, uid := range alive {
		p := r.peers[uid]
		if p == nil {
			p = &rotaPeer{verify: now.Add(time.Duration(r.draw.Int64N(int64(verifyEvery))))}
			r.peers[uid] = p
		}
		if now.Before(p.after) {
			continue
		}
		if !now.Before(p.verify) {
			p.verify = now.Add(verifyEvery)
			for _, partition := range shared(uid) {
				r.need(partition, uid)
			}
		}
		if best == nil || p.last.Before(best.last) {
			best, w = p, ExchangeWork{Peer: uid, Routine: true, From: p.from}
		}
		if now.Before(p.balked) || inNeed != nil && !p.tried.Before(inNeed.tried) {
			continue
		}
		if need := r.needOf(uid); len(need) > 0 {
			inNeed, whole = p, ExchangeWork{Peer: uid, From: p.needed, Partitions: need}
		}
	}
	if inNeed != nil {
		best, w = inNeed, whole
	}
	if best != nil {
		best.tried = now
	}
	return w, best != nil
}

// needOf are the partitions to be compared whole with one peer, ascending.
func (r *Rota) needOf(uid uint64) (need []uint32) {
	for _, partition := range slices.Sorted(maps.Keys(r.needs)) {
		if r.needs[partition][uid] {
			need = append(need, partition)
		}
	}
	return need
}

// Done notes that the work was done up to token end, last for the last token there
// is, and reading so many records. It gives the partitions, of those that are wholly
// at or below end, which need no comparison with anybody any more.
func (r *Rota) Done(now time.Time, w ExchangeWork, compared []uint32, last bool, end uint64, records int) (settled []uint32) {
	p := r.peers[w.Peer]
	reading := time.Duration(records) * time.Second / recordsPerSecond
	p.after = time.Time{}
	r.turn = later(r.turn, now.Add(reading))
	if w.Routine {
		if !last {
			p.from = end + 1
			r.turn = now.Add(reading)
			return nil
		}
		p.last, p.from, p.putOff = now, 0, 0
		return nil
	}
	p.needed = 0
	if len(w.Partitions) > len(compared) {
		p.needed = end + 1
		r.turn = now.Add(reading) // there is more
	}
	for _, partition := range compared {
		delete(r.needs[partition], w.Peer)
		if with, ok := r.needs[partition]; ok && len(with) == 0 {
			delete(r.needs, partition)
			settled = append(settled, partition)
		}
	}
	return settled
}

// PutOff leaves routine work to a later turn of that peer, the others' come first. It
// reports false when that was so maxPutOff times in a row: the work is to be done now.
func (r *Rota) PutOff(now time.Time, w ExchangeWork) bool {
	p := r.peers[w.Peer]
	if p.putOff == maxPutOff {
		return false
	}
	p.putOff++
	p.last = now
	return true
}

// Failed notes that the work was not done.
func (r *Rota) Failed(now time.Time, w ExchangeWork) {
	p := r.peers[w.Peer]
	p.after = now.Add(retryExchange)
	if !w.Routine {
		p.balked = now.Add(retryNeed)
	}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
