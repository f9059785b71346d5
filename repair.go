package kvstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
)

// A RepairOption is an option of Repair. The set is closed.
type RepairOption interface{ repairOption() }

type repairWith string

func (repairWith) repairOption() {}

// RepairWith limits a repair to exchanges with these nodes; it may be given more
// than once.
func RepairWith(nodeID string) RepairOption { return repairWith(nodeID) }

// A Progress tells what one step of a Repair did: a part of what this node and
// another one own together was compared whole.
type Progress struct {
	// Node is the other one.
	Node string
	// Partitions were compared, out of Total that both own.
	Partitions, Total int
	// Differed is the number of tokens, so of keys, at which the two were not alike.
	Differed int
	// Sent and Received are records that the other one, or this one, lacked.
	Sent, Received int
	// Bytes is what the messages of this step had, both ways.
	Bytes int
}

// String is one line.
func (p Progress) String() string {
	return fmt.Sprintf("%s: %d of %d partitions, %d keys differed, %d records sent, %d received, %d bytes", p.Node, p.Partitions, p.Total, p.Differed, p.Sent, p.Received, p.Bytes)
}

// Repair compares all that this node owns with every other owner, by hash trees
// down to single keys, and brings each side what it lacks. That happens by itself in
// the background; Repair does it now and tells of each step. A node that is down or
// fails is an error of its step, and the next node follows. It ends with ctx, when the
// caller stops, or with ErrClosed when the node is closed, which does not wait for it.
func (db *DB) Repair(ctx context.Context, opts ...RepairOption) iter.Seq2[Progress, error] {
	return func(yield func(Progress, error) bool) {
		if err := db.enter(ctx); err != nil {
			yield(Progress{}, err)
			return
		}
		v, err := db.serving()
		db.gate.leave()
		if err != nil {
			yield(Progress{}, err)
			return
		}
		mates := v.mates()
		nodes := slices.Clone(v.nodes)
		slices.SortFunc(nodes, func(a, b viewNode) int { return cmp.Compare(a.id, b.id) })
		for _, n := range nodes {
			if len(mates[n.uid]) == 0 || !chosen(n.id, opts) {
				continue
			}
			for p, err := range db.repairWith(ctx, v, n, mates[n.uid]) {
				if !yield(p, err) || ctx.Err() != nil || errors.Is(err, ErrClosed) {
					return
				}
			}
		}
	}
}

func chosen(id string, opts []RepairOption) bool {
	all := true
	for _, o := range opts {
		if with, ok := o.(repairWith); ok {
			all = false
			if string(with) == id {
				return true
			}
		}
	}
	return all
}

// repairWith compares these partitions with one node.
func (db *DB) repairWith(ctx context.Context, v *view, n viewNode, partitions []uint32) iter.Seq2[Progress, error] {
	return func(yield func(Progress, error) bool) {
		progress := Progress{Node: n.id, Total: len(partitions)}
		for from := uint64(0); ; {
			r, err := db.repairPiece(ctx, n.uid, exchangePiece{from: from, partitions: partitions})
			progress.Differed, progress.Sent, progress.Received, progress.Bytes = r.tokens, r.sent, r.received, r.bytes
			if err != nil {
				yield(progress, fmt.Errorf("kvstore: repair with %s: %w", n.id, err))
				return
			}
			progress.Partitions = 0
			for _, p := range partitions {
				if _, hi := v.ring.Range(int(p)); min(hi, lastToken) <= r.end {
					progress.Partitions++
				}
			}
			if !yield(progress, nil) || progress.Partitions == progress.Total {
				return
			}
			from = r.end + 1
		}
	}
}

// repairPiece compares one piece. It is no call that Close lets come to its end, but
// background work, which ends when db.stop closes, and is waited for like that.
func (db *DB) repairPiece(ctx context.Context, uid uint64, piece exchangePiece) (exchangeResult, error) {
	if !db.gate.enter() {
		return exchangeResult{}, ErrClosed
	}
	db.loops.Add(1)
	db.gate.leave()
	defer db.loops.Done()
	return db.exchange(ctx.Done(), uid, piece)
}
