package transport

import (
	"errors"
	"fmt"
)

// What a send or a call may end with.
var (
	// ErrBusy: a queue is full and nothing was sent. Try another node, or later.
	ErrBusy = errors.New("transport: too much is waiting for this peer; try another one, or later")
	// ErrDown: there is no connection and nothing was sent. It wraps the reason
	// when one is known.
	ErrDown = errors.New("transport: not connected to the peer")
	// ErrClosed: the connection was lost, or closed, while the call was pending.
	// Whether the request was carried out is unknown.
	ErrClosed = errors.New("transport: connection lost while the call was pending")
	// ErrDeadline: no reply in time. Whether the request was, or will be, carried
	// out is unknown.
	ErrDeadline = errors.New("transport: no reply before the deadline")
	// ErrTooLarge: the message exceeds Limits.FrameBytes and was not sent.
	ErrTooLarge = errors.New("transport: message exceeds the largest frame; send it in parts")
	// ErrLeaving: the peer is about to close and nothing was sent.
	ErrLeaving = errors.New("transport: the peer is shutting down")
	// ErrShutdown: the Mux or the endpoint itself was closed.
	ErrShutdown = errors.New("transport: closed")
)

// Why a connection was refused. The connection's ErrDown wraps one of these.
var (
	// ErrNotKvstore: something else answers at this address.
	ErrNotKvstore = errors.New("transport: the peer is not a kvstore node; check the address")
	// ErrWrongCluster: the peer belongs to another cluster.
	ErrWrongCluster = errors.New("transport: the peer belongs to another cluster; check the seeds")
	// ErrVersion: no protocol version, or not every required feature, is common.
	ErrVersion = errors.New("transport: no common protocol version; upgrade the older node")
	// ErrBadKey: the cluster keys differ, or only one side has one.
	ErrBadKey = errors.New("transport: the cluster keys differ; give all nodes the same one")
	// ErrTLS: one side speaks TLS and the other does not, or the certificates
	// are not accepted.
	ErrTLS = errors.New("transport: TLS handshake failed; give all nodes TLS and certificates of one authority")
)

// ErrCorrupt: the bytes of a frame, a handshake or a message break the protocol.
// The connection is closed.
var ErrCorrupt = errors.New("transport: malformed data from the peer")

// RemoteError is the answer of a handler that called Fail.
type RemoteError struct {
	Code uint8
	Text string
}

func (e *RemoteError) Error() string {
	return fmt.Sprintf("transport: the peer answered with failure %d: %s", e.Code, e.Text)
}

// CodeTooLarge is the Code of a RemoteError in place of a reply that exceeds the
// largest frame. Codes from 240 up belong to this package.
const CodeTooLarge = 255

// down wraps why a connection could not be opened, or is not there.
func down(cause error) error { return because(ErrDown, cause) }

// lost wraps why an open connection ended.
func lost(cause error) error { return because(ErrClosed, cause) }

func because(err, cause error) error {
	switch {
	case cause == nil:
		return err
	case errors.Is(cause, err):
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}
