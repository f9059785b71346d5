package kvstore

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"example.com/kvstore/replica"
)

// readingsKept is for how many gossip intervals a comparison of clocks counts.
const readingsKept = 5

// clocks compares this node's wall clock with those of its live peers. A node
// whose clock is not within MaxClockOffset of more than half of them, itself
// included, issues no stamps: so stamps never follow a clock that jumped. Of two
// live nodes that disagree, neither does.
type clocks struct {
	db    *DB
	wrong atomic.Bool
	mu    struct {
		sync.Mutex
		readings map[string]reading // by node id
	}
}

// A reading is a peer's clock as it was seen at one time.
type reading struct {
	// apart is the least by which the clocks can differ, given the time that the
	// question was under way.
	apart time.Duration
	at    time.Time
}

// ask asks every live peer for its time, and judges the own clock without those
// that have not answered for long.
func (c *clocks) ask(v *view) {
	c.mu.Lock()
	c.judgeLocked()
	c.mu.Unlock()
	for i := range v.nodes {
		if n := &v.nodes[i]; n.peer != nil && !n.dead {
			q := &clockQuestion{c: c, id: n.id, sent: now()}
			_ = n.peer.Call(replica.OpClock, q.sent.Add(c.db.opts.MaxRequest), nil, nil, q, 0)
		}
	}
}

// A clockQuestion waits for one peer's time.
type clockQuestion struct {
	c    *clocks
	id   string
	sent time.Time
}

// Complete takes the answer.
func (q *clockQuestion) Complete(_ uint64, body []byte, err error) {
	if err != nil || len(body) != 8 {
		return
	}
	took := now().Sub(q.sent)
	theirs := time.Unix(0, int64(binary.LittleEndian.Uint64(body)))
	off := theirs.Sub(q.c.db.opts.Clock().Add(-took / 2)).Abs()
	q.c.note(q.id, reading{apart: max(off-took/2, 0), at: now()})
}

// note files a reading and judges the own clock again.
func (c *clocks) note(id string, r reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.readings[id] = r
	c.judgeLocked()
}

func (c *clocks) judgeLocked() {
	near, all := c.countLocked()
	c.wrong.Store(2*near <= all)
}

// countLocked gives how many clocks are near the own one, and of how many; the
// own one counts in both.
func (c *clocks) countLocked() (near, all int) {
	near, all = 1, 1
	oldest := now().Add(-readingsKept * c.db.opts.GossipInterval)
	for id, r := range c.mu.readings {
		if r.at.Before(oldest) {
			delete(c.mu.readings, id)
			continue
		}
		all++
		if r.apart <= c.db.opts.MaxClockOffset {
			near++
		}
	}
	return near, all
}

// known is the number of clocks that were compared lately, the own one included.
func (c *clocks) known() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, all := c.countLocked()
	return all
}

// appendTime is the answer to a clockQuestion.
func appendTime(dst []byte, t time.Time) []byte {
	return binary.LittleEndian.AppendUint64(dst, uint64(t.UnixNano()))
}
