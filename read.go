package kvstore

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
)

// spareAfter is how long a read waits for the owners it asked before it asks
// one more: an owner that stopped without closing its connections is noticed by
// the failure detector only after seconds.
const spareAfter = 100 * time.Millisecond

// keepValueBytes is the largest value buffer that a pooled call keeps: pools
// never shrink, so this bounds what a burst leaves behind.
const keepValueBytes = 4 << 10

// A readCall is one read at a set of owners in one epoch: first as many as the
// level needs, then one more for each that fails or keeps it waiting.
type readCall struct {
	db      *DB
	refs    atomic.Int32
	decided chan struct{} // capacity 1; sent to once per use, when settled
	head    []byte        // the request, once for each target
	key     []byte        // the caller's, valid until the coordinator left
	own     []byte        // memory for the own copy's value; the coordinator's
	targets []target

	mu struct {
		sync.Mutex
		start    time.Time
		deadline time.Time
		spareAt  time.Time
		state    replica.Read
		asked    int // targets[:asked] were asked
		settled  bool
		epoch    uint64
		owners   [replica.MaxOwners]answer
		values   [][]byte // copies of the answers' values, by owner
	}
}

// readResult is what the coordinator learns when a call settles. Joined's value
// is the call's until it is released.
type readResult struct {
	replica.Verdict
	joined  replica.Record
	holders uint64 // targets known to hold joined
	count   int    // how many those are
	agreed  bool
	settled bool // else digests do not tell enough
	damaged bool
	epoch   uint64
	answers int
	horizon uint64 // of an owner that holds nothing
}

// forgotten is the item's.
func (r readResult) forgotten() uint64 {
	if r.joined.Found() {
		return 0
	}
	return r.horizon
}

// read asks targets, in their order, until need have answered.
func (c *readCall) read(v *view, key []byte, targets []target, need replica.Need, digests bool, deadline time.Time, done <-chan struct{}) readResult {
	c.refs.Store(1)
	c.key = key
	c.targets = append(c.targets[:0], targets...)
	q := replica.Request{Epoch: v.epoch.Number, Stamp: c.db.clock.Now(), Key: key}
	c.head = c.head[:0]
	// The first owner gives its record whole, and so do those that are asked in
	// another's place.
	local, first := -1, need.Count
	if len(need.Groups) > 0 {
		first = len(targets)
	}
	for i, t := range targets {
		q.To, q.Digest = t.uid, digests && i > 0 && i < first
		c.head = q.AppendRead(c.head)
	}
	start := now()
	c.mu.Lock()
	c.mu.start, c.mu.deadline, c.mu.spareAt = start, deadline, start.Add(spareAfter)
	c.mu.state = replica.NewRead(need, len(targets))
	c.mu.asked, c.mu.settled, c.mu.epoch = 0, false, 0
	clear(c.mu.owners[:len(targets)])
	for len(c.mu.values) < len(targets) {
		c.mu.values = append(c.mu.values, nil)
	}
	c.mu.Unlock()
	// Remote owners first, so that they work while this node reads its own.
	for range first {
		i := c.next()
		if i < 0 {
			break // those that could not be sent to have used up all targets
		}
		if c.targets[i].peer == nil {
			local = i
		} else {
			c.ask(i)
		}
	}
	if local >= 0 {
		c.askSelf(local)
	}
	select {
	case <-c.decided:
		return c.end(true)
	case <-done:
		return c.end(false)
	}
}

// next claims the next target to ask, or returns -1.
func (c *readCall) next() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.settled || c.mu.asked == len(c.targets) {
		return -1
	}
	c.mu.asked++
	return c.mu.asked - 1
}

// ask sends the request to the remote target i, and to the next ones while
// sending fails at once.
func (c *readCall) ask(i int) {
	for i >= 0 {
		t := &c.targets[i]
		if t.peer == nil {
			c.askSelfElsewhere(i)
			return
		}
		c.refs.Add(1)
		size := len(c.head) / len(c.targets)
		err := t.peer.Call(replica.OpRead, c.deadline(), c.head[i*size:(i+1)*size], nil, c, uint64(i))
		if err == nil {
			return
		}
		c.note(i, replica.Reply{}, sendError(err))
		i = c.next()
		c.release()
	}
}

func (c *readCall) deadline() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.deadline
}

// askSelf reads the own copy on the caller's goroutine if memory knows it. A disk
// may take longer than the caller's deadline.
func (c *readCall) askSelf(i int) {
	horizon := c.db.horizons.covers(lsm.Token(c.key)) // as it was before the read
	rec, certain := c.db.readMemory(c.key, &c.own)
	if !certain {
		c.askSelfElsewhere(i)
		return
	}
	if c.note(i, replica.Reply{Record: rec, Dot: horizon}, nil) {
		c.ask(c.next())
	}
}

// askSelfElsewhere reads the own copy on a goroutine of its own: the caller waits, not
// for ever, and the goroutine at hand may be a connection's reader.
func (c *readCall) askSelfElsewhere(i int) {
	c.refs.Add(1)
	key := append([]byte(nil), c.key...)
	if !c.db.readers.run(func() {
		defer c.release()
		var own []byte
		horizon := c.db.horizons.covers(lsm.Token(key))
		rec, err := c.db.readLocal(key, &own)
		if c.note(i, replica.Reply{Record: rec, Dot: horizon}, err) {
			c.ask(c.next())
		}
	}) {
		c.note(i, replica.Reply{}, ErrOverloaded)
		c.release()
	}
}

// Complete takes a remote owner's answer. It runs on a connection's reader or
// on the transport's sweeper.
func (c *readCall) Complete(tag uint64, body []byte, err error) {
	defer c.release()
	var p replica.Reply
	if err != nil {
		err = callError(err)
	} else if p, err = replica.DecodeReadReply(body); err == nil {
		c.db.heed(&p, c.targets[tag].peer)
		if p.Status != replica.OK {
			err = statusError(p.Status)
		}
	}
	if c.note(int(tag), p, err) {
		c.ask(c.next())
	}
}

// note files target i's answer and wakes the coordinator if that decided the
// call. It reports whether another owner should be asked instead.
//
// A record stamped further ahead than clocks may differ is refused, like any such
// stamp: if it were joined and written back, nobody could write above it before
// that time has come.
func (c *readCall) note(i int, p replica.Reply, err error) (askNext bool) {
	if err == nil && c.db.observe(&p.Record) != nil {
		err = ErrClockSkew
	}
	c.mu.Lock()
	if c.mu.settled { // the coordinator may be using the joined value
		c.mu.Unlock()
		return false
	}
	c.mu.owners[i] = answer{done: true, err: err, took: now().Sub(c.mu.start)}
	switch {
	case err == nil:
		c.mu.values[i] = append(c.mu.values[i][:0], p.Record.Value...)
		p.Record.Value = c.mu.values[i]
		if p.Record.Found() {
			c.mu.state.Answer(i, p.Record)
		} else {
			c.mu.state.Absent(i, p.Dot.Stamp)
		}
	case errors.Is(err, errDamaged):
		c.mu.state.Damaged(i)
	default:
		c.mu.epoch = max(c.mu.epoch, p.Epoch)
		c.mu.state.Fail(i)
	}
	wake := c.mu.state.Verdict() != replica.Pending
	if wake {
		c.mu.settled = true
	}
	c.mu.Unlock()
	if wake {
		c.decided <- struct{}{}
	}
	return err != nil && !wake
}

// end settles the call for the coordinator.
func (c *readCall) end(decided bool) readResult {
	c.mu.Lock()
	s := &c.mu.state
	settled := s.Settle()
	out := readResult{settled: settled, Verdict: s.Verdict(), joined: s.Joined(), count: s.Holders(), agreed: s.Agreed(),
		damaged: s.AllDamaged(), epoch: c.mu.epoch, answers: s.Answered(), horizon: s.Horizon()}
	for i := range c.targets {
		if s.Holds(i) {
			out.holders |= 1 << i
		}
	}
	sent := c.mu.settled
	c.mu.settled = true
	c.mu.Unlock()
	if sent && !decided {
		<-c.decided // sent, or about to be: leave the channel empty
	}
	return out
}

// sweep asks one more owner when the asked ones keep the call waiting, and ends
// the wait at the deadline.
func (c *readCall) sweep(t time.Time) {
	c.mu.Lock()
	expired := !c.mu.settled && t.After(c.mu.deadline)
	if expired {
		c.mu.settled = true
	}
	spare := defences.SpareReads && !c.mu.settled && t.After(c.mu.spareAt) && c.mu.asked < len(c.targets)
	if spare {
		c.mu.spareAt = t.Add(spareAfter)
		c.refs.Add(1) // not settled, so the coordinator still holds one
	}
	c.mu.Unlock()
	if expired {
		c.decided <- struct{}{}
	}
	if spare {
		c.db.metrics.spareReads.Add(1)
		c.ask(c.next())
		c.release()
	}
}

func (c *readCall) errors() []ReplicaError {
	c.mu.Lock()
	defer c.mu.Unlock()
	return replicaErrors(c.targets, c.mu.owners[:], c.mu.start)[:c.mu.asked]
}

// release drops one reference.
func (c *readCall) release() {
	if c.refs.Add(-1) != 0 {
		return
	}
	c.key = nil
	for i, b := range c.mu.values { // nobody else refers to c
		if cap(b) > keepValueBytes {
			c.mu.values[i] = nil
		}
	}
	c.db.reads.put(c)
}
