package kvstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
	"example.com/kvstore/transport"
	"example.com/kvstore/vclock"
)

// This file is the root's edge: what leaf packages say in their errors and
// records, in the root's own words.

var (
	errNoContext  = invalid("nil context")
	errNoAnswer   = errors.New("no answer yet")
	errSuperseded = errors.New("holds a newer write")
	errDamaged    = errors.New("copy damaged")
	errNotOwner   = errors.New("owns no copy of the key")
	errStale      = errors.New("knows a newer epoch")
	errLost       = errors.New("connection lost")
	errUncertain  = errors.New("may or may not have it: its log failed")
	errBehind     = errors.New("promised the other owners that nothing so old will follow")
	errDown       = errors.New("dead or not reachable")
	errOlder      = errors.New("an older version, which does not know the question")
	errTurn       = errors.New("earlier updates of the key through this node were not over")
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
	case replica.Uncertain:
		return errUncertain
	case replica.Behind:
		return errBehind
	}
	return errors.New(s.String())
}

// errorStatus is what a replica answers when its engine fails.
func errorStatus(err error) replica.Status {
	switch {
	case errors.Is(err, lsm.ErrUncertain):
		return replica.Uncertain
	case isAny(err, lsm.ErrInvalid, lsm.ErrKeyTooLarge, lsm.ErrValueTooLarge):
		return replica.Invalid
	case errors.Is(err, lsm.ErrOverloaded):
		return replica.Overloaded
	case errors.Is(err, lsm.ErrNoSpace):
		return replica.NoSpace
	case errors.Is(err, lsm.ErrReadOnly):
		return replica.ReadOnly
	case errors.Is(err, lsm.ErrCorrupt):
		return replica.Damaged
	case isAny(err, lsm.ErrClosed, ErrClosed):
		return replica.NotReady
	}
	return replica.Uncertain
}

// engineError translates an error of the own engine, on the data path.
func engineError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, lsm.ErrUncertain):
		return fmt.Errorf("%w: %w", errUncertain, err)
	case errors.Is(err, lsm.ErrOverloaded):
		return fmt.Errorf("%w: %w", ErrOverloaded, err)
	case errors.Is(err, lsm.ErrNoSpace):
		return spaceError{err}
	case errors.Is(err, lsm.ErrReadOnly):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	case errors.Is(err, lsm.ErrCorrupt):
		return fmt.Errorf("%w: %w", errDamaged, err)
	case errors.Is(err, lsm.ErrClosed):
		return ErrClosed
	}
	return err
}

// A spaceError is an engine's ErrNoSpace, which it says in the root's words only.
type spaceError struct{ error }

// Error is one line.
func (e spaceError) Error() string {
	if where, ok := strings.CutSuffix(e.error.Error(), ": "+lsm.ErrNoSpace.Error()); ok {
		return fmt.Sprintf("%v: %s", ErrNoSpace, where)
	}
	return ErrNoSpace.Error()
}

func (e spaceError) Unwrap() []error { return []error{ErrNoSpace, e.error} }

// openError translates an error of lsm.Open.
func openError(dir string, err error) error {
	switch {
	case errors.Is(err, lsm.ErrLocked): // which names the file only
		return fmt.Errorf("%w: %s", ErrLocked, dir)
	case errors.Is(err, lsm.ErrNoSpace):
		return fmt.Errorf("%w, in %s", spaceError{err}, dir)
	}
	for _, m := range []struct{ leaf, root error }{
		{lsm.ErrIncompatible, ErrIncompatible}, {lsm.ErrCorrupt, ErrCorrupt}, {lsm.ErrInvalid, ErrInvalid},
	} {
		if errors.Is(err, m.leaf) {
			return fmt.Errorf("%w: %s: %w", m.root, dir, err)
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		return noDirectory(dir, err)
	}
	return fmt.Errorf("kvstore: open %s: %w", dir, err)
}

// noDirectory is the error of a place that cannot hold a node's data.
func noDirectory(dir string, err error) error {
	return invalid("%s cannot be the data directory: %w", dir, err)
}

// sendError translates an error of Peer.Call, after which nothing was sent.
func sendError(err error) error {
	switch {
	case errors.Is(err, transport.ErrBusy):
		return ErrOverloaded
	case errors.Is(err, transport.ErrDeadline):
		return ErrTimeout
	}
	return errDown
}

// callError translates the error that a call completed with.
func callError(err error) error {
	var remote *transport.RemoteError
	switch {
	case errors.Is(err, transport.ErrDeadline):
		return ErrTimeout
	case errors.Is(err, transport.ErrClosed):
		return errLost
	case errors.As(err, &remote):
		return statusError(replica.Status(remote.Code))
	}
	return err
}

// outcomeUnknown reports whether the peer may have acted on a call that
// completed with err: always, unless it said that it did not. One whose answer was
// too large to send may have.
func outcomeUnknown(err error) bool {
	var remote *transport.RemoteError
	return !errors.As(err, &remote) || remote.Code == transport.CodeTooLarge
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

// fail gives the call's error, for a cause that ended it. A cause that promises
// that nothing was stored cannot stand when something may have been: then the
// error is ErrPartial and the cause is in its text.
func (e QuorumError) fail(cause error) error {
	e.kind = cause
	switch {
	case isAny(cause, ErrTimeout, context.Canceled):
	case e.outcome == Unknown && cause != ErrPartial:
		e.kind, e.cause = ErrPartial, cause
	case e.outcome != Unknown && cause == ErrPartial:
		if shared := e.sharedRefusal(); shared != nil {
			e.kind = shared
		} else if !e.reads() {
			e.kind = ErrUnavailable
		}
	case !isAny(cause, ErrPartial, ErrUnavailable, ErrDataLoss):
		return cause // of the call itself, not of its quorum
	}
	return &e
}

func isAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
}

// deadTargets tells of owners that were not asked because too few are alive.
func deadTargets(targets []target) []ReplicaError {
	var out []ReplicaError
	for _, t := range targets {
		if t.dead {
			out = append(out, ReplicaError{Node: t.id, Err: errDown})
		}
	}
	return out
}

// sharedRefusal is the exported error that every failed replica gave, if any.
func (e *QuorumError) sharedRefusal() error {
	for _, kind := range []error{ErrOverloaded, ErrNotReady, ErrClockSkew, ErrNoSpace, ErrReadOnly, ErrInvalid} {
		failed, shared := 0, 0
		for _, r := range e.Replicas {
			if r.Err != nil && r.Err != errNoAnswer {
				failed++
				if errors.Is(r.Err, kind) {
					shared++
				}
			}
		}
		if failed > 0 && failed == shared {
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
	case ctx.Err() != nil:
		return contextError(ctx)
	}
	return ErrTimeout
}

// contextError is what the end of a context is to a caller.
func contextError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ErrTimeout
	}
	return ctx.Err()
}
