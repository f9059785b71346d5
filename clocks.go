package kvstore

import (
	"cmp"
	"encoding/binary"
	"slices"
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
		lives    map[uint64][]life  // by UID, of members
	}
}

// A life is one start of a member, and the highest that it told: see stamper.told.
type life struct{ actor, told uint64 }

// maxLives bounds those that are kept of one member: the highest ones.
const maxLives = 8

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
			var body []byte
			for _, x := range []uint64{c.db.uid, c.db.actor, c.db.clock.told.Load()} {
				body = binary.LittleEndian.AppendUint64(body, x)
			}
			_ = n.peer.Call(replica.OpClock, q.sent.Add(c.db.opts.MaxRequest), body, nil, q, 0)
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
	if err != nil || len(body) != 16 {
		return
	}
	db := q.c.db
	took := now().Sub(q.sent)
	theirs := time.Unix(0, int64(binary.LittleEndian.Uint64(body)))
	off := theirs.Sub(db.opts.Clock().Add(-took / 2)).Abs()
	r := reading{apart: max(off-took/2, 0), at: now()}
	if !defences.OldCopy || binary.LittleEndian.Uint64(body[8:]) <= db.clock.floor {
		q.c.note(q.id, r)
		return
	}
	// Nothing is read here, and this clock does not count, before that is noted.
	db.workers.run(func() {
		if db.damage.doubtOnce("another member knows of later writes") == nil {
			q.c.note(q.id, r)
		}
	})
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

// answer answers a clockQuestion: with the time, and the highest that earlier starts of
// the member that asks have told.
func (c *clocks) answer(dst, body []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(c.db.opts.Clock().UnixNano()))
	var before uint64
	if v := c.db.view.Load(); len(body) == 24 && v != nil {
		u := func(at int) uint64 { return binary.LittleEndian.Uint64(body[at:]) }
		if uid := u(0); v.members([]uint64{uid}) {
			before = c.heed(uid, life{actor: u(8), told: u(16)})
		}
	}
	return binary.LittleEndian.AppendUint64(dst, before)
}

// heed takes in what a member tells of its present life, and gives the highest that
// others of its lives have told.
func (c *clocks) heed(uid uint64, present life) (before uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	lives := c.mu.lives[uid]
	i := slices.IndexFunc(lives, func(l life) bool { return l.actor == present.actor })
	if i < 0 {
		i = len(lives)
		lives = append(lives, present)
	}
	lives[i].told = max(lives[i].told, present.told)
	for _, l := range lives {
		if l.actor != present.actor {
			before = max(before, l.told)
		}
	}
	if len(lives) > maxLives {
		slices.SortFunc(lives, func(a, b life) int { return cmp.Compare(b.told, a.told) })
		lives = lives[:maxLives]
	}
	c.mu.lives[uid] = lives
	return before
}
