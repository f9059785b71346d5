package kvstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/kvstore/replica"
)

// The closed set of errors, for errors.Is. OutcomeOf says what a failed write
// left behind, Retryable whether trying again can help.
var (
	// ErrNotFound: the key has no value: never written, deleted or expired.
	ErrNotFound = errors.New("kvstore: key not found")
	// ErrInvalid: an argument or option is wrong; the text says which and why.
	ErrInvalid = errors.New("kvstore: invalid argument")
	// ErrKeyTooLarge: the key is longer than Options.MaxKeyBytes.
	ErrKeyTooLarge = errors.New("kvstore: key too large")
	// ErrValueTooLarge: the value is longer than Options.MaxValueBytes.
	ErrValueTooLarge = errors.New("kvstore: value too large")
	// ErrUnavailable: fewer live owners than the level needs; nothing was sent.
	ErrUnavailable = errors.New("kvstore: not enough live owners")
	// ErrConflict: other values keep turning up beside what Update writes; see
	// ConflictError, which carries the current Item.
	ErrConflict = errors.New("kvstore: conflicting concurrent writes")
	// ErrTooManySiblings: the key has as many concurrent values as it may have.
	// Read it, merge them and put the result with Replaces.
	ErrTooManySiblings = errors.New("kvstore: too many siblings")
	// ErrWrongType: what the key holds is not a Counter, Set or Map as the call wants
	// it. Delete the key, or use another one.
	ErrWrongType = errors.New("kvstore: the key holds something else")
	// ErrOverflow: a count is, or would be, beyond an int64.
	ErrOverflow = errors.New("kvstore: the count does not fit into 64 bits")
	// ErrOverloaded: a queue is full; nothing was done. Retry later.
	ErrOverloaded = errors.New("kvstore: overloaded")
	// ErrNotReady: the node has not joined, is starting, or the cluster is
	// agreeing a new epoch. Call Ready, or retry later.
	ErrNotReady = errors.New("kvstore: not ready")
	// ErrClockSkew: a clock is further off than Options.MaxClockOffset.
	ErrClockSkew = errors.New("kvstore: clock skew")
	// ErrTimeout: the deadline passed first. It is also
	// context.DeadlineExceeded. The outcome of a write is unknown, unless the
	// deadline had passed before anything was sent: see OutcomeOf.
	ErrTimeout error = timeoutError{}
	// ErrPartial: the level can no longer be met though something was sent. The
	// outcome of a write is unknown.
	ErrPartial = errors.New("kvstore: too few replicas confirmed")
	// ErrNoSpace: the volume is full. Writes resume when there is room.
	ErrNoSpace = errors.New("kvstore: no space left on the volume")
	// ErrReadOnly: a sync of the log failed, so this node takes no writes until
	// it is reopened on a healthy disk.
	ErrReadOnly = errors.New("kvstore: read-only after a failed sync")
	// ErrDataLoss: no owner has an undamaged copy.
	ErrDataLoss = errors.New("kvstore: no undamaged copy is left")
	// ErrClosed: the DB was closed.
	ErrClosed = errors.New("kvstore: closed")
	// ErrLocked: another process, or another DB in this one, has the directory
	// open.
	ErrLocked = errors.New("kvstore: data directory is in use")
	// ErrIncompatible: the directory has a newer format or belongs to another
	// cluster or node.
	ErrIncompatible = errors.New("kvstore: incompatible data directory")
	// ErrCorrupt: a file is damaged; the text says which, where, and what was
	// expected.
	ErrCorrupt = errors.New("kvstore: corrupt file")
	// ErrJoinRefused: the cluster will not take this node; the text says why.
	// Ready returns it.
	ErrJoinRefused = errors.New("kvstore: join refused")
	// ErrListen: the address in Options.Listen cannot be used.
	ErrListen = errors.New("kvstore: cannot listen")
)

type timeoutError struct{}

func (timeoutError) Error() string   { return "kvstore: deadline exceeded" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Is(t error) bool { return t == context.DeadlineExceeded }

// An Outcome says what a call did to the stored data.
type Outcome uint8

const (
	// Applied: the call succeeded at its level.
	Applied Outcome = iota
	// NotApplied: nothing of it will ever be seen.
	NotApplied
	// Unknown: some replicas may hold it, and it may be seen later.
	Unknown
)

// String gives the outcome in words.
func (o Outcome) String() string {
	switch o {
	case Applied:
		return "applied"
	case NotApplied:
		return "not applied"
	}
	return "unknown"
}

// OutcomeOf answers what the write that returned err left behind. An error that
// is not this package's is Unknown, and so is a BatchError of an Apply some of whose
// writes were applied: each of its KeyErrors has an outcome of its own.
func OutcomeOf(err error) Outcome {
	if err == nil {
		return Applied
	}
	var u updateError
	if errors.As(err, &u) {
		return u.outcome
	}
	var b *BatchError
	if errors.As(err, &b) {
		return b.outcome()
	}
	var q *QuorumError
	if errors.As(err, &q) {
		return q.outcome
	}
	var c *ConflictError
	if errors.As(err, &c) {
		return c.outcome
	}
	if isAny(err, ErrNotFound, ErrInvalid, ErrKeyTooLarge, ErrValueTooLarge, ErrUnavailable, ErrOverloaded, ErrNotReady,
		ErrClockSkew, ErrTooManySiblings, ErrWrongType, ErrOverflow, ErrNoSpace, ErrReadOnly, ErrDataLoss, ErrClosed, ErrLocked, ErrIncompatible, ErrCorrupt, ErrJoinRefused, ErrListen) {
		return NotApplied
	}
	return Unknown
}

// Retryable reports whether the same call may succeed later without a change
// of its arguments. After an Unknown outcome retry only what is idempotent.
func Retryable(err error) bool {
	return !errors.Is(err, ErrJoinRefused) && isAny(err, ErrConflict, ErrUnavailable, ErrOverloaded, ErrNotReady, ErrClockSkew, context.DeadlineExceeded, ErrPartial, ErrNoSpace)
}

// A QuorumError tells why a request did not reach its level, replica by
// replica. It wraps ErrUnavailable, ErrTimeout, ErrPartial or context.Canceled;
// or, when nothing was stored, the refusal that all asked replicas share
// (ErrOverloaded, ErrNoSpace, ErrReadOnly, …); or ErrDataLoss.
type QuorumError struct {
	Op    string // "get", "put", "delete", "update" or "scan"
	Key   string // of a scan, that of the last item given
	Level Consistency
	// Required answers were needed, Received came, of Alive live owners.
	Required, Received, Alive int
	Replicas                  []ReplicaError

	kind    error
	cause   error // in words, where the kind says less
	outcome Outcome
	sloppy  bool // hints may stand in for owners that are down
}

// A ConflictError says that a write was given up because of values that it had
// not seen. It matches ErrConflict.
type ConflictError struct {
	// Item is the key as it stands: read by the owner that refused the write.
	Item Item

	outcome Outcome
	held    replica.Record // of which Item is the view
}

// Error is one line that ends with the outcome.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("%v: key %q; outcome: %v", ErrConflict, e.Item.Key, e.outcome)
}

// Unwrap gives ErrConflict.
func (e *ConflictError) Unwrap() error { return ErrConflict }

// A ReplicaError is one replica's part in a QuorumError. Err is nil for a
// replica that answered well. When nothing was sent (ErrUnavailable) only the
// replicas that cannot be reached are listed.
type ReplicaError struct {
	Node string
	Err  error
	Took time.Duration
}

// Error is one line that ends with the outcome.
func (e *QuorumError) Error() string {
	var b strings.Builder
	switch {
	case e.Op != opScan:
		fmt.Fprintf(&b, "%v: %s %q at %v: ", e.kind, e.Op, e.Key, e.Level)
	case e.Key == "":
		fmt.Fprintf(&b, "%v: scan at %v: ", e.kind, e.Level)
	default:
		fmt.Fprintf(&b, "%v: scan behind %q at %v: ", e.kind, e.Key, e.Level)
	}
	switch {
	case e.Required == 0 && e.outcome == Unknown && !e.reads():
		b.WriteString("handed to an owner, no usable answer came")
	case e.Required == 0:
		b.WriteString("over before anything was sent")
	default:
		fmt.Fprintf(&b, "%d of %d needed answers, live owners: %d", e.Received, e.Required, e.Alive)
	}
	if e.cause != nil && !slices.ContainsFunc(e.Replicas, func(r ReplicaError) bool { return r.Err == e.cause }) {
		fmt.Fprintf(&b, "; %v", e.cause)
	}
	for _, r := range e.Replicas {
		if r.Err != nil {
			fmt.Fprintf(&b, "; %s: %v", r.Node, r.Err)
		}
	}
	if e.reads() {
		b.WriteString("; outcome: nothing was read")
	} else {
		fmt.Fprintf(&b, "; outcome: %v", e.outcome)
	}
	return b.String()
}

// reads reports whether the request stored nothing for its caller.
func (e *QuorumError) reads() bool { return e.Op == opGet || e.Op == opScan }

// Unwrap gives the kind of failure.
func (e *QuorumError) Unwrap() error { return e.kind }
