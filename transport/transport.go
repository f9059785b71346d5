package transport

import (
	"cmp"
	"crypto/tls"
	"errors"
	"time"
)

// Transport opens endpoints. Implementations are safe for concurrent use.
type Transport interface {
	Open(Config) (Endpoint, error)
}

// Config says how an endpoint is reached, who it is and who is told.
type Config struct {
	// Listen is the address to accept connections on, in the words of the
	// transport. Empty: the endpoint only dials.
	Listen string
	// Advertise is the address others reach the endpoint by, if it is not the
	// one listened on. It becomes Endpoint.Addr.
	Advertise string
	// Identity is asked at the start of every handshake, because a node that
	// joins a cluster changes its identity.
	Identity func() Identity
	// ClusterKey is a secret both sides of a connection must have. Empty: none.
	ClusterKey []byte
	// TLS, if not nil, is used in both directions. The version is raised to
	// TLS 1.3 and client certificates are demanded; without ClientCAs, RootCAs
	// decide about clients too.
	TLS    *tls.Config
	Limits Limits
	// Accept gives the handler of a connection that another endpoint dialed. It
	// may be nil when Listen is empty.
	Accept func() Handler
}

func (c *Config) validate() error {
	switch {
	case c.Identity == nil:
		return errors.New("transport: Config.Identity is missing")
	case c.Listen != "" && c.Accept == nil:
		return errors.New("transport: Config.Listen needs Config.Accept")
	}
	return c.Limits.validate()
}

// Endpoint is one node's place on a network.
type Endpoint interface {
	// Addr is the address that other endpoints dial.
	Addr() string
	// Dial returns at once and connects in the background. Messages sent before
	// the connection is open are queued. A connection that could not be opened
	// is reported by Handler.Closed and stays closed: the caller dials again.
	Dial(addr string, h Handler) Conn
	// Close closes all connections and waits until the last handler has
	// returned; so it must not be called from a handler. It may be called twice.
	Close() error
}

// Conn is one connection. Messages are delivered whole, at most a few times,
// in any order, or not at all: a transport may be better than that, and nobody
// relies on it. All methods are safe for concurrent use, none of them blocks,
// and none calls a handler.
type Conn interface {
	// Send queues the message head+body, which the receiver sees as one. Both
	// parts are copied before Send returns. An error means that nothing was
	// sent: ErrBusy when Limits.QueueBytes are waiting already, ErrDown once the
	// connection is closed, ErrTooLarge beyond Limits.FrameBytes, for transports
	// that have frames. After Closed was called Send always fails.
	Send(head, body []byte) error
	// Queue is Send for a message that may wait for the next Send or Flush.
	Queue(head, body []byte) error
	// Flush starts to move what is queued.
	Flush()
	// Remote is the identity of the other side, the zero Identity until the
	// connection is open.
	Remote() Identity
	// Close gives the connection up. Queued messages may be lost.
	Close() error
}

// Handler is told what happens on one connection. Its methods are called one at
// a time, never from within a method of Conn or Endpoint, and must not block:
// everything else that arrives on this connection waits for them.
//
//	(Opened (Receive+ BatchEnd)*)? Closed
type Handler interface {
	// Opened is called when the other side is known to be one to talk to.
	Opened(c Conn)
	// Receive gets one message. The memory of msg is reused when it returns.
	Receive(c Conn, msg []byte)
	// BatchEnd is called when no further message is at hand: the moment to let
	// go what was collected while the messages came in.
	BatchEnd(c Conn)
	// Closed is called once, last. The error is never nil and says why.
	Closed(c Conn, err error)
}

// Limits bound what an endpoint spends on its peers. A zero field means its
// default.
type Limits struct {
	// FrameBytes is the largest message, both ways. Default 16 MiB, at least
	// 4 KiB. All nodes of a cluster need the same.
	FrameBytes int
	// QueueBytes bounds what waits to be written on one connection. A message
	// is refused with ErrBusy if it would exceed this and is not alone. A slow
	// peer costs this much memory, twice. Default 4 MiB.
	QueueBytes int
	// LargeBytes bounds the messages over 64 KiB that an endpoint is receiving
	// at one moment, over all connections; readers wait for their turn.
	// Default 64 MiB, at least FrameBytes.
	LargeBytes int
	// Calls is the number of calls that may be pending at one peer, rounded up
	// to a power of two. Default 4096; each costs 64 bytes per peer.
	Calls int
	// Accepted is the number of open connections accepted from others, and
	// AcceptedPerHost how many of them from one host. Defaults 4096 and 1024.
	Accepted, AcceptedPerHost int
	// Handshakes is the number of accepted connections that have not yet said
	// who they are. Beyond it the oldest is dropped, so that idle strangers do
	// not keep a node out. Default 256.
	Handshakes int
	// HandshakeTimeout bounds dialing, and then the handshake. Default 5 s.
	HandshakeTimeout time.Duration
	// FrameTimeout bounds the time from the first to the last byte of a
	// message. Default 10 s.
	FrameTimeout time.Duration
	// WriteTimeout is how long a peer may leave a write unread before the
	// connection is closed. Default 5 s.
	WriteTimeout time.Duration
	// StallTimeout is how long a Mux keeps a connection on which calls expire
	// and nothing arrives. Default 5 s.
	StallTimeout time.Duration
}

const (
	minFrameBytes   = 4 << 10
	maxFrameBytes   = 1 << 30
	maxPendingCalls = 1 << 20
)

func (l *Limits) frameBytes() int      { return cmp.Or(l.FrameBytes, 16<<20) }
func (l *Limits) queueBytes() int      { return cmp.Or(l.QueueBytes, 4<<20) }
func (l *Limits) largeBytes() int      { return max(cmp.Or(l.LargeBytes, 64<<20), l.frameBytes()) }
func (l *Limits) calls() int           { return cmp.Or(l.Calls, 4096) }
func (l *Limits) accepted() int        { return cmp.Or(l.Accepted, 4096) }
func (l *Limits) acceptedPerHost() int { return cmp.Or(l.AcceptedPerHost, 1024) }
func (l *Limits) handshakes() int      { return cmp.Or(l.Handshakes, 256) }

func (l *Limits) handshakeTimeout() time.Duration { return cmp.Or(l.HandshakeTimeout, 5*time.Second) }
func (l *Limits) frameTimeout() time.Duration     { return cmp.Or(l.FrameTimeout, 10*time.Second) }
func (l *Limits) writeTimeout() time.Duration     { return cmp.Or(l.WriteTimeout, 5*time.Second) }
func (l *Limits) stallTimeout() time.Duration     { return cmp.Or(l.StallTimeout, 5*time.Second) }

func (l *Limits) validate() error {
	if n := l.frameBytes(); n < minFrameBytes || n > maxFrameBytes {
		return errors.New("transport: Limits.FrameBytes must be between 4 KiB and 1 GiB")
	}
	if n := l.calls(); n < 1 || n > maxPendingCalls {
		return errors.New("transport: Limits.Calls must be between 1 and 1,048,576")
	}
	for _, n := range []int{l.QueueBytes, l.LargeBytes, l.Accepted, l.AcceptedPerHost, l.Handshakes,
		int(l.HandshakeTimeout), int(l.FrameTimeout), int(l.WriteTimeout), int(l.StallTimeout)} {
		if n < 0 {
			return errors.New("transport: a negative limit; use zero for its default")
		}
	}
	return nil
}
