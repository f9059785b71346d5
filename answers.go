package kvstore

import (
	"context"
	"errors"
	"fmt"

	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
	"example.com/kvstore/transport"
	"example.com/kvstore/vclock"
)

// This file is the root's edge: what leaf packages say in their errors and
// records, in the root's own words.

var (
	errNoAnswer   = errors.New("no answer yet")
	errSuperseded = errors.New("holds a newer write")
	errDamaged    = errors.New("copy damaged")
	errNotOwner   = errors.New("owns no copy of the key")
	errStale      = errors.New("knows a newer epoch")
	errLost       = errors.New("connection lost")
	errDown       = errors.New("dead or not reachable")
)

// statusError is the error behind a refusal.
func statusError(s replica.Status) error {
	switch s {
	case replica.Stale:
		return errStale
	case replica.NotOwner:
		return errNotOwner
	case replica.NotReady:
		return ErrNotReady
	case replica.Overloaded:
		return ErrOverloaded
	case replica.NoSpace:
		return ErrNoSpace
	case replica.ReadOnly:
		return ErrReadOnly
	case replica.Damaged:
		return errDamaged
	case replica.ClockSkew:
		return ErrClockSkew
	case replica.Invalid:
		return ErrInvalid
	}
	return errors.New(s.String())
}

// errorStatus is what a replica answers when its engine fails.
func errorStatus(err error) replica.Status {
	switch {
	case errors.Is(err, lsm.ErrOverloaded):
		return replica.Overloaded
	case errors.Is(err, lsm.ErrNoSpace):
		return replica.NoSpace
	case errors.Is(err, lsm.ErrReadOnly):
		return replica.ReadOnly
	case errors.Is(err, lsm.ErrCorrupt):
		return replica.Damaged
	case errors.Is(err, lsm.ErrClosed):
		return replica.NotReady
	}
	return replica.Failed
}

// engineError translates an error of the own engine, on the data path.
func engineError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, lsm.ErrOverloaded):
		return fmt.Errorf("%w: %w", ErrOverloaded, err)
	case errors.Is(err, lsm.ErrNoSpace):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	case errors.Is(err, lsm.ErrReadOnly):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	case errors.Is(err, lsm.ErrCorrupt):
		return fmt.Errorf("%w: %w", errDamaged, err)
	case errors.Is(err, lsm.ErrClosed):
		return ErrClosed
	}
	return err
}

// writeUnknown reports whether a write that the own engine failed may be in its
// log all the same: only a refusal before the log was touched leaves nothing.
func writeUnknown(err error) bool {
	for _, refusal := range []error{lsm.ErrOverloaded, lsm.ErrNoSpace, lsm.ErrClosed, lsm.ErrInvalid} {
		if errors.Is(err, refusal) {
			return false
		}
	}
	return true
}

// openError translates an error of lsm.Open.
func openError(dir string, err error) error {
	for _, m := range []struct{ leaf, root error }{
		{lsm.ErrLocked, ErrLocked}, {lsm.ErrIncompatible, ErrIncompatible}, {lsm.ErrCorrupt, ErrCorrupt}, {lsm.ErrNoSpace, ErrNoSpace},
	} {
		if errors.Is(err, m.leaf) {
			return fmt.Errorf("%w: %s: %w", m.root, dir, err)
		}
	}
	return fmt.Errorf("kvstore: open %s: %w", dir, err)
}

// sendError translates an error of Peer.Call, after which nothing was sent.
func sendError(err error) error {
	if errors.Is(err, transport.ErrBusy) {
		return ErrOverloaded
	}
	return errDown
}

// callError translates the error that a call completed with.
func callError(err error) error {
	switch {
	case errors.Is(err, transport.ErrDeadline):
		return ErrTimeout
	case errors.Is(err, transport.ErrClosed):
		return errLost
	}
	return err
}

// outcomeUnknown reports whether the peer may have acted on a call that
// completed with err: always, unless it said that it did not.
func outcomeUnknown(err error) bool {
	var remote *transport.RemoteError
	return !errors.As(err, &remote)
}

// engineRecord is the engine's form of a record. It shares key and value. A
// causal value that does not decode is an error.
func engineRecord(key []byte, r replica.Record) (lsm.Record, error) {
	rec := lsm.Record{Token: lsm.Token(key), Key: key, Min: r.Dot, Max: r.Dot, Kind: lsm.Value, Deadline: r.Deadline, Value: r.Value}
	var err error
	switch {
	case r.Causal:
		rec.Kind = lsm.Causal
		rec.Min, rec.Max, err = vclock.EncodedDots(r.Value)
	case r.Tombstone:
		rec.Kind = lsm.Tombstone
	}
	return rec, err
}

// fromEngine is the reverse of engineRecord.
func fromEngine(rec lsm.Record) replica.Record {
	return replica.Record{Dot: rec.Max, Causal: rec.Kind == lsm.Causal, Tombstone: rec.Kind == lsm.Tombstone, Deadline: rec.Deadline, Value: rec.Value}
}

// unavailable completes the error of a call refused before anything was sent.
func (e QuorumError) unavailable(targets []target) error {
	for _, t := range targets {
		r := ReplicaError{Node: t.id}
		if t.dead {
			r.Err = errDown
		}
		e.Replicas = append(e.Replicas, r)
	}
	e.kind = ErrUnavailable
	return &e
}

// failed completes the error of a call that was sent. A level that became
// impossible because time ran out is a timeout. When all that refused did so for
// one reason and nothing is left behind, that reason is the error.
func (e QuorumError) failed(kind error) error {
	e.kind = kind
	for _, r := range e.Replicas {
		if kind == ErrPartial && r.Err == ErrTimeout {
			e.kind = ErrTimeout
			return &e
		}
	}
	if kind == ErrPartial && e.outcome == NotApplied {
		e.kind = ErrUnavailable
		if shared := e.sharedRefusal(); shared != nil {
			e.kind = shared
		}
	}
	return &e
}

// sharedRefusal is the exported error that every failed replica gave, if any.
func (e *QuorumError) sharedRefusal() error {
	for _, kind := range []error{ErrOverloaded, ErrNotReady, ErrClockSkew, ErrNoSpace, ErrReadOnly, ErrInvalid} {
		all, some := true, false
		for _, r := range e.Replicas {
			if r.Err == nil || r.Err == errNoAnswer {
				continue
			}
			some = true
			all = all && errors.Is(r.Err, kind)
		}
		if all && some {
			return kind
		}
	}
	return nil
}

// waitError says why a wait ended without the level: the level became
// impossible, the context was cancelled, or time ran out.
func waitError(ctx context.Context, v replica.Verdict) error {
	switch {
	case v == replica.Impossible:
		return ErrPartial
	case errors.Is(ctx.Err(), context.Canceled):
		return context.Canceled
	}
	return ErrTimeout
}

// notSent is the error of a call whose context was over before it began.
func (e QuorumError) notSent(err error) error {
	e.kind, e.outcome = err, NotApplied
	if errors.Is(err, context.DeadlineExceeded) {
		e.kind = ErrTimeout
	}
	return &e
}
