package kvstore

import (
	"cmp"
	"context"
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
// fails is an error of its step, and the next node follows. It ends with ctx, or when
// the caller stops.
func (db *DB) Repair(ctx context.Context, opts ...RepairOption) iter.Seq2[Progress, error] {
	return func(yield func(Progress, error) bool) {
		if !db.gate.enter() {
			yield(Progress{}, ErrClosed)
			return
		}
		defer db.gate.leave()
		v, err := db.serving()
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
				if !yield(p, err) || ctx.Err() != nil {
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
			r, err := db.exchange(ctx.Done(), n.uid, exchangePiece{from: from, partitions: partitions})
			progress.Differed, progress.Sent, progress.Received, progress.Bytes = r.tokens, r.sent, r.received, r.bytes
			if err != nil {
				yield(progress, fmt.Errorf("kvstore: repair with %s: %w", n.id, err))
				return
			}
			progress.Partitions = 0
			for _, p := range partitions {
				if _, hi := v.ring.Range(int(p)); min(hi, systemToken-1) <= r.end {
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
