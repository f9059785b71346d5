package kvstore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
	"example.com/kvstore/ring"
)

// A Cursor is a place in the order of a Scan: that of the item it was taken from.
// As an option it lets a Scan go on behind that place, in another process too. The
// zero Cursor is the beginning.
//
// It is the item's key; that of a key which is no item's goes on behind its token.
type Cursor string

func (Cursor) scanOption() {}

// Cursor is the item's place in the order of a Scan.
func (it Item) Cursor() Cursor { return Cursor(it.Key) }

type prefixOption string

func (prefixOption) scanOption() {}

// Prefix lets a Scan give the keys that begin with p only. All others are looked
// at all the same: the order is that of hashes.
func Prefix(p string) ScanOption { return prefixOption(p) }

// Scan gives every key that has a value, once, in the order of tokens, which is no
// order that the keys show. A key that is there from the beginning of the scan to its
// end is among them; one that comes or goes meanwhile may be. What is read meets the
// level in opts, else Options.Read, as if by Get.
//
// After an error, which comes with an item that is not Found, the scan ends. A new
// one with the Cursor of the last item goes on where it was. Each page of the scan
// takes at most MaxRequest.
func (db *DB) Scan(ctx context.Context, opts ...ScanOption) iter.Seq2[Item, error] {
	s := scan{db: db, level: db.opts.Read}
	for _, o := range opts {
		switch o := o.(type) {
		case Consistency:
			if o != Default {
				s.level = o
			}
		case prefixOption:
			s.prefix = string(o)
		case Cursor:
			s.after = string(o)
		}
	}
	return func(yield func(Item, error) bool) {
		run := s // the sequence may be used again
		run.run(ctx, yield)
	}
}

// A scan is the state of one Scan: all keys up to after have been given.
type scan struct {
	db     *DB
	level  Consistency
	prefix string
	after  string
}

func (s *scan) run(ctx context.Context, yield func(Item, error) bool) {
	var lo uint64
	if s.after != "" {
		lo = ring.Token(s.after)
	}
	failed := map[uint64]bool{} // owners, in the present range
	for {
		items, next, done, err := s.page(ctx, lo, failed)
		if err != nil {
			yield(Item{}, err)
			return
		}
		for _, it := range items {
			if !yield(it, nil) {
				return
			}
		}
		if done {
			return
		}
		if next != lo {
			clear(failed)
		}
		lo = next
	}
}

// page reads the next part of the token space, from lo on and behind s.after. It
// says where the following one begins. Owners that fail are added to failed.
func (s *scan) page(ctx context.Context, lo uint64, failed map[uint64]bool) (items []Item, next uint64, done bool, err error) {
	db := s.db
	if err := db.enter(ctx); err != nil {
		return nil, 0, false, err
	}
	defer db.gate.leave()
	qe := QuorumError{Op: opScan, Key: s.after, Level: s.level, outcome: NotApplied}
	deadline, err := db.deadline(ctx)
	if err != nil {
		return nil, 0, false, qe.fail(err)
	}
	for range maxAttempts {
		v, err := db.serving()
		if err == nil {
			err = db.fence.await(ctx, deadline)
		}
		if err != nil {
			return nil, 0, false, qe.fail(err)
		}
		chosen, err := s.choose(v, v.ring.Partition(lo), failed, &qe)
		if err != nil {
			return nil, 0, false, err
		}
		hi := s.reach(v, lo, chosen, failed)
		pages, broken := db.askPages(ctx, v, chosen, replica.ScanRequest{Lo: lo, Hi: hi, After: []byte(s.after), Prefix: []byte(s.prefix)}, deadline)
		if len(broken) > 0 {
			for _, uid := range broken {
				failed[uid] = true
			}
			if ctx.Err() != nil {
				return nil, 0, false, qe.fail(contextError(ctx))
			}
			continue
		}
		items, last, more, err := s.merge(ctx, pages)
		switch {
		case err != nil:
			return nil, 0, false, err
		case more:
			s.after = last
			return items, ring.Token(last), false, nil
		}
		return items, hi + 1, hi >= lastToken, nil
	}
	return nil, 0, false, qe.fail(fmt.Errorf("%w: owners failed %d times", ErrTimeout, maxAttempts))
}

// choose gives the owners of partition p that a page is asked of: as many as the
// level needs, in an order that depends on nothing but who they are, so that
// neighbouring partitions of the same owners give the same.
func (s *scan) choose(v *view, p int, failed map[uint64]bool, qe *QuorumError) ([]target, error) {
	targets, need, err := v.enoughAt(p, s.level, qe, nil)
	if err != nil {
		return nil, err
	}
	var dead uint64
	for i := range targets {
		if targets[i].dead || failed[targets[i].uid] {
			dead |= 1 << i
		}
	}
	if !need.Possible(dead, len(targets)) {
		return nil, qe.fail(ErrPartial)
	}
	all := len(need.Groups) > 0
	targets = slices.DeleteFunc(targets, func(t target) bool { return t.dead || failed[t.uid] })
	slices.SortFunc(targets, func(a, b target) int {
		return cmp.Or(cmp.Compare(min(a.rank(), 1), min(b.rank(), 1)), strings.Compare(a.id, b.id))
	})
	if !all {
		targets = targets[:need.Count]
	}
	return targets, nil
}

// maxReach bounds the partitions of one page.
const maxReach = 512

// reach is the last token of the partitions from lo on of which the same owners are
// asked.
func (s *scan) reach(v *view, lo uint64, chosen []target, failed map[uint64]bool) uint64 {
	p := v.ring.Partition(lo)
	_, hi := v.ring.Range(p)
	end := min(p+maxReach, v.ring.Partitions())
	for p++; p < end; p++ {
		var qe QuorumError
		qe.Op = opScan
		other, err := s.choose(v, p, failed, &qe)
		if err != nil || !slices.EqualFunc(chosen, other, func(a, b target) bool { return a.uid == b.uid }) {
			break
		}
		_, hi = v.ring.Range(p)
	}
	return min(hi, lastToken)
}

// askPages asks each of the owners for the page, and tells which of them failed.
func (db *DB) askPages(ctx context.Context, v *view, chosen []target, q replica.ScanRequest, deadline time.Time) (pages []replica.ScanReply, broken []uint64) {
	trips := make([]*roundTrip, len(chosen))
	q.Epoch, q.Stamp = v.epoch.Number, db.clock.Now()
	for i, t := range chosen {
		trips[i] = newRoundTrip()
		q.To = t.uid
		var err error
		if t.peer == nil {
			own := q
			if !db.workers.run(func() { trips[i].Complete(0, db.scanPage(&own, deadline), nil) }) {
				err = ErrOverloaded
			}
		} else {
			err = t.peer.Call(replica.OpScan, deadline, q.Append(nil), nil, trips[i], 0)
		}
		if err != nil {
			trips[i].Complete(0, nil, err)
		}
	}
	timeout := time.NewTimer(deadline.Sub(now()))
	defer timeout.Stop()
	for i, t := range chosen {
		var p replica.ScanReply
		var err error
		select {
		case <-trips[i].done:
			if err = trips[i].err; err == nil {
				p, err = replica.DecodeScanReply(trips[i].body)
			}
			if err == nil && p.More && !advances(&q, p.Last) {
				err = replica.ErrMalformed // it would be asked for ever
			}
		case <-ctx.Done():
			err = ctx.Err()
		case <-timeout.C:
			err = ErrTimeout
		}
		if err == nil && t.peer != nil {
			db.heed(&p.Reply, t.peer)
		}
		if err != nil || p.Status != replica.OK {
			broken = append(broken, t.uid)
			continue
		}
		pages = append(pages, p)
	}
	return pages, broken
}

// advances reports whether a page that ends with the key last has gone on from where q
// begins, and not beyond its end.
func advances(q *replica.ScanRequest, last []byte) bool {
	token := lsm.Token(last)
	return token >= q.Lo && token <= q.Hi && (len(q.After) == 0 || inOrder(last, q.After) > 0)
}

// merge joins the owners' pages up to the first place that some owner has not gone
// beyond, which is last if there is more. Where owners differ the key is read
// again, so that the difference is repaired as by Get.
func (s *scan) merge(ctx context.Context, pages []replica.ScanReply) (items []Item, last string, more bool, err error) {
	db := s.db
	for _, p := range pages {
		if p.More && (!more || inOrder(p.Last, []byte(last)) < 0) {
			last, more = string(p.Last), true
		}
	}
	for {
		var key []byte // the next one in the order
		for _, p := range pages {
			if len(p.Records) > 0 && (key == nil || inOrder(p.Records[0].Key, key) < 0) {
				key = p.Records[0].Key
			}
		}
		if key == nil || more && inOrder(key, []byte(last)) > 0 {
			return items, last, more, nil
		}
		r := replica.NewRead(replica.Need{Count: len(pages)}, len(pages))
		for i := range pages {
			p := &pages[i]
			if len(p.Records) == 0 || !bytes.Equal(p.Records[0].Key, key) {
				r.Answer(i, replica.Record{})
				continue
			}
			r.Answer(i, p.Records[0].Record)
			p.Records = p.Records[1:]
		}
		var it Item
		joined := r.Joined()
		if r.Verdict() == replica.Done && r.Agreed() && db.observe(&joined) == nil {
			it, err = db.opts.Conflicts.newItem(string(key), joined, db.opts.Clock())
		} else {
			it, err = db.get(ctx, string(key), s.level, nil)
		}
		switch {
		case err == nil:
			items = append(items, it)
		case !errors.Is(err, ErrNotFound):
			return nil, "", false, err
		}
	}
}

// inOrder compares two keys in the order of a Scan.
func inOrder(a, b []byte) int {
	return cmp.Or(cmp.Compare(lsm.Token(a), lsm.Token(b)), bytes.Compare(a, b))
}

// What one page of a scan holds, and looks at, at most.
const (
	pageRecords = 1024
	pageBytes   = 1 << 20
	pageLooks   = 1 << 14
)

// serveScan answers with a page of this node's records, from a worker.
func (db *DB) serveScan(s served) {
	s.body, s.kept = append([]byte(nil), s.body...), true
	q, err := replica.DecodeScan(s.body)
	if err != nil {
		db.refuse(s.to, replica.Invalid)
		return
	}
	switch {
	case db.admitNode(&replica.Request{To: q.To, Epoch: q.Epoch, Stamp: q.Stamp}, s) == nil:
	case !db.trusted.Load() || db.fence.raised.Load():
		db.refuse(s.to, replica.NotReady)
	case !db.workers.run(func() { s.to.Reply(db.scanPage(&q, s.deadline), nil) }):
		db.refuse(s.to, replica.Overloaded)
	}
}

// scanPage makes the page that q asks for.
func (db *DB) scanPage(q *replica.ScanRequest, deadline time.Time) []byte {
	v := db.view.Load()
	p := replica.ScanReply{Reply: replica.Reply{Stamp: db.clock.Now(), Epoch: v.epoch.Number}}
	for i := v.ring.Partition(q.Lo); i <= v.ring.Partition(q.Hi); i++ {
		switch {
		case q.Epoch < v.ring.Changed(i):
			p.Status = replica.Stale
			return p.AppendHead(nil)
		case !v.owns(i):
			p.Status = replica.NotOwner
			return p.AppendHead(nil)
		}
	}
	looks, size := 0, 0
	for rec, err := range db.tree.Scan(q.Lo, min(q.Hi, lastToken)) {
		if err != nil {
			p = replica.ScanReply{Reply: replica.Reply{Status: errorStatus(err), Stamp: p.Stamp, Epoch: p.Epoch}}
			return p.AppendHead(nil)
		}
		if len(q.After) > 0 && inOrder(rec.Key, q.After) <= 0 {
			continue
		}
		if looks == pageLooks || len(p.Records) == pageRecords || size >= pageBytes || looks > 0 && now().After(deadline) {
			p.More = true
			break
		}
		looks++
		p.Last = bytes.Clone(rec.Key)
		if !bytes.HasPrefix(rec.Key, q.Prefix) {
			continue
		}
		size += len(rec.Key) + len(rec.Value)
		p.Records = append(p.Records, replica.KeyRecord{Key: p.Last, Record: fromEngine(rec)})
		p.Records[len(p.Records)-1].Value = bytes.Clone(rec.Value)
	}
	db.metrics.servedReads.Add(1)
	return p.Append(nil)
}
