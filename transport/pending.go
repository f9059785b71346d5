package transport

import (
	"math"
	"sync/atomic"
)

// Completion is told how a call ended.
type Completion interface {
	// Complete is called once per call, on the connection's reader or the
	// sweeper, with the tag given to Call. It must not block. The memory of
	// reply is reused when it returns. The error is nil or wraps ErrDeadline,
	// ErrClosed, ErrDown (nothing was sent after all) or a *RemoteError.
	Complete(tag uint64, reply []byte, err error)
}

// pending holds the calls that wait for a reply: a ring of slots without locks.
//
// A call draws the next id and claims the slot id mod size. If an older call
// still sits there, it leaps ahead: calls that hang were mostly made together and
// sit side by side. So they cost the others nothing. Ids are never used twice: a
// reply that comes after its call was given up finds another id in the slot and
// is dropped.
//
// A slot is free (id 0), claiming (being filled or emptied by the goroutine
// that set this) or holds the call with that id:
//
//	free -> claiming -> id -> claiming -> free
//
// Whoever moves it from id to claiming owns the call and completes it.
type pending struct {
	slots []slot
	// used says of each block of slots that it may hold calls. A claim sets it
	// after the slot is filled; the sweeper clears it before it looks. So a
	// block with a call is always marked, and an idle ring costs no scan.
	used []atomic.Bool
	next atomic.Uint64
}

type slot struct {
	id       atomic.Uint64
	deadline atomic.Int64 // nanoseconds since the start of the Mux
	tag      uint64
	c        Completion
	_        [24]byte // neighbours are claimed by other cores
}

const (
	claiming   = math.MaxUint64
	blockSlots = 64
	// maxProbes is how many slots, evenly spread, a claim finds taken before it
	// calls the ring full.
	maxProbes = 64
)

// newPending gives a ring of at least n slots.
func newPending(n int) *pending {
	size := 1
	for size < n {
		size <<= 1
	}
	return &pending{slots: make([]slot, size), used: make([]atomic.Bool, (size+blockSlots-1)/blockSlots)}
}

// claim stores a call and gives its id, or false when the ring is full.
func (p *pending) claim(c Completion, tag uint64, deadline int64) (uint64, bool) {
	mask := uint64(len(p.slots) - 1)
	leap := max(1, uint64(len(p.slots))/maxProbes)
	for i := range min(maxProbes, len(p.slots)) {
		step := leap
		if i == 0 {
			step = 1
		}
		id := p.next.Add(step)
		s := &p.slots[id&mask]
		if !s.id.CompareAndSwap(0, claiming) {
			continue
		}
		s.c, s.tag = c, tag
		s.deadline.Store(deadline)
		s.id.Store(id)
		if u := &p.used[id&mask/blockSlots]; !u.Load() {
			u.Store(true)
		}
		return id, true
	}
	return 0, false
}

// take removes the call with this id; false if it is not, or no longer, here.
func (p *pending) take(id uint64) (c Completion, tag uint64, ok bool) {
	if id == 0 || id == claiming {
		return nil, 0, false
	}
	s := &p.slots[id&uint64(len(p.slots)-1)]
	if !s.id.CompareAndSwap(id, claiming) {
		return nil, 0, false
	}
	c, tag = s.c, s.tag
	s.c = nil
	s.id.Store(0)
	return c, tag, true
}

// expire completes with err every call whose deadline is at or before now. It
// gives their number and whether any call remains. One sweep runs at a time.
func (p *pending) expire(now int64, err error) (expired int, remain bool) {
	for b := range p.used {
		if !p.used[b].Load() {
			continue
		}
		p.used[b].Store(false)
		var live bool
		for i := b * blockSlots; i < min((b+1)*blockSlots, len(p.slots)); i++ {
			s := &p.slots[i]
			id := s.id.Load()
			if id == 0 {
				continue
			}
			if id == claiming || s.deadline.Load() > now {
				live = true
				continue
			}
			if c, tag, ok := p.take(id); ok {
				c.Complete(tag, nil, err)
				expired++
			}
		}
		if live {
			p.used[b].Store(true)
			remain = true
		}
	}
	return expired, remain
}

// idle reports whether no call is pending.
func (p *pending) idle() bool {
	for b := range p.used {
		if p.used[b].Load() {
			return false
		}
	}
	return true
}

// fail completes every call with err. A call that is being claimed meanwhile
// may escape; its send fails, and that takes it back.
func (p *pending) fail(err error) { p.expire(math.MaxInt64, err) }
